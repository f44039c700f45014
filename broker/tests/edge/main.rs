//! One broker in this process, asked over gRPC as official clients do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod ack;
mod admin;
mod administration;
mod client;
mod delayed;
mod filters;
mod give_back;
mod harness;
mod limits;
mod metrics;
mod namespaces;
mod ordered;
mod pull;
mod receive;
mod restart;
mod retention;
mod send;
mod sessions;
mod start;
mod transaction;
