//! Queues as logs: what was acknowledged is read, offsets follow real time, look-ups find it.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Key, Message, Op};
use crate::judge::{Case, Fate, Finding, Kind, Sent};

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    losses(case, &mut finding);
    order(case, &mut finding);
    lookups(case, &mut finding);
    finding
}

/// What is stored in a queue as soon as it is acknowledged.
fn is_plain(sent: &Sent) -> bool {
    !sent.half && sent.deliver_at.is_none()
}

fn losses(case: &Case<'_>, finding: &mut Finding) {
    let mut read: BTreeMap<Key, BTreeSet<Message>> = BTreeMap::new();
    for op in &case.record.ops {
        if let (Call::Poll { key, .. }, Some(Answer::Poll { entries, .. })) =
            (&op.call, op.answer())
        {
            read.entry(*key).or_default().extend(entries.iter().map(|e| e.id));
        }
    }
    for key in read.keys().filter(|key| !case.record.drained_key(**key)) {
        let queue = case.plan.queue(*key);
        finding.doubt(format!("{queue} was not read to its end, so losses cannot be told"));
    }
    for (id, sent) in &case.sends.by_id {
        let Some(seen) = read.get(&sent.key) else { continue };
        if sent.fate != Fate::Done || !is_plain(sent) || seen.contains(id) {
            continue;
        }
        if case.record.drained_key(sent.key) {
            finding.add(Kind::LostWrite, sent.ops(case.record), || {
                let queue = case.plan.queue(sent.key);
                format!("{id} was acknowledged, and whoever read {queue} to its end has not got it")
            });
        }
    }
}

/// A message that was acknowledged before another was sent lies before it.
fn order(case: &Case<'_>, finding: &mut Finding) {
    let mut by_key: BTreeMap<Key, Vec<(Message, &Sent, u64)>> = BTreeMap::new();
    for (id, sent) in &case.sends.by_id {
        if let Some(offset) = sent.offset.filter(|_| is_plain(sent)) {
            by_key.entry(sent.key).or_default().push((*id, sent, offset));
        }
    }
    for (key, mut sent) in by_key {
        let mut acked = sent.clone();
        acked.sort_by_key(|(_, s, _)| s.acked);
        sent.sort_by_key(|(_, s, _)| s.began);
        let mut acked = acked.into_iter().peekable();
        let mut highest: Option<(Message, &Sent, u64)> = None;
        for (id, later, offset) in sent {
            while let Some(next) = acked.next_if(|(_, s, _)| s.acked < later.began) {
                highest = Some(highest.map_or(next, |h| if h.2 < next.2 { next } else { h }));
            }
            let Some((before, earlier, above)) = highest.filter(|h| offset < h.2) else { continue };
            let one_sender = before.sender() == id.sender();
            let kind = if one_sender { Kind::NonmonotonicSend } else { Kind::RealtimeOrder };
            let ops = earlier.ops(case.record).chain(later.ops(case.record));
            finding.add(kind, ops, || {
                let queue = case.plan.queue(key);
                format!("{before} at {above} of {queue} was acknowledged before {id} was sent, which lies at {offset}")
            });
        }
    }
}

/// Whoever asks for an acknowledged message by its id or key finds it.
fn lookups(case: &Case<'_>, finding: &mut Finding) {
    let lookups = case.record.ops.iter().filter_map(|op| match (&op.call, op.answer()) {
        (Call::Lookup { id, .. }, Some(Answer::Lookup { offset })) => Some((op, *id, *offset)),
        _ => None,
    });
    let mut count = 0;
    for (op, id, offset) in lookups {
        count += 1;
        let sent = case.sends.by_id.get(&id);
        let Some(sent) = sent.filter(|s| is_plain(s) && s.acked < op.began) else { continue };
        if offset.is_none() {
            let ops: Vec<&Op> = sent.ops(case.record).chain([op]).collect();
            finding.add(Kind::IndexLost, ops, || format!("{id} was acknowledged, and not found"));
        }
    }
    finding.count("look-ups", count);
}
