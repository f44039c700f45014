//! What the controller of a run saw of the cluster, beside what clients were told.

use serde::{Deserialize, Serialize};

use crate::history::Key;

/// One sighting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "value", rename_all = "snake_case")]
pub enum Observation {
    /// A node says that it leads in this term.
    Leader { node: String, term: u64 },
    /// A majority is up, a leader serves, and nothing is broken.
    Ready {},
    /// After the last fault: a group received until nothing came.
    DrainedGroup { group: String },
    /// After the last fault: a queue was read to its end, to a sentinel.
    DrainedKey { key: Key },
    /// The state of a replica at an applied index.
    Digest { node: String, applied: u64, digest: String },
    /// A process ended. `expected` when the run ended it, or when its end is documented.
    Exit { node: String, expected: bool, status: String },
    /// A log tells of a panic.
    Panic { node: String, line: String },
    /// The voters of the broker group.
    Members { voters: Vec<String> },
    /// So many of something so far: `segment_rolls`, `snapshots_built`, `snapshots_installed`.
    Count { what: String, count: u64 },
    /// So many messages wait for a group.
    Lag { group: String, messages: u64 },
    /// By how much this process is woken too late, in µs at the 99th percentile: whether figures of
    /// time can be trusted.
    Calibration { p99_us: u64 },
}

impl Observation {
    /// The name of the sighting, as in the file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Leader { .. } => "leader",
            Self::Ready {} => "ready",
            Self::DrainedGroup { .. } => "drained_group",
            Self::DrainedKey { .. } => "drained_key",
            Self::Digest { .. } => "digest",
            Self::Exit { .. } => "exit",
            Self::Panic { .. } => "panic",
            Self::Members { .. } => "members",
            Self::Count { .. } => "count",
            Self::Lag { .. } => "lag",
            Self::Calibration { .. } => "calibration",
        }
    }
}
