//! What a run was asked to do: `test.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::accounting::Queue;

/// What clients do, and by that, which checkers judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Send, receive, ack: every group gets every message.
    Queue,
    /// Send and read by offset: dense offsets, nothing lost, no stale bound.
    Log,
    /// Consumer offsets as registers.
    Offset,
    /// Messages in order per message group.
    Fifo,
    /// Transfers between accounts as transactions.
    Txn,
    /// Delayed messages and recalls.
    Delay,
    /// Members of groups come and go.
    Rebalance,
    /// Producers repeat sends of unknown fate.
    Idem,
    /// Independent readers of one log.
    Broadcast,
    /// Topics, groups and routes.
    Meta,
    /// All of them at once.
    Mix,
}

impl Workload {
    /// Whether `self` holds what `part` is about.
    #[must_use]
    pub fn includes(self, part: Self) -> bool {
        self == part || self == Self::Mix
    }
}

/// A consumer group of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    /// The queues that it reads.
    pub keys: Vec<u32>,
    /// Its members read by offset and commit; nobody receives and acknowledges.
    #[serde(default)]
    pub pulls: bool,
    /// Messages of one message group come one after the other.
    #[serde(default)]
    pub fifo: bool,
    /// A queue belongs to one member at a time.
    #[serde(default)]
    pub exclusive: bool,
    /// Deliveries before a message goes to the dead-letter queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
}

/// Figures that the checkers hold the cluster to, in ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// By how much two readings of time in one cluster may differ without a clock fault.
    pub clock_slack_ms: u64,
    /// How long after the end of its invisible time a message may come again.
    pub redelivery_ms: u64,
    /// How late a delayed message may be while nothing is broken.
    pub delay_late_ms: u64,
    /// The same at the 99th percentile of a run without any fault.
    pub delay_late_p99_ms: u64,
    /// How late it may be after the cluster is ready again.
    pub delay_late_after_fault_ms: u64,
    /// Age of a half message before its producer is asked.
    pub transaction_timeout_ms: u64,
    /// Time between two questions.
    pub check_interval_ms: u64,
    /// How long after a change of members a queue may be without one.
    pub rebalance_ms: u64,
    /// How long a repeated send is recognised.
    pub dedupe_window_ms: u64,
    /// How long a route may name a leader of yesterday.
    pub route_ms: u64,
    /// Time from the last heal to a cluster that serves.
    pub ready_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clock_slack_ms: 50,
            redelivery_ms: 3_000,
            delay_late_ms: 1_000,
            delay_late_p99_ms: 100,
            delay_late_after_fault_ms: 2_000,
            transaction_timeout_ms: 6_000,
            check_interval_ms: 30_000,
            rebalance_ms: 10_000,
            dedupe_window_ms: 600_000,
            route_ms: 10_000,
            ready_ms: 20_000,
        }
    }
}

/// What must have happened for a run to prove anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wants {
    /// Successful operations of each of these kinds.
    pub ok: BTreeMap<String, u64>,
    /// Installed faults of each of these classes.
    pub faults: BTreeMap<String, u64>,
    pub leader_changes: u64,
    /// Bytes that power losses took, in all.
    pub lost_bytes: u64,
    /// Counters of [`crate::history::Observation::Count`].
    pub counts: BTreeMap<String, u64>,
    /// Reads while the old leader was cut off and the new one wrote.
    pub reads_of_stale_leader: u64,
}

/// A run, as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Names the run; part of the names of everything that it makes.
    pub run: String,
    pub workloads: Vec<Workload>,
    pub nemeses: Vec<String>,
    pub seed: u64,
    pub nodes: Vec<String>,
    /// The queues, whose places in this list are the keys of the history.
    pub keys: Vec<Queue>,
    #[serde(default)]
    pub groups: Vec<Group>,
    /// The wall clock of the controller at time 0, in ms since the epoch.
    pub wall_start_ms: u64,
    /// What was tested.
    #[serde(default)]
    pub version: String,
    /// The command that does it again.
    #[serde(default)]
    pub command: String,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub wants: Wants,
}

impl Plan {
    /// Whether the clients of this run do what `workload` is about.
    #[must_use]
    pub fn includes(&self, workload: Workload) -> bool {
        self.workloads.iter().any(|w| w.includes(workload))
    }

    /// A consumer group by its name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }

    /// How a queue is called.
    #[must_use]
    pub fn queue(&self, key: u32) -> String {
        self.keys.get(key as usize).map_or_else(|| format!("key {key}"), ToString::to_string)
    }
}
