//! Queues: every group gets every message, what was acked stays acked, a message is with one
//! consumer at a time, and what is not acked comes again.

use std::collections::BTreeSet;

use crate::history::{Message, Op};
use crate::judge::grants::{Deliveries, Grant};
use crate::judge::idle::Idle;
use crate::judge::{Case, Fate, Finding, Kind, MS, Sent};

/// Deliveries of one message that are compared pairwise; of more, neighbours only.
const PAIRWISE: usize = 64;

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let groups = Deliveries::of(case);
    let seen_by_any: BTreeSet<Message> =
        groups.values().flat_map(|d| d.of_message.keys()).copied().collect();
    let receives = |name: &str| !case.plan.group(name).is_some_and(|group| group.pulls);
    for (name, deliveries) in groups.iter().filter(|(name, _)| receives(name)) {
        finding.count("deliveries", deliveries.grants.len());
        let repeated = deliveries.grants.len() - deliveries.of_message.len();
        finding.count("deliveries beyond the first", repeated);
        losses(case, name, deliveries, &seen_by_any, &mut finding);
        redeliveries(name, deliveries, &mut finding);
        leases(case, name, deliveries, &mut finding);
        dead_letters(case, name, deliveries, &mut finding);
        stuck(case, name, deliveries, &mut finding);
    }
    finding
}

/// The messages that every group has to get.
fn is_due(case: &Case<'_>, id: Message, sent: &Sent) -> bool {
    sent.fate == Fate::Done && !sent.half && !case.sends.recalls.contains_key(&id)
}

fn losses(
    case: &Case<'_>,
    name: &str,
    deliveries: &Deliveries<'_>,
    seen_by_any: &BTreeSet<Message>,
    finding: &mut Finding,
) {
    let Some(group) = case.plan.group(name) else { return };
    if !case.record.drained_group(name) {
        finding.doubt(format!("{name} did not read to the end, so losses cannot be told"));
        return;
    }
    let has =
        |id: &Message| deliveries.of_message.contains_key(id) || deliveries.dead.contains_key(id);
    for (id, sent) in &case.sends.by_id {
        if !group.keys.contains(&sent.key) || has(id) {
            continue;
        }
        if is_due(case, *id, sent) {
            finding.add(Kind::LostWrite, sent.ops(case.record), || {
                let part = part(case, *id, |other| has(other));
                format!("{id} was acknowledged, {name} never got it ({part} of its sender's)")
            });
        } else if seen_by_any.contains(id) {
            finding.add(Kind::Vanished, sent.ops(case.record), || {
                format!("{id} was delivered to another group, {name} never got it")
            });
        } else if sent.fate == Fate::Unknown {
            finding.count("of unknown fate and absent", 1);
        }
    }
}

