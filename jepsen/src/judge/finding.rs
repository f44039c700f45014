//! What one checker found.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::Op;
use crate::judge::Kind;

/// Anomalies of one kind that are kept as examples; the rest is counted.
const EXAMPLES: usize = 16;

/// What a record amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    Valid,
    /// It cannot be told; never passes.
    Unknown,
    Invalid,
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        })
    }
}

/// One thing that must not happen and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    pub kind: Kind,
    /// In a sentence.
    pub what: String,
    /// Indexes of the events that show it.
    pub events: Vec<u64>,
}

/// All anomalies of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub count: u64,
    pub examples: Vec<Anomaly>,
}

/// What one checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub anomalies: BTreeMap<Kind, Found>,
    /// Why the record cannot show that nothing is wrong.
    pub doubts: Vec<String>,
    /// What was looked at and what is legal but of interest.
    pub counts: BTreeMap<String, u64>,
}

impl Finding {
    /// Adds an anomaly that these operations show.
    pub(crate) fn add<'a>(
        &mut self,
        kind: Kind,
        ops: impl IntoIterator<Item = &'a Op>,
        what: impl FnOnce() -> String,
    ) {
        let events = ops.into_iter().flat_map(|op| [Some(op.index), op.completion]).flatten();
        self.add_at(kind, events, what);
    }

    /// Adds an anomaly that the events with these indexes show.
    pub(crate) fn add_at(
        &mut self,
        kind: Kind,
        events: impl IntoIterator<Item = u64>,
        what: impl FnOnce() -> String,
    ) {
        let found = self.anomalies.entry(kind).or_default();
        found.count += 1;
        if found.examples.len() < EXAMPLES {
            let mut events: Vec<u64> = events.into_iter().collect();
            events.sort_unstable();
            events.dedup();
            found.examples.push(Anomaly { kind, what: what(), events });
        }
    }

    pub(crate) fn doubt(&mut self, why: impl Into<String>) {
        self.doubts.push(why.into());
    }

    pub(crate) fn count(&mut self, what: &str, count: usize) {
        *self.counts.entry(what.to_owned()).or_default() += count as u64;
    }

    #[must_use]
    pub fn validity(&self) -> Validity {
        if !self.anomalies.is_empty() {
            Validity::Invalid
        } else if !self.doubts.is_empty() {
            Validity::Unknown
        } else {
            Validity::Valid
        }
    }
}
