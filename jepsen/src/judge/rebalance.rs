//! Groups whose members come and go: every queue has a reader, exclusive ones have one, and what is
//! taken over goes on where it was committed.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Change, Group, Key, Op};
use crate::judge::{Case, Finding, Kind, MS};

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    for group in &case.plan.groups {
        let stretches = stretches(case, group);
        let assignments = assignments(case, group);
        for stretch in &stretches {
            owners(case, group, stretch, &assignments, &mut finding);
        }
        finding.count("stretches with settled members", stretches.len());
        consumed(case, group, &mut finding);
    }
    finding
}

/// A time in which the members of a group stayed the same and nothing was broken.
struct Stretch {
    from: u64,
    to: u64,
    members: BTreeSet<String>,
}

fn stretches(case: &Case<'_>, group: &Group) -> Vec<Stretch> {
    let settle = case.plan.limits.rebalance_ms * MS;
    let mut members: BTreeSet<String> = BTreeSet::new();
    let mut stretches = Vec::new();
    let mut changes: Vec<(&Op, &String, Change)> = Vec::new();
    for op in &case.record.ops {
        if let Call::Member { group: of, member, change } = &op.call
            && *of == group.name
            && !op.is_failed()
        {
            changes.push((op, member, *change));
        }
    }
    for (place, (op, member, change)) in changes.iter().enumerate() {
        match change {
            Change::Join => members.insert((*member).clone()),
            Change::Leave | Change::Crash => members.remove(*member),
        };
        let to = changes.get(place + 1).map_or(case.record.end, |(next, ..)| next.began);
        if op.ended == u64::MAX || members.is_empty() {
            continue;
        }
        // What is broken meanwhile begins it anew.
        for (calm, until) in case.timeline.calm_stretches() {
            let from = calm.max(op.ended).saturating_add(settle);
            let to = until.min(to);
            if from < to {
                stretches.push(Stretch { from, to, members: members.clone() });
            }
        }
    }
    stretches
}

/// What a member was told to read.
type Assignment<'a> = (&'a Op, &'a str, &'a [Key]);

/// What the members of a group were told, by when they asked.
fn assignments<'a>(case: &Case<'a>, group: &Group) -> Vec<Assignment<'a>> {
    let assignments = case.record.ops.iter().filter_map(|op| match (&op.call, op.answer()) {
        (Call::Assignment { group: of, member }, Some(Answer::Assignment { keys }))
            if *of == group.name =>
        {
            Some((op, member.as_str(), keys.as_slice()))
        }
        _ => None,
    });
    assignments.collect()
}

fn owners(
    case: &Case<'_>,
    group: &Group,
    stretch: &Stretch,
    assignments: &[Assignment<'_>],
    finding: &mut Finding,
) {
    let mut first: BTreeMap<&str, (&Op, &[Key])> = BTreeMap::new();
    let begin = assignments.partition_point(|(op, ..)| op.began < stretch.from);
    for (op, member, keys) in &assignments[begin..] {
        if stretch.to < op.began {
            break;
        }
        if op.ended <= stretch.to && stretch.members.contains(*member) {
            first.entry(member).or_insert((op, keys));
        }
    }
    if first.len() < stretch.members.len() {
        finding.count("stretches that nobody asked about", 1);
        return;
    }
    for key in &group.keys {
        let owners: Vec<(&str, &Op)> = first
            .iter()
            .filter(|(_, (_, keys))| keys.contains(key))
            .map(|(member, (op, _))| (*member, *op))
            .collect();
        let queue = case.plan.queue(*key);
        match owners.as_slice() {
            [] => finding.add(Kind::Unowned, first.values().map(|(op, _)| *op), || {
                format!("{queue} has no reader in {}", group.name)
            }),
            [(one, first), (two, second), ..] if group.exclusive => {
                finding.add(Kind::DualOwner, [*first, *second], || {
                    format!("{queue} belongs to {one} and to {two} of {}", group.name)
                });
            }
            _ => {}
        }
    }
}

/// What the members read together is the log, from its beginning, without a hole.
fn consumed(case: &Case<'_>, group: &Group, finding: &mut Finding) {
    let mut read: BTreeMap<Key, BTreeSet<u64>> = BTreeMap::new();
    for op in &case.record.ops {
        if let (Call::Poll { key, group: Some(of), .. }, Some(Answer::Poll { entries, .. })) =
            (&op.call, op.answer())
            && *of == group.name
        {
            read.entry(*key).or_default().extend(entries.iter().map(|e| e.offset));
        }
    }
    for (key, offsets) in read {
        finding.count("offsets consumed", offsets.len());
        let mut next = 0;
        for offset in offsets {
            if next < offset {
                finding.add_at(Kind::LostWrite, [], || {
                    let queue = case.plan.queue(key);
                    format!("{} never read {queue}:{next}..{offset}, and went on", group.name)
                });
            }
            next = offset + 1;
        }
    }
}
