//! The access point that brokers and NameServers share: any of them serves any client.
//!
//! | module | does |
//! |---|---|
//! | [`local`] | what a gateway asks of the broker that it lives in |
//! | [`directory`] | who leads what, learned from NameServers and from the node itself |
//! | `messaging`, `produce`, `requests` | each RPC, and the broker group that it goes to |
//! | `forward`, `retry`, `operation`, `channels` | to the leader and back, whoever that is by then |
//! | `route`, `placement`, `endpoints` | what clients are told about where queues are |
//! | `telemetry`, `settings`, `clients`, `session` | who the clients are, and what leaders know of them |
//! | [`status`] | the table of RocketMQ codes for what the gateway says itself |
//! | [`listener`], [`server`] | one port for plaintext and TLS |
//! | [`admin`] | administration, sent to the leaders concerned |
//! | [`LogLevel`] | the log level of this very process |
//!
//! What always holds:
//! - a request is forwarded once at most;
//! - a request that may have been executed never ends as *not done*;
//! - every wait has a bound, and ends early when the directory changes;
//! - dropping a client's stream drops what was asked for it.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod acks;
pub mod admin;
mod answer;
mod answers;
mod caller;
mod channels;
mod clients;
mod config;
mod consumer_groups;
pub mod directory;
mod endpoints;
mod forward;
mod gateway;
mod hops;
pub mod listener;
pub mod local;
mod log_level;
mod messaging;
mod operation;
mod peek;
mod placement;
mod produce;
mod pulls;
mod registry;
mod requests;
mod retry;
mod route;
pub mod server;
mod session;
pub mod settings;
pub mod status;
mod suspects;
mod telemetry;
mod topics;

pub use self::{
    admin::{AdminFanout, AdminSwitch},
    caller::{Caller, DEADLINE_MAX, NO_DEADLINE},
    config::{CLIENTS_MAX, Config, HOLD, RouteMode, UnknownRouteMode},
    directory::{Directory, GroupView, MemberView, RemoteDirectory, Shared, TopicRoute},
    endpoints::Dialled,
    gateway::Gateway,
    hops::Hops,
    listener::{Io, TlsConfig},
    local::{Local, Miss, NoLocal, PullStream, ReceiveStream},
    log_level::LogLevel,
    placement::fifo_queue,
};
