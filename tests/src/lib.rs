//! The harness of the end-to-end tests: real `namesrv` and `broker` processes on loopback, clients
//! that record what they did, and faults as verbs.
//!
//! A test reads like the sentence that it proves. Nouns are clusters, nodes and clients; verbs are
//! faults (`kill`, `pause`, `stop`, `restart`, `wipe`); waits are conditions with a name and a
//! budget. What clients did goes into one [`Ledger`], and the `jepsen` crate judges it.
//!
//! When a test fails it prints the role and the positions of each node and the end of each log, and
//! leaves the data directories where they are.

#![allow(clippy::print_stderr, reason = "a harness reports to the terminal")]

pub mod address;
pub mod binaries;
pub mod cluster;
pub mod consumer;
pub mod damage;
pub mod eventually;
pub mod faults;
pub mod file_system;
pub mod group;
pub mod ledger;
pub mod library;
pub mod mqadmin;
pub mod nameserver;
pub mod network;
pub mod node;
pub mod official;
pub mod producer;
pub mod scratch;
pub mod tls;
pub mod written;

// Clients without a mind of their own and processes under test: shared with fault runs.
pub use jepsen::client::{body, outcome, rpc};
pub use jepsen::db::{http, process, status};

pub use cluster::Cluster;
pub use consumer::Consumer;
pub use eventually::{eventually, throughout};
pub use group::BrokerGroup;
pub use ledger::Ledger;
pub use outcome::Failure;
pub use producer::Producer;
pub use written::Written;
