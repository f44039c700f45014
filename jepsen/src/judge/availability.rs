//! How long nobody could write, per fault, and whether that is too long.

use serde::{Deserialize, Serialize};

use crate::history::{Call, Observation};
use crate::judge::{Band, Case, Finding, Kind, MS};

/// Above this, the machine that measured was too busy for figures of time to mean anything.
const WAKE_UP_US_MAX: u64 = 100_000;

/// What one fault cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    pub fault: u64,
    pub class: String,
    pub targets: Vec<String>,
    pub leader: bool,
    /// Time of its beginning since the start of the run, in ms.
    pub at_ms: u64,
    /// The longest time between two successful sends around it, in ms.
    pub gap_ms: u64,
    /// Successful sends while it lasted.
    pub sends: u64,
    /// What the gap may be, in ms, where there is a promise for this fault.
    pub allowed_ms: Option<u64>,
}

/// The gap that a fault may cause, in ms. `None` where the fault takes a majority away, so that
/// only the time after it counts, or where nothing is promised.
fn allowed(band: &Band) -> Option<u64> {
    let is = |name: &str| band.class == name || band.class.starts_with(&format!("{name}-"));
    if band.majority {
        return None;
    }
    match band.leader {
        true if is("kill") => Some(1_500),
        true if is("pause") || is("part") || is("stale") => Some(3_500),
        true if is("restart") || is("transfer") || is("upgrade") => Some(200),
        true if is("fsfreeze") => Some(6_000),
        // The new leader has to be elected, whatever stopped the old one; nothing tighter is
        // promised for the rest.
        true => None,
        false if is("kill") || is("pause") || is("part") || is("restart") => Some(500),
        false if is("fsfreeze") || is("slow") => Some(500),
        false => None,
    }
}

/// What each fault of a run cost.
#[must_use]
pub fn recoveries(case: &Case<'_>) -> Vec<Recovery> {
    let mut sent: Vec<u64> = case
        .record
        .ops
        .iter()
        .filter(|op| op.is_ok() && matches!(op.call, Call::Send { .. } | Call::Prepare { .. }))
        .map(|op| op.ended)
        .collect();
    sent.sort_unstable();
    // Who does not try cannot fail: after the last attempt there is no gap.
    let tried = case.record.ops.iter().filter(|op| matches!(op.call, Call::Send { .. }));
    let tried_until = tried.map(|op| op.began).max().unwrap_or(0);
    let bands = case.timeline.bands.iter().filter(|band| band.installed.is_some());
    bands.map(|band| recovery(band, &sent, tried_until)).collect()
}

fn recovery(band: &Band, sent: &[u64], tried_until: u64) -> Recovery {
    let until = band.settled.min(tried_until.max(band.began));
    let first = sent.partition_point(|at| *at < band.began);
    let last = sent.partition_point(|at| *at <= until);
    // The send before the fault and the one after it bound gaps that reach over its edges.
    let (from, to) = (first.saturating_sub(1), (last + 1).min(sent.len()));
    let mut gap = sent[from..to].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    if to == last {
        // Nothing succeeded after it: the gap lasts as long as anybody tried.
        let since = last.checked_sub(1).map_or(0, |place| sent[place]).max(band.began);
        gap = gap.max(until.saturating_sub(since));
    }
    Recovery {
        fault: band.fault,
        class: band.class.clone(),
        targets: band.targets.clone(),
        leader: band.leader,
        at_ms: band.began / MS,
        gap_ms: gap / MS,
        sends: (last - first) as u64,
        allowed_ms: allowed(band),
    }
}

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let busy = case.record.observations.iter().any(
        |seen| matches!(seen.what, Observation::Calibration { p99_us } if WAKE_UP_US_MAX < p99_us),
    );
    let recoveries = recoveries(case);
    let alone = |recovery: &Recovery| {
        let own = case.timeline.bands.iter().find(|b| b.fault == recovery.fault);
        own.is_some_and(|own| {
            let overlap = |b: &&Band| b.began < own.settled && own.began < b.settled;
            case.timeline.bands.iter().filter(overlap).count() == 1
        })
    };
    for recovery in &recoveries {
        let Some(allowed) = recovery.allowed_ms.filter(|allowed| *allowed < recovery.gap_ms) else {
            continue;
        };
        // What several faults at once may cost is not promised.
        if !alone(recovery) {
            continue;
        }
        if busy {
            finding.doubt("the machine was too busy to judge times of recovery");
            break;
        }
        let band = case.timeline.bands.iter().find(|b| b.fault == recovery.fault);
        finding.add_at(Kind::SlowRecovery, band.into_iter().flat_map(|b| b.events.clone()), || {
            let Recovery { class, targets, gap_ms, .. } = recovery;
            format!("{class} of {targets:?} stopped sends for {gap_ms} ms, {allowed} are allowed")
        });
    }
    if let Some(longest) = recoveries.iter().map(|r| r.gap_ms).max() {
        finding.counts.insert("longest gap between sends in ms".into(), longest);
    }
    finding.counts.insert("share of seconds with a send, in percent".into(), served(case));
    finding
}

/// The share of seconds in which something was sent, among those in which a majority was up.
fn served(case: &Case<'_>) -> u64 {
    const SECOND: u64 = 1_000 * MS;
    let seconds = usize::try_from(case.record.end / SECOND).unwrap_or(0);
    let mut some = vec![false; seconds];
    let mut counts = vec![true; seconds];
    for op in case.record.ops.iter().filter(|op| op.is_ok()) {
        if let (Call::Send { .. }, Ok(at)) = (&op.call, usize::try_from(op.ended / SECOND))
            && let Some(bin) = some.get_mut(at)
        {
            *bin = true;
        }
    }
    for band in case.timeline.bands.iter().filter(|b| b.majority) {
        let to = band.settled.min(case.record.end) / SECOND;
        for second in band.began / SECOND..=to {
            if let Some(bin) = usize::try_from(second).ok().and_then(|s| counts.get_mut(s)) {
                *bin = false;
            }
        }
    }
    let asked = counts.iter().filter(|c| **c).count() as u64;
    let ok = some.iter().zip(&counts).filter(|(some, counts)| **some && **counts).count() as u64;
    (ok * 100).checked_div(asked).unwrap_or(100)
}
