//! Every message is one that was sent, unchanged, and lies at one place; a place has one message.
//!
//! Looks at all sightings: acknowledgements, reads, deliveries, look-ups.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Key, Message, Op};
use crate::judge::{Case, Fate, Finding, Kind, MS};

/// A message was seen, somewhere or at a place.
struct Sighting<'a> {
    id: Message,
    key: Key,
    offset: Option<u64>,
    op: &'a Op,
    /// Whether it was read, and not only acknowledged.
    read: bool,
}

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let sightings = sightings(case, &mut finding);
    finding.count("sightings", sightings.len());
    finding.count("messages", case.sends.by_id.len());
    for fate in [Fate::Done, Fate::Unknown, Fate::Failed] {
        let sent = case.sends.by_id.values().filter(|s| s.fate == fate).count();
        finding.count(
            match fate {
                Fate::Done => "acknowledged",
                Fate::Unknown => "of unknown fate",
                Fate::Failed => "refused",
            },
            sent,
        );
    }
    origins(case, &sightings, &mut finding);
    let places = places(case, &sightings, &mut finding);
    gaps(case, &places, &mut finding);
    batches(case, &places, &mut finding);
    finding
}

fn sightings<'a>(case: &Case<'a>, finding: &mut Finding) -> Vec<Sighting<'a>> {
    let mut all = Vec::new();
    for op in &case.record.ops {
        let Some(answer) = op.answer() else { continue };
        let mut see = |id, key, offset, read| all.push(Sighting { id, key, offset, op, read });
        match (&op.call, answer) {
            (Call::Send { ids, key, .. }, Answer::Send { offsets }) => {
                for (id, offset) in ids.iter().zip(offsets) {
                    see(*id, *key, Some(*offset), false);
                }
            }
            (Call::Poll { key, .. }, Answer::Poll { entries, corrupt }) => {
                entries.iter().for_each(|e| see(e.id, *key, Some(e.offset), true));
                corrupted(op, corrupt, finding);
            }
            (Call::Receive { key, .. }, Answer::Receive { deliveries, corrupt }) => {
                for delivery in deliveries {
                    see(delivery.id, *key, delivery.offset, true);
                    if delivery.attempt == 0 {
                        let what = || format!("{} came as attempt 0", delivery.id);
                        finding.add(Kind::NoAttempt, [op], what);
                    }
                }
                corrupted(op, corrupt, finding);
            }
            (Call::Lookup { key, id }, Answer::Lookup { offset: Some(offset) }) => {
                see(*id, *key, Some(*offset), true);
            }
            _ => {}
        }
    }
    all
}

fn corrupted(op: &Op, corrupt: &[String], finding: &mut Finding) {
    for what in corrupt {
        finding.add(Kind::CorruptPayload, [op], || format!("a body was changed: {what}"));
    }
}

/// What was read must have been sent, and not refused.
fn origins(case: &Case<'_>, sightings: &[Sighting<'_>], finding: &mut Finding) {
    let mut told = BTreeSet::new();
    for seen in sightings.iter().filter(|s| s.read) {
        let id = seen.id;
        match case.sends.by_id.get(&id) {
            Some(sent) if sent.fate == Fate::Failed && told.insert(id) => {
                let ops = sent.ops(case.record).chain([seen.op]);
                finding.add(Kind::AbortedRead, ops, || {
                    format!("{id} was read, but its sender was told that it will never happen")
                });
            }
            Some(sent) if seen.op.ended < sent.began && told.insert(id) => {
                let ops = sent.ops(case.record).chain([seen.op]);
                finding.add(Kind::Phantom, ops, || format!("{id} was read before it was sent"));
            }
            Some(sent) if sent.key != seen.key && told.insert(id) => {
                let (to, at) = (case.plan.queue(sent.key), case.plan.queue(seen.key));
                let ops = sent.ops(case.record).chain([seen.op]);
                finding.add(Kind::Phantom, ops, || format!("{id} was sent to {to}, read in {at}"));
            }
            None if told.insert(id) => {
                finding.add(Kind::Phantom, [seen.op], || format!("{id} was read, nobody sent it"));
            }
            _ => {}
        }
    }
}

/// Who lies where, by the first read of each place.
type Places = BTreeMap<Key, BTreeMap<u64, Message>>;

fn places(case: &Case<'_>, sightings: &[Sighting<'_>], finding: &mut Finding) -> Places {
    let mut places = Places::new();
    let mut first_holder: BTreeMap<(Key, u64), &Sighting<'_>> = BTreeMap::new();
    let mut first_place: BTreeMap<Message, &Sighting<'_>> = BTreeMap::new();
    let mut told: BTreeSet<(Message, u64)> = BTreeSet::new();
    for seen in sightings {
        let (id, key, Some(offset)) = (seen.id, seen.key, seen.offset) else { continue };
        if seen.read {
            places.entry(key).or_default().entry(offset).or_insert(id);
        }
        let holder = *first_holder.entry((key, offset)).or_insert(seen);
        if holder.id != id && told.insert((id, offset)) {
            finding.add(Kind::InconsistentOffset, [holder.op, seen.op], || {
                let queue = case.plan.queue(key);
                format!("{queue}:{offset} held {} and then {id}", holder.id)
            });
        }
        let known = *first_place.entry(id).or_insert(seen);
        let other = known.offset.filter(|o| *o != offset);
        let Some(other) = other.filter(|_| told.insert((id, offset))) else { continue };
        if known.read && seen.read {
            duplicate(case, finding, id, (known, other), (seen, offset));
        } else if !known.read && !seen.read {
            finding.add(Kind::OffsetMismatch, [known.op, seen.op], || {
                format!("{id} was acknowledged at {other} and again at {offset}")
            });
        } else {
            finding.add(Kind::OffsetMismatch, [known.op, seen.op], || {
                let (told, found) = if known.read { (offset, other) } else { (other, offset) };
                format!("{id} was acknowledged at {told} and lies at {found}")
            });
        }
    }
    twice_read(case, sightings, finding, &told);
    places
}

