//! The fault suite's pure half: what clients did, and what that proves.
//!
//! [`accounting`] is what the cluster tests keep: sends, receives and acks. [`history`] is the
//! record of a fault run, with every operation, every fault and what was seen of the cluster;
//! [`judge`] holds one checker per promise; [`export`] writes a history for checkers that others
//! wrote; [`report`] shows a run to people. [`class`] decides which failures are definite.
//!
//! Pure data and pure functions. Nothing here knows the product: it is judged from outside.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod accounting;
pub mod class;
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its terminal")]
pub mod cli;
pub mod export;
pub mod history;
pub mod judge;
pub mod report;

pub use accounting::{
    Action, Anomaly, Error, Event, Fate, History, Message, Place, Queue, Verdict, check,
};
