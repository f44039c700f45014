//! What a record proves: one checker per promise, each near-linear and pure.
//!
//! A checker turns a [`Record`] into a [`Finding`]. It is `invalid` when something happened that
//! must not, `unknown` when the record cannot show that nothing did (a drain that did not finish,
//! faults that never bit, too few operations), and `valid` otherwise. `unknown` never passes.
//!
//! Checkers give the cluster the benefit of every doubt that the record leaves: an operation of
//! unknown outcome may have happened at any time, and a time is compared by the bounds that the
//! clients saw. So whatever is reported is wrong under every reading of the history.

mod availability;
mod coverage;
mod delay;
mod fifo;
mod finding;
mod grants;
mod idle;
mod kind;
mod lifecycle;
mod linearizability;
mod log;
mod max_offset;
mod messages;
mod meta;
mod offset;
mod poll;
mod queue;
mod rebalance;
mod register;
mod replicas;
mod sends;
mod slice;
mod timeline;
mod txn;
mod verdict;

pub use availability::{Recovery, recoveries};
pub use finding::{Anomaly, Finding, Found, Validity};
pub use kind::Kind;
pub use linearizability::{Answered, Linearizable, RegisterCall, RegisterOp, linearizable};
pub use register::{Unique, Wrong, zones};
pub use sends::{Fate, Sends, Sent};
pub use slice::{Slice, slice};
pub use timeline::{Band, Timeline};
pub use verdict::{CHECKERS, Judgement, judge, judge_with};

use crate::history::{Plan, Record};

/// Nanoseconds of a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// Everything that a checker may look at.
#[derive(Debug)]
pub struct Case<'a> {
    pub plan: &'a Plan,
    pub record: &'a Record,
    pub timeline: Timeline,
    pub sends: Sends,
}

impl<'a> Case<'a> {
    #[must_use]
    pub fn new(plan: &'a Plan, record: &'a Record) -> Self {
        Self { plan, record, timeline: Timeline::of(record), sends: Sends::of(record) }
    }

    /// By how much two readings of time in the cluster may differ, in ns.
    fn clock_slack(&self) -> u64 {
        (self.plan.limits.clock_slack_ms + self.timeline.skew_ms()) * MS
    }
}
