//! Reads of a log: in order, without a hole, from where the reader was, and never stale.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Entry, Key, Op};
use crate::judge::{Case, Fate, Finding, Kind};

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let acked = Acked::of(case);
    // Where each reader of each queue is: the offset that it has to get next.
    let mut readers: BTreeMap<(u64, Key), (u64, &Op)> = BTreeMap::new();
    for op in &case.record.ops {
        let (Call::Poll { key, from, .. }, Some(Answer::Poll { entries, .. })) =
            (&op.call, op.answer())
        else {
            continue;
        };
        finding.count("polls", 1);
        finding.count("entries", entries.len());
        let inside = inside(case, op, *key, entries, &mut finding);
        let reader = (op.process, *key);
        match (from, readers.get(&reader)) {
            (Some(from), _) => seek(case, op, *key, *from, entries, &acked, &mut finding),
            (None, Some((next, before))) => {
                went_on(case, (*before, op), *key, *next, entries, &mut finding);
            }
            (None, None) => {}
        }
        if let (Some(last), true) = (entries.last(), inside) {
            readers.insert(reader, (last.offset + 1, op));
        } else if let Some(from) = from {
            readers.insert(reader, (*from, op));
        }
    }
    finding
}

fn inside(case: &Case<'_>, op: &Op, key: Key, entries: &[Entry], finding: &mut Finding) -> bool {
    let mut good = true;
    for pair in entries.windows(2) {
        let (one, two) = (pair[0].offset, pair[1].offset);
        let kind = if two <= one {
            Kind::IntNonmonotonicPoll
        } else if one + 1 < two {
            Kind::IntPollSkip
        } else {
            continue;
        };
        good = false;
        finding.add(kind, [op], || {
            format!("one read of {} goes from {one} to {two}", case.plan.queue(key))
        });
    }
    good
}

/// A read from an offset begins there, if a message was acknowledged there before.
fn seek(
    case: &Case<'_>,
    op: &Op,
    key: Key,
    from: u64,
    entries: &[Entry],
    acked: &Acked<'_>,
    finding: &mut Finding,
) {
    match entries.first() {
        Some(first) if first.offset < from => {
            finding.add(Kind::NonmonotonicPoll, [op], || {
                let queue = case.plan.queue(key);
                format!("a read of {queue} from {from} begins at {}", first.offset)
            });
        }
        Some(first) if from < first.offset => {
            // What lies below the beginning that anyone was told may have expired.
            if acked.lowest(key) <= from {
                finding.add(Kind::PollSkip, [op], || {
                    let queue = case.plan.queue(key);
                    format!("a read of {queue} from {from} begins at {}", first.offset)
                });
            }
        }
        Some(_) => {}
        None => {
            if let Some(send) = acked.at_or_after(key, from, op.began) {
                finding.add(Kind::StalePoll, [send, op], || {
                    let queue = case.plan.queue(key);
                    format!("a read of {queue} from {from} found nothing, though a message there had been acknowledged")
                });
            }
        }
    }
}

fn went_on(
    case: &Case<'_>,
    (before, op): (&Op, &Op),
    key: Key,
    next: u64,
    entries: &[Entry],
    finding: &mut Finding,
) {
    let Some(first) = entries.first() else { return };
    let kind = if first.offset < next {
        Kind::NonmonotonicPoll
    } else if next < first.offset {
        Kind::PollSkip
    } else {
        return;
    };
    finding.add(kind, [before, op], || {
        let queue = case.plan.queue(key);
        format!("a reader of {queue} had to go on at {next} and got {}", first.offset)
    });
}

/// Acknowledged offsets per queue, asked for by time.
struct Acked<'a> {
    /// By the time of the acknowledgement, with the highest offset up to there.
    by_time: BTreeMap<Key, Vec<(u64, u64, &'a Op)>>,
    lowest: BTreeMap<Key, u64>,
}

impl<'a> Acked<'a> {
    fn of(case: &Case<'a>) -> Self {
        let mut by_time: BTreeMap<Key, Vec<(u64, u64, &Op)>> = BTreeMap::new();
        let mut lowest: BTreeMap<Key, u64> = BTreeMap::new();
        for sent in case.sends.by_id.values().filter(|s| s.fate == Fate::Done) {
            let op = sent.ops(case.record).find(|op| op.is_ok());
            if let (Some(offset), Some(op)) = (sent.offset, op) {
                by_time.entry(sent.key).or_default().push((sent.acked, offset, op));
            }
        }
        for op in &case.record.ops {
            if let (Call::MinOffset { key }, Some(Answer::MinOffset { offset })) =
                (&op.call, op.answer())
            {
                let low = lowest.entry(*key).or_default();
                *low = (*low).max(*offset);
            }
        }
        for acked in by_time.values_mut() {
            acked.sort_by_key(|(time, _, _)| *time);
            let mut highest: Option<(u64, &Op)> = None;
            for (_, offset, op) in acked {
                if let Some((high, by)) = highest.filter(|(high, _)| *offset < *high) {
                    (*offset, *op) = (high, by);
                }
                highest = Some((*offset, op));
            }
        }
        Self { by_time, lowest }
    }

    /// The acknowledgement, before `time`, of a message at `from` or above.
    fn at_or_after(&self, key: Key, from: u64, time: u64) -> Option<&'a Op> {
        let acked = self.by_time.get(&key)?;
        let before = acked.partition_point(|(at, _, _)| *at < time);
        let (_, highest, op) = acked.get(before.checked_sub(1)?)?;
        (from <= *highest).then_some(*op)
    }

    /// The highest beginning of the queue that anyone was told.
    fn lowest(&self, key: Key) -> u64 {
        self.lowest.get(&key).copied().unwrap_or(0)
    }
}
