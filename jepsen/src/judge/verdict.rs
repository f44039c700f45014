//! The verdict on a run: its property, and whether the run was able to show it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Plan, Record, Workload};
use crate::judge::{
    Anomaly, Case, Finding, Kind, Recovery, Validity, availability, coverage, delay, fifo,
    lifecycle, log, max_offset, messages, meta, offset, poll, queue, rebalance, recoveries,
    replicas, txn,
};

/// How many anomalies the text of a judgement shows.
const SHOWN: usize = 20;

/// What a run amounts to: `results.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    pub valid: Validity,
    /// One finding per promise.
    pub property: BTreeMap<String, Finding>,
    /// Whether enough happened.
    pub coverage: Finding,
    /// Whether the cluster came back as a whole.
    pub lifecycle: Finding,
    /// Whether it came back soon enough.
    pub availability: Finding,
    pub recoveries: Vec<Recovery>,
    pub run: String,
    pub seed: u64,
    pub version: String,
}

type Checker = fn(&Case<'_>) -> Finding;

/// The checkers, with the workloads that call for them; none calls for those that always apply.
const TABLE: &[(&str, &[Workload], Checker)] = &[
    ("messages", &[], messages::check),
    ("replicas", &[], replicas::check),
    (
        "queue",
        &[Workload::Queue, Workload::Fifo, Workload::Txn, Workload::Delay, Workload::Idem],
        queue::check,
    ),
    ("log", &[Workload::Log, Workload::Idem, Workload::Broadcast], log::check),
    ("poll", &[Workload::Log, Workload::Broadcast, Workload::Rebalance], poll::check),
    ("max-offset", &[Workload::Log], max_offset::check),
    ("offset", &[Workload::Offset, Workload::Rebalance], offset::check),
    ("fifo", &[Workload::Fifo], fifo::check),
    ("txn", &[Workload::Txn], txn::check),
    ("delay", &[Workload::Delay], delay::check),
    ("rebalance", &[Workload::Rebalance], rebalance::check),
    ("meta", &[Workload::Meta], meta::check),
];

/// The names of the checkers.
pub const CHECKERS: &[&str] = &[
    "messages",
    "replicas",
    "queue",
    "log",
    "poll",
    "max-offset",
    "offset",
    "fifo",
    "txn",
    "delay",
    "rebalance",
    "meta",
];

/// Judges a run.
#[must_use]
pub fn judge(plan: &Plan, record: &Record) -> Judgement {
    judge_with(plan, record, &[])
}

/// Judges a run with these checkers of properties only; with all that apply if none is named.
#[must_use]
pub fn judge_with(plan: &Plan, record: &Record, only: &[String]) -> Judgement {
    let case = Case::new(plan, record);
    let property: BTreeMap<String, Finding> = TABLE
        .iter()
        .filter(|(_, workloads, _)| {
            workloads.is_empty() || workloads.iter().any(|w| plan.includes(*w))
        })
        .filter(|(name, ..)| only.is_empty() || only.iter().any(|wanted| wanted == name))
        .map(|(name, _, check)| ((*name).to_owned(), check(&case)))
        .collect();
    let coverage = coverage::check(&case);
    let lifecycle = lifecycle::check(&case);
    let availability = availability::check(&case);
    let parts = property.values().chain([&coverage, &lifecycle, &availability]);
    Judgement {
        valid: parts.map(Finding::validity).max().unwrap_or(Validity::Unknown),
        recoveries: recoveries(&case),
        run: plan.run.clone(),
        seed: plan.seed,
        version: plan.version.clone(),
        property,
        coverage,
        lifecycle,
        availability,
    }
}

impl Judgement {
    /// All findings with their names.
    pub fn findings(&self) -> impl Iterator<Item = (&str, &Finding)> {
        let run = [
            ("coverage", &self.coverage),
            ("lifecycle", &self.lifecycle),
            ("availability", &self.availability),
        ];
        self.property.iter().map(|(name, finding)| (name.as_str(), finding)).chain(run)
    }

    /// How many anomalies of each kind there are.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<Kind, u64> {
        let mut kinds = BTreeMap::new();
        for (kind, found) in self.findings().flat_map(|(_, finding)| &finding.anomalies) {
            *kinds.entry(*kind).or_default() += found.count;
        }
        kinds
    }

    /// The anomalies that are kept as examples.
    pub fn examples(&self) -> impl Iterator<Item = &Anomaly> {
        let found = self.findings().flat_map(|(_, finding)| finding.anomalies.values());
        found.flat_map(|found| &found.examples)
    }

    /// Why the run cannot show that nothing is wrong.
    pub fn doubts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.findings().flat_map(|(name, f)| f.doubts.iter().map(move |doubt| (name, &**doubt)))
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.run, self.valid)?;
        let kinds = self.kinds();
        for (kind, count) in &kinds {
            write!(f, "\n  {kind}: {count}")?;
        }
        for anomaly in self.examples().take(SHOWN) {
            write!(f, "\n    {}: {} {:?}", anomaly.kind, anomaly.what, anomaly.events)?;
        }
        for (name, doubt) in self.doubts() {
            write!(f, "\n  unknown ({name}): {doubt}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECKERS, TABLE};

    #[test]
    fn the_names_are_those_of_the_table() {
        assert_eq!(CHECKERS, TABLE.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    }
}
