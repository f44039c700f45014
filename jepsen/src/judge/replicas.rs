//! Replicas that applied the same entries have the same state.

use std::collections::BTreeMap;

use crate::history::Observation;
use crate::judge::{Case, Finding, Kind};

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let mut first: BTreeMap<u64, (&str, &str, u64)> = BTreeMap::new();
    for seen in &case.record.observations {
        let Observation::Digest { node, applied, digest } = &seen.what else { continue };
        finding.count("digests", 1);
        let (known_node, known, index) =
            *first.entry(*applied).or_insert((node, digest, seen.index));
        if known != digest {
            finding.add_at(Kind::Divergence, [index, seen.index], || {
                format!("at {applied} {known_node} has {known} and {node} has {digest}")
            });
        }
    }
    finding
}
