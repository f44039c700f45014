//! Delayed messages: never early, seldom late, once, and not at all when they were taken back.

use crate::history::{Answer, Message, Op};
use crate::judge::grants::Deliveries;
use crate::judge::idle::Idle;
use crate::judge::{Case, Fate, Finding, Kind, MS, Sent};

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    let delayed = case.sends.by_id.values().filter(|s| s.deliver_at.is_some()).count();
    finding.count("delayed messages", delayed);
    finding.count("recalls", case.sends.recalls.len());
    for (name, deliveries) in &Deliveries::of(case) {
        let Some(group) = case.plan.group(name) else { continue };
        let mut lateness = Vec::new();
        let by_key = case.sends.by_key();
        for key in &group.keys {
            let idle = Idle::of(case, deliveries, *key);
            for (id, sent) in by_key.get(key).into_iter().flatten() {
                let Some(at) = sent.deliver_at else { continue };
                let due = Due { id: *id, sent, at: since_start(case, at) };
                early(case, &due, name, deliveries, &mut finding);
                late(case, &due, name, deliveries, &idle, &mut lateness, &mut finding);
                recalled(case, &due, name, deliveries, &mut finding);
            }
        }
        tail(case, name, lateness, &mut finding);
    }
    finding
}

/// A message and the time, in ns since the start, before which it must not come.
struct Due<'a> {
    id: Message,
    sent: &'a Sent,
    at: u64,
}

fn since_start(case: &Case<'_>, wall_ms: u64) -> u64 {
    wall_ms.saturating_sub(case.plan.wall_start_ms) * MS
}

fn early(
    case: &Case<'_>,
    due: &Due<'_>,
    name: &str,
    deliveries: &Deliveries<'_>,
    finding: &mut Finding,
) {
    // The controller's clock was read twice, for the request and for the answer, and is one clock.
    // The cluster's may differ from it.
    let slack = case.clock_slack();
    let Some(first) = deliveries.grants_of(due.id).next() else { return };
    if first.op.ended + slack < due.at {
        finding.add(Kind::Early, due.sent.ops(case.record).chain([first.op]), || {
            let ms = (due.at - first.op.ended) / MS;
            format!("{} came to {name} {ms} ms before its time", due.id)
        });
    }
}

/// The latest moment at which a message that is due has to be there.
fn deadline(case: &Case<'_>, due: &Due<'_>) -> u64 {
    let limits = &case.plan.limits;
    let slack = case.clock_slack();
    // A message that is sent after its time is due at once.
    let at = due.at.max(due.sent.acked);
    let calm = at.saturating_add(limits.delay_late_ms * MS);
    if case.timeline.calm(at, calm).is_some_and(|(from, _)| from == 0 || from + MS <= at) {
        return calm.saturating_add(slack);
    }
    let mut from = at;
    loop {
        let settled = from.max(case.timeline.settled_at(from));
        let end = settled.saturating_add(limits.delay_late_after_fault_ms * MS);
        if settled == u64::MAX || case.timeline.calm(settled, end).is_some() {
            return end.saturating_add(slack);
        }
        // Something broke again meanwhile.
        from = end;
    }
}

fn late(
    case: &Case<'_>,
    due: &Due<'_>,
    name: &str,
    deliveries: &Deliveries<'_>,
    idle: &Idle<'_>,
    lateness: &mut Vec<u64>,
    finding: &mut Finding,
) {
    let taken_back = case.sends.recalls.contains_key(&due.id);
    if due.sent.fate != Fate::Done || taken_back {
        return;
    }
    let deadline = deadline(case, due);
    let first = deliveries.grants_of(due.id).next();
    // A receive that had been waiting all along shows how late it was; one that began later shows
    // when its consumer had time. What another receive may have taken tells nothing.
    let ready = due.at.max(due.sent.acked);
    let waited = first.filter(|g| g.op.began <= ready && !idle.hides(ready, g.op.ended));
    if let Some(grant) = waited {
        lateness.push(grant.op.ended.saturating_sub(ready));
    }
    let ops = |last: &'_ Op| -> Vec<u64> {
        due.sent.ops(case.record).map(|op| op.index).chain([last.index]).collect()
    };
    if let Some(grant) = waited.filter(|g| deadline < g.op.ended) {
        let waited_for = grant.op.ended - due.at;
        finding.add_at(Kind::Late, ops(grant.op), || {
            format!("{} came to {name} {} ms after its time", due.id, waited_for / MS)
        });
        return;
    }
    let until = first.map_or(u64::MAX, |g| g.op.began).min(deliveries.may_be_acked_from(due.id));
    if let Some(empty) =
        idle.within(deadline, until).filter(|_| !deliveries.dead.contains_key(&due.id))
    {
        finding.add_at(Kind::Late, ops(empty), || {
            format!("{} was due, and a receive of {name} found nothing", due.id)
        });
    }
}

/// While nothing is broken, nearly all of them are nearly on time.
fn tail(case: &Case<'_>, name: &str, mut lateness: Vec<u64>, finding: &mut Finding) {
    lateness.sort_unstable();
    let Some(last) = lateness.len().checked_sub(1) else { return };
    let p99 = lateness[last * 99 / 100] / MS;
    finding.count(
        &format!("lateness of {name} in ms at the 99th percentile"),
        usize::try_from(p99).unwrap_or(usize::MAX),
    );
    let quiet = case.timeline.bands.is_empty();
    if quiet && 100 <= lateness.len() && case.plan.limits.delay_late_p99_ms < p99 {
        let worst = lateness[last] / MS;
        finding.add_at(Kind::Late, [], || {
            format!("without a fault, messages came to {name} {p99} ms late at the 99th percentile, {worst} ms at most")
        });
    }
}

fn recalled(
    case: &Case<'_>,
    due: &Due<'_>,
    name: &str,
    deliveries: &Deliveries<'_>,
    finding: &mut Finding,
) {
    let recalls = case.sends.recalls.get(&due.id).into_iter().flatten();
    let done = recalls
        .map(|place| &case.record.ops[*place])
        .find(|op| op.answer() == Some(&Answer::Recall { done: true }));
    if let (Some(recall), Some(first)) = (done, deliveries.grants_of(due.id).next()) {
        finding.add(Kind::RecalledButDelivered, [recall, first.op], || {
            format!("{} came to {name}, though its recall was confirmed", due.id)
        });
    }
}
