//! The end of a queue, as a register that only grows: the sharpest test for stale reads, because it
//! needs no search.
//!
//! Each answer lies between what had been acknowledged when it was asked for and what had been sent
//! when it came, and answers never go back in real time.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Key, Op};
use crate::judge::{Case, Fate, Finding, Kind};

/// What is known of one queue.
#[derive(Default)]
struct Ends<'a> {
    /// Acknowledged sends: when, and the end of the queue that it implies.
    acked: Vec<(u64, u64, &'a Op)>,
    /// When each message that may exist was sent.
    sent: Vec<u64>,
    asked: Vec<(&'a Op, u64)>,
    begins: Vec<(&'a Op, u64)>,
}

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    for (key, mut ends) in ends(case) {
        ends.acked.sort_by_key(|(time, _, _)| *time);
        ends.sent.sort_unstable();
        finding.count("max offsets", ends.asked.len());
        finding.count("min offsets", ends.begins.len());
        not_stale(case, key, &ends, &mut finding);
        not_beyond(case, key, &ends, &mut finding);
        let stale = (Kind::StaleMaxOffset, "the end");
        never_back(case, key, ends.asked.clone(), stale, &mut finding);
        let min = (Kind::MinOffset, "the beginning");
        never_back(case, key, ends.begins.clone(), min, &mut finding);
    }
    finding
}

fn ends<'a>(case: &Case<'a>) -> BTreeMap<Key, Ends<'a>> {
    let mut ends: BTreeMap<Key, Ends<'_>> = BTreeMap::new();
    for op in &case.record.ops {
        let Some(key) = op.call.key() else { continue };
        match (&op.call, op.answer()) {
            (Call::MaxOffset { .. }, Some(Answer::MaxOffset { offset })) => {
                ends.entry(key).or_default().asked.push((op, *offset));
            }
            (Call::MinOffset { .. }, Some(Answer::MinOffset { offset })) => {
                ends.entry(key).or_default().begins.push((op, *offset));
            }
            _ => {}
        }
    }
    for sent in case.sends.by_id.values().filter(|s| s.fate != Fate::Failed) {
        let Some(of) = ends.get_mut(&sent.key) else { continue };
        of.sent.push(sent.began);
        let op = sent.ops(case.record).find(|op| op.is_ok());
        if let (Some(offset), Some(op)) = (sent.offset, op) {
            of.acked.push((sent.acked, offset + 1, op));
        }
    }
    ends
}

fn not_stale(case: &Case<'_>, key: Key, ends: &Ends<'_>, finding: &mut Finding) {
    let mut asked = ends.asked.clone();
    asked.sort_by_key(|(op, _)| op.began);
    let mut acked = ends.acked.iter().peekable();
    // Offsets are dense, so that as many as were acknowledged bound the end too.
    let (mut least, mut count, mut by) = (0, 0, None);
    for (op, offset) in asked {
        while let Some((_, end, send)) = acked.next_if(|(time, _, _)| *time < op.began) {
            count += 1;
            if least < *end {
                (least, by) = (*end, Some(*send));
            }
        }
        let least = least.max(count);
        if offset < least {
            finding.add(Kind::StaleMaxOffset, by.into_iter().chain([op]), || {
                let queue = case.plan.queue(key);
                format!("the end of {queue} was {offset}, after the end {least} was acknowledged")
            });
        }
    }
}

fn not_beyond(case: &Case<'_>, key: Key, ends: &Ends<'_>, finding: &mut Finding) {
    for (op, offset) in ends.asked.iter().chain(&ends.begins) {
        let most = ends.sent.partition_point(|began| *began < op.ended) as u64;
        if most < *offset {
            let begins = matches!(op.call, Call::MinOffset { .. });
            let kind = if begins { Kind::MinOffset } else { Kind::PhantomMaxOffset };
            finding.add(kind, [*op], || {
                let queue = case.plan.queue(key);
                format!("{queue} was said to reach {offset}, when {most} messages had been sent")
            });
        }
    }
}

fn never_back(
    case: &Case<'_>,
    key: Key,
    answers: Vec<(&Op, u64)>,
    (kind, what): (Kind, &str),
    finding: &mut Finding,
) {
    let mut ended = answers.clone();
    ended.sort_by_key(|(op, _)| op.ended);
    let mut began = answers;
    began.sort_by_key(|(op, _)| op.began);
    let mut ended = ended.into_iter().peekable();
    let mut highest: Option<(&Op, u64)> = None;
    for (op, offset) in began {
        while let Some(next) = ended.next_if(|(before, _)| before.ended < op.began) {
            highest = Some(highest.map_or(next, |h| if h.1 < next.1 { next } else { h }));
        }
        if let Some((before, above)) = highest.filter(|(_, above)| offset < *above) {
            finding.add(kind, [before, op], || {
                format!("{what} of {} went from {above} back to {offset}", case.plan.queue(key))
            });
        }
    }
}
