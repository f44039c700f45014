//! The NameServer: who leads what, in memory, refreshed by the brokers' heartbeats.
//!
//! | module | does |
//! |---|---|
//! | [`registry`] | decides what the reports of brokers mean; no clock, no network |
//! | [`state`] | the registry with its clock, and the view that all is served from |
//! | `grpc` | the Registry service for brokers, other access points and tools |
//! | `http`, `metrics` | the pages |
//! | [`config`], [`server`] | settings; everything built and wired |
//!
//! To clients it is an access point like any broker, by the `gateway` crate. It writes nothing to
//! disk and talks to no other NameServer: all of them hear the same from the brokers.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod config;
mod grpc;
mod http;
mod metrics;
pub mod registry;
pub mod server;
pub mod state;
