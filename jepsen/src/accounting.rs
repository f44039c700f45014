//! The accounting of the cluster tests: what was sent, received and acked, one event per operation,
//! and whether the books agree.
//!
//! Clients of every kind (the cluster tests, the demo, official clients in other languages) keep
//! these books, because they need nothing but a clock and a line of JSON per operation. The
//! histories of fault runs ([`crate::history`]) hold more, and are judged by [`crate::judge`].

mod checker;
#[cfg(test)]
mod checker_test;
mod history;
mod verdict;

pub use checker::check;
pub use history::{Action, Error, Event, Fate, History, Message, Place, Queue};
pub use verdict::{Anomaly, Verdict};
