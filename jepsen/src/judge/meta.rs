//! Metadata: settings are registers, listings are sets, routes are right before long.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Observation, Op, Outcome};
use crate::judge::linearizability::{
    Answered, Linearizable, RegisterCall, RegisterOp, linearizable,
};
use crate::judge::{Case, Finding, Kind, MS};

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    registers(case, &mut finding);
    sets(case, &mut finding);
    routes(case, &mut finding);
    finding
}

fn registers(case: &Case<'_>, finding: &mut Finding) {
    let mut registers: BTreeMap<&str, Vec<(&Op, RegisterOp)>> = BTreeMap::new();
    for op in case.record.ops.iter().filter(|op| !op.is_failed()) {
        let (name, call) = match (&op.call, &op.outcome) {
            (Call::Write { register, value }, _) => (register, RegisterCall::Write(*value)),
            (Call::Cas { register, expected, value }, outcome) => {
                let done = match outcome {
                    Outcome::Ok(Answer::Cas { done: true }) => Answered::Done,
                    Outcome::Ok(_) => Answered::Refused,
                    Outcome::Unknown(_) | Outcome::Failed(_) => Answered::Unknown,
                };
                (register, RegisterCall::Cas { expected: *expected, value: *value, done })
            }
            (Call::Read { register }, Outcome::Ok(Answer::Read { value })) => {
                (register, RegisterCall::Read(*value))
            }
            _ => continue,
        };
        let ended = op.effective_until();
        let step = RegisterOp { call, began: op.began, ended };
        registers.entry(name).or_default().push((op, step));
    }
    for (name, ops) in registers {
        finding.count("register operations", ops.len());
        let steps: Vec<RegisterOp> = ops.iter().map(|(_, step)| *step).collect();
        match linearizable(&steps) {
            Linearizable::Yes => {}
            Linearizable::No => {
                let shortest = shortest(&steps);
                finding.add(Kind::NonLinearizable, ops[..shortest].iter().rev().take(8).map(|(op, _)| *op), || {
                    format!("no order of the first {shortest} operations on {name} explains their answers")
                });
            }
            Linearizable::GaveUp => {
                finding.doubt(format!("{name} has too many operations or orders to be judged"));
            }
        }
    }
}

/// The shortest beginning that is wrong already; operations beyond it count as not yet answered.
fn shortest(steps: &[RegisterOp]) -> usize {
    let wrong = |len: &usize| linearizable(&steps[..*len]) == Linearizable::No;
    (1..=steps.len()).find(wrong).unwrap_or(steps.len())
}

/// What happened to one element of a set.
#[derive(Default)]
struct Element<'a> {
    add: Option<&'a Op>,
    remove: Option<&'a Op>,
    /// The listing that showed it, and ended first.
    shown: Option<&'a Op>,
}

fn sets(case: &Case<'_>, finding: &mut Finding) {
    let mut elements: BTreeMap<(&str, u64), Element<'_>> = BTreeMap::new();
    let mut listings: BTreeMap<&str, Vec<(&Op, &[u64])>> = BTreeMap::new();
    for op in &case.record.ops {
        match (&op.call, op.answer()) {
            (Call::Add { set, element }, _) => {
                elements.entry((set, *element)).or_default().add = Some(op);
            }
            (Call::Remove { set, element }, _) if !op.is_failed() => {
                elements.entry((set, *element)).or_default().remove = Some(op);
            }
            (Call::List { set }, Some(Answer::List { elements: listed })) => {
                for element in listed {
                    let known = elements.entry((set, *element)).or_default();
                    if known.shown.is_none_or(|shown| op.ended < shown.ended) {
                        known.shown = Some(op);
                    }
                }
                listings.entry(set).or_default().push((op, listed));
            }
            _ => {}
        }
    }
    finding.count("listings", listings.values().map(Vec::len).sum());
    for ((set, element), known) in &elements {
        let none = Vec::new();
        let listings = listings.get(set).unwrap_or(&none);
        judge_element(set, *element, known, listings, finding);
    }
}

fn judge_element(
    set: &str,
    element: u64,
    known: &Element<'_>,
    listings: &[(&Op, &[u64])],
    finding: &mut Finding,
) {
    if let Some(shown) = known.shown {
        let added = known.add.filter(|add| !add.is_failed() && add.began <= shown.ended);
        if added.is_none() {
            let refused = known.add.filter(|add| add.is_failed());
            let kind = if refused.is_some() { Kind::AbortedRead } else { Kind::SetPhantom };
            finding.add(kind, refused.into_iter().chain([shown]), || {
                format!("{set} lists {element}, which was not added")
            });
            return;
        }
    }
    // In it for certain from the end of its add, or from the end of a listing that shows it.
    let since = known.add.filter(|add| add.is_ok());
    let since = [since, known.shown].into_iter().flatten().min_by_key(|op| op.ended);
    let until = known.remove.map_or(u64::MAX, |op| op.began);
    let gone = known.remove.filter(|op| op.is_ok());
    for (listing, listed) in listings {
        let shows = listed.contains(&element);
        let since = since.filter(|s| s.ended < listing.began && listing.ended < until);
        if let Some(since) = since.filter(|_| !shows) {
            finding.add(Kind::SetStale, [since, *listing], || {
                format!("{set} leaves out {element}, which it had")
            });
            return;
        }
        if let Some(gone) = gone.filter(|gone| shows && gone.ended < listing.began) {
            finding.add(Kind::SetResurrected, [gone, *listing], || {
                format!("{set} lists {element}, which had been removed")
            });
            return;
        }
    }
}

/// A route may be wrong for a while after the leader changed, but not for long.
fn routes(case: &Case<'_>, finding: &mut Finding) {
    let limit = case.plan.limits.route_ms * MS;
    let leaders: Vec<(u64, u64, &str)> = case
        .record
        .observations
        .iter()
        .filter_map(|seen| match &seen.what {
            Observation::Leader { node, .. } => Some((seen.time, seen.index, node.as_str())),
            _ => None,
        })
        .collect();
    for op in &case.record.ops {
        let (Call::Route { topic }, Some(Answer::Route { leader: Some(named) })) =
            (&op.call, op.answer())
        else {
            continue;
        };
        finding.count("routes", 1);
        let Some((calm, _)) = case.timeline.calm(op.began, op.ended) else { continue };
        // The leader at the time of the question, and since when it has been that.
        let after = leaders.partition_point(|(time, ..)| *time <= op.began);
        let Some((_, index, leader)) = after.checked_sub(1).map(|last| leaders[last]) else {
            continue;
        };
        let since = leaders[..after]
            .iter()
            .rev()
            .take_while(|(_, _, node)| *node == leader)
            .map(|(time, ..)| *time)
            .min()
            .unwrap_or(0);
        let settled = since.max(calm).saturating_add(limit);
        let changed =
            leaders.get(after).is_some_and(|(time, _, node)| *time <= op.ended && *node != leader);
        if settled <= op.began && named != leader && !changed {
            finding.add_at(Kind::StaleRoute, [index, op.index], || {
                format!("the route of {topic} names {named}, and {leader} has led for long")
            });
        }
    }
}
