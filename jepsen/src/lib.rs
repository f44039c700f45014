//! The fault suite: what clients did to a real cluster under faults, and what that proves.
//!
//! [`history`] is the record of a fault run, with every operation, every fault and what was seen of
//! the cluster; [`judge`] holds one checker per promise; [`export`] writes a history for checkers
//! that others wrote; [`report`] shows a run to people. [`class`] decides which failures are
//! definite. [`accounting`] is what the cluster tests keep: sends, receives and acks. All of that
//! is pure.
//!
//! [`run`] makes such a record: [`db`] starts and breaks the processes, [`net`] the network between
//! them, [`nemesis`] decides what breaks when, [`generator`] what clients ask, and [`client`] asks
//! it. The product is judged from outside: its programs are started, and nothing of them is linked
//! but the wire.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod accounting;
pub mod class;
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its terminal")]
pub mod cli;
pub mod client;
pub mod db;
pub mod export;
pub mod generator;
pub mod history;
pub mod judge;
pub mod nemesis;
pub mod net;
pub mod report;
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a run says how it goes")]
pub mod run;

#[allow(clippy::print_stdout, reason = "it says how it goes")]
pub mod selftest;

pub use accounting::{
    Action, Anomaly, Error, Event, Fate, History, Message, Place, Queue, Verdict, check,
};