/// A message that was acknowledged at one place may have been read at two others; the first
/// sighting alone does not show it.
fn twice_read(
    case: &Case<'_>,
    sightings: &[Sighting<'_>],
    finding: &mut Finding,
    told: &BTreeSet<(Message, u64)>,
) {
    let suspects: BTreeSet<Message> = told.iter().map(|(id, _)| *id).collect();
    let mut first_read: BTreeMap<Message, &Sighting<'_>> = BTreeMap::new();
    let mut done: BTreeSet<(Message, u64)> = BTreeSet::new();
    for seen in sightings.iter().filter(|s| s.read && suspects.contains(&s.id)) {
        let Some(offset) = seen.offset else { continue };
        let known = *first_read.entry(seen.id).or_insert(seen);
        let other = known.offset.unwrap_or(offset);
        // What `places` compared with an acknowledgement was not yet called a duplicate.
        let acked = case.sends.by_id.get(&seen.id).is_some_and(|s| s.offset.is_some());
        if acked && other != offset && done.insert((seen.id, offset)) {
            duplicate(case, finding, seen.id, (known, other), (seen, offset));
        }
    }
}

fn duplicate(
    case: &Case<'_>,
    finding: &mut Finding,
    id: Message,
    (first, at): (&Sighting<'_>, u64),
    (second, and): (&Sighting<'_>, u64),
) {
    let window = case.plan.limits.dedupe_window_ms * MS;
    let sent = case.sends.by_id.get(&id);
    let began: Vec<u64> =
        sent.into_iter().flat_map(|s| s.ops(case.record)).map(|op| op.began).collect();
    let span = began.iter().max().unwrap_or(&0) - began.iter().min().unwrap_or(&0);
    if window < span {
        finding.count("repeated beyond the window", 1);
        return;
    }
    let half = sent.is_some_and(|s| s.half);
    let kind = if half { Kind::DoubleCommit } else { Kind::Duplicate };
    let ops = sent.into_iter().flat_map(|s| s.ops(case.record)).chain([first.op, second.op]);
    finding.add(kind, ops, || {
        format!("{id} lies at {at} and at {and} of {}", case.plan.queue(second.key))
    });
}

/// Offsets are dense: in a queue that was read to its end there is no hole.
fn gaps(case: &Case<'_>, places: &Places, finding: &mut Finding) {
    let mut lowest: BTreeMap<Key, u64> = BTreeMap::new();
    for op in &case.record.ops {
        if let (Call::MinOffset { key }, Some(Answer::MinOffset { offset })) =
            (&op.call, op.answer())
        {
            let lowest = lowest.entry(*key).or_default();
            *lowest = (*lowest).max(*offset);
        }
    }
    for (key, holders) in places {
        let all = case.plan.groups.iter().filter(|g| g.keys.contains(key));
        let drained = case.record.drained_key(*key)
            || all.clone().count() > 0 && all.clone().all(|g| case.record.drained_group(&g.name));
        if !drained {
            continue;
        }
        let mut next = lowest.get(key).copied().unwrap_or(0);
        let lowest = next;
        for offset in holders.range(lowest..).map(|(offset, _)| *offset) {
            if next < offset {
                finding.add_at(Kind::Gap, [], || {
                    let queue = case.plan.queue(*key);
                    format!("{queue} holds nothing at {next}..{offset}, and something after it")
                });
            }
            next = offset + 1;
        }
        finding.count("offsets", holders.len());
    }
}

/// A batch is there as a whole and in one piece, or not at all.
fn batches(case: &Case<'_>, places: &Places, finding: &mut Finding) {
    let mut at: BTreeMap<Message, u64> = BTreeMap::new();
    for holders in places.values() {
        at.extend(holders.iter().map(|(offset, id)| (*id, *offset)));
    }
    for op in &case.record.ops {
        let Call::Send { ids, key, .. } = &op.call else { continue };
        if ids.len() < 2 || op.is_failed() {
            continue;
        }
        let offsets: Vec<u64> = ids.iter().filter_map(|id| at.get(id)).copied().collect();
        let whole = offsets.len() == ids.len() || !case.record.drained_key(*key);
        let together = offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let torn = !whole || !together;
        if torn && !offsets.is_empty() {
            finding.add(Kind::BatchTorn, [op], || {
                let (seen, of) = (offsets.len(), ids.len());
                format!("{seen} of a batch of {of} lie at {offsets:?}")
            });
        }
        finding.count("batches", 1);
    }
}
