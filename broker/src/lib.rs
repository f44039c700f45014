//! RocketMQ semantics over a replicated log: one replica of one broker group.
//!
//! | module | does |
//! |---|---|
//! | [`config`], [`data_dir`] | what an operator chose, and the directory that it is about |
//! | [`server`] | builds everything and wires it, in order; stops it, in order |
//! | [`grpc`] | the edge: translation between the wire and the operations |
//! | [`ops`] | what the broker can do, one file an operation |
//! | [`command`], [`state`], [`kv`] | the middle: what the log may hold, what it adds up to, and where that is kept |
//! | [`delivery`] | the rim: who waits, what is proposed, how much is in progress |
//! | [`sessions`], [`tasks`], [`leadership`] | who is connected, and what only the leader does |
//! | [`registration`], [`directory`] | what NameServers and this node's access point know of it |
//! | [`http`], [`pages`], [`metrics`] | what operators see |
//! | [`restore`] | a replica from a backup, while nothing runs |
//!
//! What always holds:
//! - nothing is answered as done before it is applied here, and durable on a quorum;
//! - operations run on the leader only, and change state only by proposing;
//! - the middle is deterministic; clocks, bodies and filters are looked at outside of it;
//! - every queue, buffer and wait has a bound;
//! - only [`grpc::status`] names a RocketMQ code.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod command;
pub mod config;
pub mod connections;
pub mod data_dir;
pub mod delivery;
pub mod directory;
pub mod error;
pub mod fault;
pub mod filter;
pub mod grpc;
pub mod http;
pub mod inspect;
pub mod kv;
pub mod leadership;
mod lobby;
pub mod metrics;
pub mod ops;
pub mod otlp;
pub mod pages;
pub mod registration;
pub mod restore;
pub mod server;
pub mod sessions;
pub mod state;
pub mod tasks;

pub use error::{Error, Fate};
