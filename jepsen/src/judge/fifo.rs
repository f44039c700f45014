//! Order within message groups: one after the other, and never past one that is not dealt with.

use std::collections::BTreeMap;

use crate::history::{Call, Key, Message, Op};
use crate::judge::grants::{Deliveries, Grant};
use crate::judge::idle::Idle;
use crate::judge::queue::found_nothing;
use crate::judge::{Case, Fate, Finding, Kind};

/// One message of a message group, in the order of the log.
struct Member {
    id: Message,
    acked: u64,
    /// The earliest moment at which it may have been dealt with: an ack began, or it was given up.
    released: u64,
}

pub(crate) fn check(case: &Case<'_>) -> Finding {
    let mut finding = Finding::default();
    for (name, deliveries) in Deliveries::of(case) {
        if !case.plan.group(name).is_some_and(|g| g.fifo) {
            continue;
        }
        let members = members(case, &deliveries);
        let mut grants: BTreeMap<(Key, &str), Vec<&Grant<'_>>> = BTreeMap::new();
        for grant in &deliveries.grants {
            let sent = case.sends.by_id.get(&grant.id);
            if let Some(group) = sent.and_then(|s| s.message_group.as_deref()) {
                grants.entry((grant.key, group)).or_default().push(grant);
            }
        }
        for ((key, group), mut grants) in grants {
            grants.sort_by_key(|g| (g.op.ended, g.op.index, g.nth));
            let empty = Vec::new();
            let line = Line::new(members.get(&(key, group)).unwrap_or(&empty));
            let of = format!("{group} in {}", case.plan.queue(key));
            finding.count("ordered deliveries", grants.len());
            in_order(&of, &line, &grants, &mut finding);
            one_owner(case, &of, &deliveries, &grants, &mut finding);
        }
        attempts(&deliveries, &mut finding);
        stuck(case, name, &deliveries, &members, &mut finding);
        finding.count("message groups", members.len());
    }
    finding
}

type Members<'a> = BTreeMap<(Key, &'a str), Vec<Member>>;

/// The messages of each message group whose place is known.
fn members<'a>(case: &'a Case<'_>, deliveries: &Deliveries<'_>) -> Members<'a> {
    let mut placed: BTreeMap<(Key, &str), Vec<(u64, Member)>> = BTreeMap::new();
    for (id, sent) in &case.sends.by_id {
        let Some(group) = sent.message_group.as_deref() else { continue };
        let seen = deliveries.grants_of(*id).find_map(|g| g.offset);
        let Some(offset) = sent.offset.or(seen).filter(|_| sent.fate != Fate::Failed) else {
            continue;
        };
        let dead = deliveries.dead.contains_key(id);
        // When exactly it was given up is not seen; not before its last delivery.
        let given_up = deliveries.grants_of(*id).map(|g| g.op.began).max().filter(|_| dead);
        let released = given_up.unwrap_or(u64::MAX).min(deliveries.may_be_acked_from(*id));
        let released = if dead && given_up.is_none() { 0 } else { released };
        let member = Member { id: *id, acked: sent.acked, released };
        placed.entry((sent.key, group)).or_default().push((offset, member));
    }
    let sorted = placed.into_iter().map(|(group, mut members)| {
        members.sort_by_key(|(offset, _)| *offset);
        (group, members.into_iter().map(|(_, member)| member).collect())
    });
    sorted.collect()
}

/// The members with what is asked of them again and again.
struct Line<'a> {
    members: &'a [Member],
    place: BTreeMap<Message, usize>,
    /// The member released last among all before a place.
    last_before: Vec<Option<usize>>,
}

impl<'a> Line<'a> {
    fn new(members: &'a [Member]) -> Self {
        let place = members.iter().enumerate().map(|(place, m)| (m.id, place)).collect();
        let mut last_before = Vec::with_capacity(members.len());
        let mut last: Option<usize> = None;
        for (place, member) in members.iter().enumerate() {
            last_before.push(last);
            if last.is_none_or(|l| members[l].released < member.released) {
                last = Some(place);
            }
        }
        Self { members, place, last_before }
    }

    /// A member before `place`, and not before `from`, that was certainly not released at `time`.
    fn held(&self, from: usize, place: usize, time: u64) -> Option<&'a Member> {
        let held = if from == 0 {
            self.last_before[place].map(|last| &self.members[last])
        } else {
            self.members.get(from..place)?.iter().max_by_key(|m| m.released)
        };
        held.filter(|member| time < member.released)
    }
}

