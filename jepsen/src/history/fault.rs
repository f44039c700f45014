//! What was done to the cluster.

use serde::{Deserialize, Serialize};

/// How far a fault has got. A fault that may or may not bite is never called failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is being installed.
    Invoked,
    /// It is known to bite.
    Installed,
    /// It may bite or not.
    Indeterminate,
    /// There was no safe target, so nothing was done.
    Skipped,
    /// It is taken away.
    Healed,
}

/// One step of one fault. Its class is the `f` of the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Number of the fault in the run; its steps share it.
    pub fault: u64,
    /// What kind of fault: `kill`, `pause`, `part-leader`, `power`, `clock-bump`...
    #[serde(skip)]
    pub class: String,
    pub targets: Vec<String>,
    pub phase: Phase,
    /// Whether a leader was among the targets.
    #[serde(default)]
    pub leader: bool,
    /// Whether so many were hit that the cluster cannot serve.
    #[serde(default)]
    pub majority: bool,
    /// What a power loss took, in bytes that were written but not synced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_bytes: Option<u64>,
    /// By how much a wall clock was moved, in ms either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_ms: Option<u64>,
}
