//! Requests with their outcomes: the events of a history, paired.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Answer, Body, Call, Event, Failure, Fault, Observation, Process};

/// How an operation ended, as far as its caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Ok(Answer),
    /// It did not happen and never will.
    Failed(Failure),
    /// It may have happened, or may yet.
    Unknown(Failure),
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Index of the invocation.
    pub index: u64,
    /// Index of the completion, if there is one.
    pub completion: Option<u64>,
    pub process: u64,
    pub node: Option<String>,
    /// Before the first byte was sent, in ns.
    pub began: u64,
    /// When its caller knew or gave up, in ns; `u64::MAX` if it never did.
    pub ended: u64,
    pub call: Call,
    pub outcome: Outcome,
}

impl Op {
    /// Whether it happened for certain.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok(_))
    }

    /// Whether it certainly did not happen.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    /// The answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Failed(_) | Outcome::Unknown(_) => None,
        }
    }

    /// The last moment at which it may have taken effect: its end if it was answered, else never.
    #[must_use]
    pub fn effective_until(&self) -> u64 {
        match self.outcome {
            Outcome::Ok(_) => self.ended,
            Outcome::Failed(_) | Outcome::Unknown(_) => u64::MAX,
        }
    }
}

/// Something with the time at which it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    pub index: u64,
    pub time: u64,
    pub what: T,
}

/// A whole run, as the checkers see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// In the order of their invocations.
    pub ops: Vec<Op>,
    pub faults: Vec<Seen<Fault>>,
    pub observations: Vec<Seen<Observation>>,
    /// The time of the last event.
    pub end: u64,
}

/// A history in which a completion does not belong to an invocation. That is a mistake of whoever
/// recorded it and says nothing about the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpaired {
    pub index: u64,
    pub what: &'static str,
}

impl fmt::Display for Unpaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {}: {}", self.index, self.what)
    }
}

impl std::error::Error for Unpaired {}

impl Record {
    /// Pairs invocations with their completions.
    pub fn of(events: impl IntoIterator<Item = Event>) -> Result<Self, Unpaired> {
        let mut record = Self::default();
        // The place in `ops` of what each process has under way; `None` once it must not go on.
        let mut under_way: BTreeMap<u64, Option<usize>> = BTreeMap::new();
        for event in events {
            let unpaired = |what| Err(Unpaired { index: event.index, what });
            if event.time < record.end {
                return unpaired("time goes backwards");
            }
            record.end = event.time;
            match (event.process, event.body) {
                (Process::Client(process), Body::Invoke { call, node }) => {
                    if under_way.insert(process, Some(record.ops.len())).is_some() {
                        return unpaired("a process begins before it ended, or after it gave up");
                    }
                    record.ops.push(Op {
                        index: event.index,
                        completion: None,
                        process,
                        node,
                        began: event.time,
                        ended: u64::MAX,
                        call,
                        outcome: Outcome::Unknown(Failure::default()),
                    });
                }
                (Process::Client(process), body) => {
                    let Some(Some(place)) = under_way.get(&process).copied() else {
                        return unpaired("a completion without an invocation");
                    };
                    let op = &mut record.ops[place];
                    let (name, outcome) = match body {
                        Body::Ok(answer) => (answer.name().to_owned(), Outcome::Ok(answer)),
                        Body::Fail { name, failure } => (name, Outcome::Failed(failure)),
                        Body::Info { name, failure } => (name, Outcome::Unknown(failure)),
                        Body::Invoke { .. } | Body::Fault(_) | Body::Observed(_) => {
                            return unpaired("a client does not do this");
                        }
                    };
                    if name != op.call.name() {
                        return unpaired("a completion of another operation");
                    }
                    if matches!(outcome, Outcome::Unknown(_)) {
                        under_way.insert(process, None);
                    } else {
                        under_way.remove(&process);
                    }
                    op.completion = Some(event.index);
                    op.ended = event.time;
                    op.outcome = outcome;
                }
                (Process::Nemesis | Process::Observer, Body::Fault(what)) => {
                    record.faults.push(Seen { index: event.index, time: event.time, what });
                }
                (Process::Nemesis | Process::Observer, Body::Observed(what)) => {
                    record.observations.push(Seen { index: event.index, time: event.time, what });
                }
                (Process::Nemesis | Process::Observer, _) => {
                    return unpaired("only clients have operations");
                }
            }
        }
        Ok(record)
    }

    /// The groups that received to the end after the last fault.
    #[must_use]
    pub fn drained_group(&self, group: &str) -> bool {
        self.observations
            .iter()
            .any(|o| matches!(&o.what, Observation::DrainedGroup { group: g } if g == group))
    }

    /// Whether a queue was read to its end after the last fault.
    #[must_use]
    pub fn drained_key(&self, key: u32) -> bool {
        self.observations
            .iter()
            .any(|o| matches!(&o.what, Observation::DrainedKey { key: k } if *k == key))
    }
}
