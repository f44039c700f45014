//! The cluster comes back as a whole: ready in time, with all members, and nothing died by itself.

use std::collections::BTreeMap;

use crate::history::Observation;
use crate::judge::{Case, Finding, Kind, MS};

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let Some(healed) = case.timeline.last_heal() else {
        finding.doubt("a fault was never taken away");
        return finding;
    };
    ready(case, healed, &mut finding);
    members(case, healed, &mut finding);
    digests(case, healed, &mut finding);
    for seen in &case.record.observations {
        match &seen.what {
            Observation::Exit { node, expected: false, status } => {
                finding.add_at(Kind::UnexpectedExit, [seen.index], || {
                    format!("{node} ended by itself: {status}")
                });
            }
            Observation::Panic { node, line } => {
                finding.add_at(Kind::Panic, [seen.index], || format!("{node}: {line}"));
            }
            _ => {}
        }
    }
    finding
}

fn ready(case: &Case<'_>, healed: u64, finding: &mut Finding) {
    let ready = case
        .record
        .observations
        .iter()
        .find(|seen| healed <= seen.time && seen.what == Observation::Ready {});
    let limit = case.plan.limits.ready_ms;
    match ready {
        Some(seen) if limit * MS < seen.time - healed => {
            let took = (seen.time - healed) / MS;
            finding.add_at(Kind::NotReady, [seen.index], || {
                format!("the cluster was ready {took} ms after the last heal, {limit} are allowed")
            });
        }
        Some(seen) => {
            finding.counts.insert("ms to ready".into(), (seen.time - healed) / MS);
        }
        None if healed + limit * MS < case.record.end => {
            finding.add_at(Kind::NotReady, [], || {
                format!("the cluster was not ready within {limit} ms of the last heal")
            });
        }
        None => finding.doubt("the record ends before the cluster was ready"),
    }
}

fn members(case: &Case<'_>, healed: u64, finding: &mut Finding) {
    let last = case.record.observations.iter().rev().find_map(|seen| match &seen.what {
        Observation::Members { voters } if healed <= seen.time => Some((seen.index, voters)),
        _ => None,
    });
    let Some((index, voters)) = last else { return };
    let missing: Vec<&String> =
        case.plan.nodes.iter().filter(|node| !voters.contains(node)).collect();
    if !missing.is_empty() {
        finding.add_at(Kind::MembersMissing, [index], || {
            format!("{missing:?} are no members after the last heal")
        });
    }
}

/// Every replica has told its state since the last heal; whether they agree is another question.
fn digests(case: &Case<'_>, healed: u64, finding: &mut Finding) {
    let mut applied: BTreeMap<&str, u64> = BTreeMap::new();
    for seen in case.record.observations.iter().filter(|seen| healed <= seen.time) {
        if let Observation::Digest { node, applied: at, .. } = &seen.what {
            applied.insert(node, *at);
        }
    }
    let silent: Vec<&String> =
        case.plan.nodes.iter().filter(|node| !applied.contains_key(node.as_str())).collect();
    if !silent.is_empty() {
        finding.doubt(format!("{silent:?} did not tell their state after the last heal"));
    }
    let (least, most) = (applied.values().min(), applied.values().max());
    if least != most {
        finding.doubt(format!("replicas had applied different entries at the end: {applied:?}"));
    }
}