/// Whether a lost message lies before, between or after those of its sender that arrived.
fn part(case: &Case<'_>, id: Message, arrived: impl Fn(&Message) -> bool) -> &'static str {
    let of_sender = Message(id.sender() << 32)..=Message(id.sender() << 32 | 0xffff_ffff);
    let mut ids = case.sends.by_id.range(of_sender).map(|(id, _)| id);
    let before = ids.by_ref().take_while(|other| **other < id).any(&arrived);
    match (before, ids.any(&arrived)) {
        (false, _) => "prefix",
        (true, true) => "middle",
        (true, false) => "postfix",
    }
}

fn redeliveries(name: &str, deliveries: &Deliveries<'_>, finding: &mut Finding) {
    for id in deliveries.acks.keys() {
        let Some(ack) = deliveries.acked(*id) else { continue };
        for grant in deliveries.grants_of(*id).filter(|g| ack.ended < g.op.began) {
            finding.add(Kind::RedeliveryAfterAck, [ack, grant.op], || {
                format!("{id} was delivered to {name} by a receive that began after its ack")
            });
        }
    }
    for (id, read) in &deliveries.dead {
        for grant in deliveries.grants_of(*id).filter(|g| read.ended < g.op.began) {
            finding.add(Kind::RedeliveryAfterDeadLetter, [*read, grant.op], || {
                format!("{id} was delivered to {name} after it was given up")
            });
        }
    }
}

/// Whether one delivery cannot have followed the other without breaking its lease.
fn broken(first: &Grant<'_>, second: &Grant<'_>, slack: u64) -> bool {
    let certain_to_follow = second.op.ended;
    let impossible = certain_to_follow < first.op.began;
    impossible || certain_to_follow + slack < first.ends_earliest(certain_to_follow)
}

fn leases(case: &Case<'_>, name: &str, deliveries: &Deliveries<'_>, finding: &mut Finding) {
    let slack = case.clock_slack();
    for (id, places) in &deliveries.of_message {
        for (n, first) in places.iter().enumerate() {
            let reach = if places.len() <= PAIRWISE { places.len() } else { n + 2 };
            for second in places[n + 1..].iter().take(reach.saturating_sub(n + 1)) {
                let pair = (&deliveries.grants[*first], &deliveries.grants[*second]);
                if broken(pair.0, pair.1, slack) && broken(pair.1, pair.0, slack) {
                    finding.add(Kind::DoubleLease, [pair.0.op, pair.1.op], || {
                        format!("{id} was delivered to {name} again within its invisible time")
                    });
                }
            }
        }
    }
}

fn dead_letters(case: &Case<'_>, name: &str, deliveries: &Deliveries<'_>, finding: &mut Finding) {
    let Some(max) = case.plan.group(name).and_then(|g| g.max_attempts) else { return };
    for (id, read) in &deliveries.dead {
        let key = case.sends.by_id.get(id).map(|s| s.key);
        let last = deliveries.grants_of(*id).max_by_key(|g| g.attempt);
        let known = last.map_or(0, |g| g.attempt);
        // A receive of unknown outcome may have been one more delivery, if it came after the last.
        let after = last.map_or(0, |g| g.op.began);
        let receives = key.and_then(|key| deliveries.receives.get(&key)).into_iter().flatten();
        let hidden = receives.filter(|op| {
            !op.is_ok() && !op.is_failed() && after < op.ended && op.began < read.ended
        });
        if (known as usize) + hidden.count() < max as usize {
            let ops = deliveries.grants_of(*id).map(|g| g.op).chain([*read]);
            finding.add(Kind::DeadLetterEarly, ops, || {
                format!("{id} was given up for {name} after {known} of {max} deliveries")
            });
        }
    }
    for grant in deliveries.grants.iter().filter(|g| max < g.attempt) {
        finding.add(Kind::DeadLetterLate, [grant.op], || {
            format!("{} came to {name} as attempt {} of {max}", grant.id, grant.attempt)
        });
    }
    finding.count("dead letters", deliveries.dead.len());
}

fn stuck(case: &Case<'_>, name: &str, deliveries: &Deliveries<'_>, finding: &mut Finding) {
    let Some(group) = case.plan.group(name).filter(|g| !g.fifo) else { return };
    let by_key = case.sends.by_key();
    for key in &group.keys {
        let idle = Idle::of(case, deliveries, *key);
        finding.count("empty receives that count", idle.len());
        for (id, sent) in by_key.get(key).into_iter().flatten() {
            let due = is_due(case, *id, sent) && sent.deliver_at.is_none();
            if !due || deliveries.dead.contains_key(id) {
                continue;
            }
            if let Some((op, last)) = found_nothing(case, deliveries, &idle, *id, sent.acked) {
                let ops = sent.ops(case.record).chain(last).chain([op]);
                finding.add(Kind::Stuck, ops, || {
                    format!("{id} was ready for {name}, and a receive found nothing")
                });
            }
        }
    }
}

/// An empty receive at a time at which the message had to be there: ready since `ready`, and each
/// of its deliveries run out. With it comes the delivery before.
pub(crate) fn found_nothing<'a>(
    case: &Case<'a>,
    deliveries: &Deliveries<'a>,
    idle: &Idle<'a>,
    id: Message,
    ready: u64,
) -> Option<(&'a Op, Option<&'a Op>)> {
    let slack = case.plan.limits.redelivery_ms * MS;
    let gone = deliveries.may_be_acked_from(id);
    let mut from = ready;
    let mut last = None;
    for grant in deliveries.grants_of(id) {
        // The delivery may have been made when its receive began.
        let to = grant.op.began.min(gone);
        if let Some(op) = idle.within(from.saturating_add(slack), to) {
            return Some((op, last));
        }
        from = from.max(grant.ends_latest());
        last = Some(grant.op);
    }
    idle.within(from.saturating_add(slack), gone).map(|op| (op, last))
}