fn in_order(of: &str, line: &Line<'_>, grants: &[&Grant<'_>], finding: &mut Finding) {
    let mut seen: BTreeMap<Message, ()> = BTreeMap::new();
    let mut before: Option<&Grant<'_>> = None;
    let mut highest: Option<(usize, &Grant<'_>)> = None;
    for grant in grants {
        let Some(place) = line.place.get(&grant.id).copied() else { continue };
        let first_time = seen.insert(grant.id, ()).is_none();
        let batch = before.filter(|b| b.op.index == grant.op.index);
        let after = batch.and_then(|b| line.place.get(&b.id)).map(|place| place + 1);
        before = Some(grant);
        if after.is_some_and(|after| place < after) {
            finding.add(Kind::FifoOrder, [grant.op], || {
                format!("one receive of {of} has {} after a later one", grant.id)
            });
            continue;
        }
        if let Some(held) = line.held(after.unwrap_or(0), place, grant.op.ended) {
            let kind = if first_time { Kind::HolViolation } else { Kind::SkipRedelivery };
            finding.add(kind, [grant.op], || {
                format!("{} of {of} was delivered while {} was not acked", grant.id, held.id)
            });
        }
        if let Some((_, later)) =
            highest.filter(|(h, l)| first_time && place < *h && l.op.ended < grant.op.began)
        {
            finding.add(Kind::FifoOrder, [later.op, grant.op], || {
                format!("{} of {of} came for the first time after {}", grant.id, later.id)
            });
        }
        if first_time && highest.is_none_or(|(h, _)| h < place) {
            highest = Some((place, grant));
        }
    }
}

/// While one consumer certainly holds a message of the group, no other is given one.
fn one_owner(
    case: &Case<'_>,
    of: &str,
    deliveries: &Deliveries<'_>,
    grants: &[&Grant<'_>],
    finding: &mut Finding,
) {
    let slack = case.clock_slack();
    // Who holds one longest; a lease that is over when a grant arrives does not count.
    let mut holder: Option<&Grant<'_>> = None;
    for grant in grants {
        if let Some(held) = holder {
            let arrived = grant.op.ended;
            let free = deliveries.may_be_acked_from(held.id) <= arrived;
            let holds = !free
                && held.op.ended < grant.op.began
                && arrived + slack < held.ends_earliest(arrived);
            if holds && held.op.process != grant.op.process && held.id != grant.id {
                finding.add(Kind::FifoDoubleOwner, [held.op, grant.op], || {
                    format!(
                        "{} of {of} was delivered while another consumer held {}",
                        grant.id, held.id
                    )
                });
            }
            if holds {
                continue;
            }
        }
        holder = Some(grant);
    }
}

/// A receive that is repeated under its attempt id gets the same messages, or nothing yet.
fn attempts(deliveries: &Deliveries<'_>, finding: &mut Finding) {
    let mut of_op: BTreeMap<u64, Vec<&Grant<'_>>> = BTreeMap::new();
    for grant in &deliveries.grants {
        of_op.entry(grant.op.index).or_default().push(grant);
    }
    let mut first: BTreeMap<&str, (&Op, Vec<Message>)> = BTreeMap::new();
    for grants in of_op.values() {
        let op = grants[0].op;
        let Call::Receive { attempt_id: Some(attempt), .. } = &op.call else { continue };
        let ids: Vec<Message> = grants.iter().map(|g| g.id).collect();
        match first.get(attempt.as_str()) {
            None => {
                first.insert(attempt, (op, ids));
            }
            Some((before, known)) if *known != ids => {
                finding.add(Kind::AttemptMismatch, [*before, op], || {
                    format!("attempt {attempt} got {} messages, and then others", known.len())
                });
            }
            Some(_) => {}
        }
    }
}

/// The head of a message group comes, as soon as everything before it is dealt with.
fn stuck(
    case: &Case<'_>,
    name: &str,
    deliveries: &Deliveries<'_>,
    members: &Members<'_>,
    finding: &mut Finding,
) {
    let mut idle: BTreeMap<Key, Idle<'_>> = BTreeMap::new();
    for ((key, group), members) in members {
        let idle = idle.entry(*key).or_insert_with(|| Idle::of(case, deliveries, *key));
        let mut free_from = 0;
        for member in members {
            let ready = member.acked.max(free_from);
            let confirmed = deliveries.acked(member.id).map_or(u64::MAX, |ack| ack.ended);
            free_from = free_from.max(confirmed);
            if deliveries.dead.contains_key(&member.id) || ready == u64::MAX {
                continue;
            }
            if let Some((op, last)) = found_nothing(case, deliveries, idle, member.id, ready) {
                finding.add(Kind::Stuck, last.into_iter().chain([op]), || {
                    format!(
                        "{} is the head of {group} for {name}, and a receive found nothing",
                        member.id
                    )
                });
            }
        }
    }
}
