//! What the clients of each workload do next: seeded, and without any knowledge of a network.
//!
//! A [`Client`] is asked for its next request and told how that ended. The same clients work on a
//! real cluster and on the model cluster that the checkers are tested with.

mod administrator;
mod committer;
mod consumer;
mod member;
mod producer;
mod reader;
mod teller;

use rand::rngs::StdRng;

pub use administrator::Administrator;
pub use committer::Committer;
pub use consumer::Consumer;
pub use member::Member;
pub use producer::Producer;
pub use reader::Reader;
pub use teller::{Ledger, Questions, Teller};

use crate::history::{Call, Key, Message, Outcome, Resolution};

const MS: u64 = 1_000_000;

/// One client, with one request under way at most.
pub trait Client: Send {
    /// What it asks next, if anything. `now` is in ns since the start; `draining`: faults and
    /// senders are done, and what is left is read to the end.
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call>;
    /// What its ledger says of a transaction, when the cluster asks.
    fn resolution(&mut self, _tx: Message) -> Resolution {
        Resolution::Undecided
    }
    /// How that ended.
    fn told(&mut self, _call: &Call, _outcome: &Outcome) {}
}

/// Consecutive queues, beginning with `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    pub from: Key,
    pub count: u32,
}

impl Keys {
    /// The first `count` queues of a run.
    #[must_use]
    pub fn first(count: u32) -> Self {
        Self { from: 0, count }
    }

    /// The `nth` of them, beginning again after the last.
    #[must_use]
    pub fn nth(self, nth: u32) -> Key {
        self.from + nth % self.count
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = Key> {
        self.from..self.from + self.count
    }
}
