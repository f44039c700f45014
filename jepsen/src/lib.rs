//! The fault suite's accounting: what clients did ([`History`]) and what that proves ([`check`]).
//!
//! Pure data and pure functions. Clients of every kind (the cluster tests, the demo, official
//! clients in other languages) record into the same history, so that one checker judges them all.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod checker;
#[cfg(test)]
mod checker_test;
mod history;
mod verdict;

pub use checker::check;
pub use history::{Action, Error, Event, Fate, History, Message, Place, Queue};
pub use verdict::{Anomaly, Verdict};
