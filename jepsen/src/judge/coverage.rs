//! Whether enough happened for the run to prove anything. A run that did little is `unknown`.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Observation, Op};
use crate::judge::{Band, Case, Finding};

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let wants = &case.plan.wants;
    operations(case, &mut finding);
    let mut need = |what: String, got: u64, want: u64| {
        if got < want {
            finding.doubt(format!("{what}: {got} of {want}"));
        }
        finding.counts.insert(what, got);
    };
    let mut installed: BTreeMap<&str, u64> = BTreeMap::new();
    for band in case.timeline.bands.iter().filter(|b| b.installed.is_some()) {
        *installed.entry(&band.class).or_default() += 1;
    }
    for (class, want) in &wants.faults {
        let got = installed.get(class.as_str()).copied().unwrap_or(0);
        need(format!("faults of class {class}"), got, *want);
    }
    for (class, got) in installed.iter().filter(|(class, _)| !wants.faults.contains_key(**class)) {
        need(format!("faults of class {class}"), *got, 0);
    }
    need("leader changes".into(), leader_changes(case), wants.leader_changes);
    let lost = case.timeline.bands.iter().map(|b| b.lost_bytes).sum();
    need("bytes that power losses took".into(), lost, wants.lost_bytes);
    for (what, want) in &wants.counts {
        need(what.replace('_', " "), counted(case, what), *want);
    }
    for what in seen_counts(case).filter(|what| !wants.counts.contains_key(*what)) {
        need(what.replace('_', " "), counted(case, what), 0);
    }
    let stale = reads_of_stale_leader(case);
    need("reads while an old leader was cut off".into(), stale, wants.reads_of_stale_leader);
    finding
}

fn operations(case: &Case<'_>, finding: &mut Finding) {
    let mut ok: BTreeMap<&str, u64> = BTreeMap::new();
    for op in case.record.ops.iter().filter(|op| op.is_ok()) {
        *ok.entry(op.call.name()).or_default() += 1;
    }
    for (name, want) in &case.plan.wants.ok {
        let got = ok.get(name.as_str()).copied().unwrap_or(0);
        if got < *want {
            finding.doubt(format!("successful {name}: {got} of {want}"));
        }
    }
    if case.record.ops.is_empty() {
        finding.doubt("nobody did anything");
    }
    for (name, got) in ok {
        finding.counts.insert(format!("successful {name}"), got);
    }
    finding.count("operations", case.record.ops.len());
}

/// How often another node, or the same in another term, was seen to lead.
fn leader_changes(case: &Case<'_>) -> u64 {
    let mut terms: BTreeMap<u64, &str> = BTreeMap::new();
    for seen in &case.record.observations {
        if let Observation::Leader { node, term } = &seen.what {
            terms.entry(*term).or_insert(node);
        }
    }
    (terms.len() as u64).saturating_sub(1)
}

/// Everything that was counted.
fn seen_counts<'a>(case: &'a Case<'_>) -> impl Iterator<Item = &'a str> {
    case.record.observations.iter().filter_map(|seen| match &seen.what {
        Observation::Count { what, .. } => Some(what.as_str()),
        _ => None,
    })
}

fn counted(case: &Case<'_>, of: &str) -> u64 {
    let counts = case.record.observations.iter().filter_map(|seen| match &seen.what {
        Observation::Count { what, count } if what == of => Some(*count),
        _ => None,
    });
    counts.max().unwrap_or(0)
}

/// Reads that a node answered while it was cut off as the leader.
fn reads_of_stale_leader(case: &Case<'_>) -> u64 {
    let bands = case.timeline.bands.iter();
    let bands: Vec<&Band> =
        bands.filter(|b| b.leader && b.class.contains("stale-leader")).collect();
    let stale = |op: &&Op| {
        let Some(node) = &op.node else { return false };
        bands.iter().any(|band| {
            let installed = band.installed.unwrap_or(u64::MAX);
            let until = band.healed.unwrap_or(u64::MAX);
            band.targets.contains(node) && installed <= op.began && op.ended <= until
        })
    };
    let reads = case.record.ops.iter().filter(|op| {
        matches!(op.call, Call::MaxOffset { .. } | Call::Poll { .. } | Call::Query { .. })
            && !matches!(op.answer(), Some(Answer::Poll { entries, .. }) if entries.is_empty())
    });
    reads.filter(stale).count() as u64
}
