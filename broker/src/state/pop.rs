//! Messages are handed to a client.

use std::ops::Range;
use std::time::Duration;

use commitlog::Bug;
use proto::{ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic, v2};

use super::clients::ClientSlot;
use super::in_flight::Record;
use super::{At, State};
use crate::command::{Effect, Granted, Outcome, Pick, Pop, Rejection};
use crate::kv::in_flight::{Delivery, Order, Place};
use crate::kv::{self, ConsumerGroupId, TopicId};

/// What one pick gets, before it is known where the messages lie.
pub(super) struct Grant {
    pub(super) offset: QueueOffset,
    pub(super) attempt: u32,
    /// The attempts before it.
    pub(super) before: u32,
}

/// Whom to deliver to, and until when.
#[derive(Clone, Copy)]
pub(super) struct Receiver {
    pub(super) group: ConsumerGroupId,
    pub(super) topic: TopicId,
    pub(super) client: ClientSlot,
    pub(super) auto_renew: bool,
    pub(super) due: Timestamp,
}

impl State {
    pub(super) fn pop(&mut self, at: At, c: &Pop) -> Result<Outcome, kv::Error> {
        let accepted = self.readable(c).and_then(|topic| Ok((topic, self.enabled(&c.group)?)));
        let (topic, group) = match accepted {
            Ok(ids) => ids,
            Err(rejection) => return Ok(Outcome::Rejected(rejection)),
        };
        if self.groups.config(group).fifo {
            // It began to keep order on the way: what was proposed does not.
            return Ok(Outcome::Popped { granted: vec![] });
        }
        let due = at.stamp.plus(Duration::from_millis(c.invisible_ms));
        let client = self.subscriptions.hold_client(&c.client);
        let receiver = Receiver { group, topic, client, auto_renew: c.auto_renew, due };
        let mut granted = Vec::new();
        for pick in &c.picks {
            let mut grants = self.deliver_again(at, receiver, c, pick)?;
            grants.extend(self.deliver_fresh(at, receiver, pick));
            if grants.is_empty() {
                continue;
            }
            self.locate(at, receiver, pick.queue, &grants, &mut granted)?;
            self.change.effects.push(Effect::Visible {
                group: c.group.clone(),
                topic: c.topic.clone(),
                queue: pick.queue,
                at: due,
            });
        }
        self.subscriptions.let_go_of_client(client);
        Ok(Outcome::Popped { granted })
    }

    /// The topic, if every pick makes sense.
    fn readable(&self, c: &Pop) -> Result<TopicId, Rejection> {
        let (topic, queues) = self.readable_topic(&c.topic)?;
        for pick in &c.picks {
            check_pick(queues, pick.queue, pick.from..pick.to, pick.fresh.iter().copied())?;
        }
        Ok(topic)
    }

    /// A topic that may be consumed, and how many queues it has.
    pub(super) fn readable_topic(&self, topic: &Topic) -> Result<(TopicId, u32), Rejection> {
        let (id, topic) = self.topics.find(topic).ok_or(Rejection::TopicNotFound)?;
        match topic.config().permission {
            v2::Permission::Read | v2::Permission::ReadWrite => {}
            v2::Permission::Unspecified | v2::Permission::None | v2::Permission::Write => {
                return Err(Rejection::TopicNotReadable);
            }
        }
        Ok((id, topic.readable()))
    }

    /// The consumer group, which comes into being if need be, unless it may not consume.
    pub(super) fn enabled(&mut self, group: &ConsumerGroup) -> Result<ConsumerGroupId, Rejection> {
        let id = self.ensure_group(group)?;
        match self.groups.standing(id).enabled {
            true => Ok(id),
            false => Err(Rejection::GroupDisabled),
        }
    }

    /// Delivers again what is still the ended delivery that the leader saw. A message whose
    /// attempts are used up is a dead letter instead.
    fn deliver_again(
        &mut self,
        at: At,
        to: Receiver,
        c: &Pop,
        pick: &Pick,
    ) -> Result<Vec<Grant>, kv::Error> {
        let mut grants = Vec::with_capacity(pick.again.len() + pick.fresh.len());
        for again in &pick.again {
            let place = to.place(pick.queue, again.offset);
            let ended = self.subscriptions.find(&place).map(|record| record.delivery);
            let early = Duration::from_millis(if Bug::B16.is_sown() { 500 } else { 0 });
            let now = at.stamp.plus(early);
            let ended = ended.filter(|d| d.id == again.delivery && d.due <= now);
            let Some(ended) = ended else { continue };
            if self.groups.config(to.group).is_exhausted(ended.attempt)
                && self.bury(at.stamp, &c.group, &place, ended.attempt)?
            {
                continue;
            }
            let attempt = ended.attempt.saturating_add(1);
            self.deliver(at, to, &place, attempt, None);
            grants.push(Grant { offset: again.offset, attempt, before: ended.attempt });
        }
        Ok(grants)
    }

    /// Delivers what is new to the consumer group, and moves its progress over what was evaluated.
    fn deliver_fresh(&mut self, at: At, to: Receiver, pick: &Pick) -> Vec<Grant> {
        let Some((offsets, _)) = self.advance(to, pick.queue, pick.from..pick.to, |range| {
            pick.fresh.iter().copied().filter(|o| range.contains(o)).map(|o| (o, ())).collect()
        }) else {
            return vec![];
        };
        for (offset, ()) in &offsets {
            self.deliver(at, to, &to.place(pick.queue, *offset), 1, None);
        }
        offsets.into_iter().map(|(offset, ())| Grant { offset, attempt: 1, before: 0 }).collect()
    }

    /// Moves the group's progress over what the leader evaluated, as far as there is room for
    /// messages in flight. What `fresh` gives of the range that is new, as far as progress moved,
    /// and where it stands now; `None` when nothing is new.
    pub(super) fn advance<T>(
        &mut self,
        to: Receiver,
        queue: QueueId,
        evaluated: Range<QueueOffset>,
        fresh: impl FnOnce(&Range<QueueOffset>) -> Vec<(QueueOffset, T)>,
    ) -> Option<(Vec<(QueueOffset, T)>, QueueOffset)> {
        let head = self.topics.get(to.topic).head(queue).expect("the queue was checked");
        let next = self.subscriptions.next(to.group, to.topic, queue).max(head.min);
        let end = evaluated.end.min(head.max);
        // Offsets between `next` and `from` were not evaluated: skipping them would lose messages.
        if next < evaluated.start || end <= next {
            return None;
        }
        let room = self.subscriptions.room(to.group, to.topic, queue);
        let mut fresh = fresh(&(next..end));
        // The first message that found no room is where the next pop goes on.
        let end = fresh.get(room).map_or(end, |(offset, _)| *offset);
        fresh.truncate(room);
        if next < end {
            self.subscriptions.set_next(to.group, to.topic, queue, end);
            kv::progress::put(&mut self.change.batch, (to.group, to.topic, queue), end);
        }
        Some((fresh, end))
    }

    pub(super) fn deliver(
        &mut self,
        at: At,
        to: Receiver,
        place: &Place,
        attempt: u32,
        order: Option<Order>,
    ) {
        let Receiver { client, auto_renew, due, .. } = to;
        let id = at.delivery;
        let delivery = Delivery { due, since: at.stamp, id, attempt, auto_renew, order };
        self.subscriptions.put(place, Record { delivery, client });
        let client = self.subscriptions.client(client);
        kv::in_flight::put(&mut self.change.batch, place, &delivery, client);
    }

    /// Looks up where the granted messages lie in the log.
    pub(super) fn locate(
        &self,
        at: At,
        to: Receiver,
        queue: QueueId,
        grants: &[Grant],
        granted: &mut Vec<Granted>,
    ) -> Result<(), kv::Error> {
        let offsets: Vec<_> = grants.iter().map(|grant| grant.offset).collect();
        let entries = self.entries_at(to.topic, queue, &offsets)?;
        granted.extend(grants.iter().zip(entries).map(|(grant, entry)| Granted {
            queue,
            offset: grant.offset,
            position: entry.position,
            len: entry.len,
            attempt: grant.attempt,
            before: grant.before,
            since: at.stamp,
            delivery: at.delivery,
            due: to.due,
        }));
        Ok(())
    }
}

impl Receiver {
    pub(super) fn place(&self, queue: QueueId, offset: QueueOffset) -> Place {
        Place { group: self.group, topic: self.topic, queue, offset }
    }
}

/// Whether a pick makes sense: the queue exists, and what is new ascends within its range.
pub(super) fn check_pick(
    queues: u32,
    queue: QueueId,
    evaluated: Range<QueueOffset>,
    fresh: impl Iterator<Item = QueueOffset> + Clone,
) -> Result<(), Rejection> {
    if queue.0 >= queues {
        return Err(Rejection::QueueNotFound { queues });
    }
    let ascending = fresh.clone().is_sorted_by(|a, b| a < b);
    let in_range = fresh.into_iter().all(|offset| evaluated.contains(&offset));
    if ascending && in_range { Ok(()) } else { Err(Rejection::BadPick) }
}

#[cfg(test)]
mod tests {
    use super::super::script::{
        Script, ack, config, group, handle, message, pick, pop, put_topic, topic,
    };
    use super::*;
    use crate::command::{Again, Command, TopicConfig};
    use crate::state::limits;

    fn offsets(granted: &[Granted]) -> Vec<u64> {
        granted.iter().map(|g| g.offset.0).collect()
    }

    fn again(of: &[&Granted]) -> Pick {
        let again = of.iter().map(|g| Again { offset: g.offset, delivery: g.delivery });
        Pick { again: again.collect(), ..pick(0, 0..0, &[]) }
    }

    #[test]
    fn messages_are_handed_out_with_their_place_and_until_when() {
        let mut script = Script::with_messages(3);
        let granted = script.at(100).pops_range(0..2);
        let entries = script.state.scan(&topic(), QueueId(0), QueueOffset(0), 2).unwrap();
        for (granted, entry) in granted.iter().zip(&entries) {
            assert_eq!((granted.position, granted.len), (entry.position, entry.len));
            assert_eq!((granted.attempt, granted.due), (1, Timestamp(60_100)));
        }
        assert_eq!(offsets(&granted), [0, 1]);
        assert_eq!(script.progress(), (2, 0, 2));
        let visible = Effect::Visible {
            group: group(),
            topic: topic(),
            queue: QueueId(0),
            at: Timestamp(60_100),
        };
        assert!(script.effects.contains(&visible));
    }

    #[test]
    fn of_two_pops_of_the_same_messages_each_gets_what_the_other_left() {
        let mut script = Script::with_messages(6);
        assert_eq!(offsets(&script.pops_range(0..3)), [0, 1, 2]);
        assert_eq!(offsets(&script.pops_range(1..5)), [3, 4]);
        assert_eq!(offsets(&script.pops_range(0..5)), [0_u64; 0]);
        assert_eq!(script.progress(), (5, 0, 5));
    }

    #[test]
    fn what_was_not_evaluated_is_not_skipped() {
        let mut script = Script::with_messages(6);
        assert_eq!(offsets(&script.pops_range(3..5)), [0_u64; 0]);
        assert_eq!(script.progress(), (0, 0, 0));
        assert_eq!(offsets(&script.pops_range(0..3)), [0, 1, 2]);
        assert_eq!(offsets(&script.pops_range(3..5)), [3, 4]);
    }

    #[test]
    fn filtered_messages_count_as_consumed() {
        let mut script = Script::with_messages(6);
        let granted = script.pops(pop("worker", vec![pick(0, 0..5, &[1, 3])]));
        assert_eq!(offsets(&granted), [1, 3]);
        assert_eq!(script.progress(), (5, 1, 2));
        script.acks(&[handle(&granted[0])]);
        assert_eq!(script.progress(), (5, 3, 1));
        assert_eq!(offsets(&script.pops(pop("worker", vec![pick(0, 5..6, &[])]))), [0_u64; 0]);
        assert_eq!(script.progress(), (6, 3, 1));
    }

    #[test]
    fn a_range_past_the_end_of_the_queue_stops_there() {
        let mut script = Script::with_messages(2);
        assert_eq!(offsets(&script.pops_range(0..9)), [0, 1]);
        assert_eq!(script.progress(), (2, 0, 2));
        script.appends(0, &[message("late")]);
        assert_eq!(offsets(&script.pops_range(2..9)), [2]);
    }

    #[test]
    fn an_ended_delivery_is_repeated_once_and_counted() {
        let mut script = Script::with_messages(2);
        let first = script.pops_range(0..2);
        let repeat = || pop("other", vec![again(&[&first[1], &first[0]])]);
        assert_eq!(offsets(&script.at(59_999).pops(repeat())), [0_u64; 0]);
        assert!(script.due().is_empty());

        script.at(60_000);
        assert_eq!(script.due(), [0, 1]);
        let second = script.pops(repeat());
        assert_eq!(offsets(&second), [1, 0]);
        assert!(second.iter().all(|g| g.attempt == 2 && g.due == Timestamp(120_000)));
        // The delivery that the leader saw is not the last one any more.
        assert_eq!(offsets(&script.at(999_999).pops(repeat())), [0_u64; 0]);
        assert_eq!(script.progress(), (2, 0, 2));
        let third = script.pops(pop("other", vec![again(&[&second[0]])]));
        assert_eq!(third[0].attempt, 3);
    }

    #[test]
    fn repeated_and_fresh_messages_come_in_one_pop_over_several_queues() {
        let mut script = Script::with_queues(2);
        script.appends(0, &[message("a"), message("b")]);
        script.appends(1, &[message("c")]);
        let first = script.pops_range(0..1);
        script.at(60_000);
        let mixed = Pick { again: again(&[&first[0]]).again, ..pick(0, 1..2, &[1]) };
        let granted = script.pops(pop("worker", vec![pick(1, 0..1, &[0]), mixed]));
        let facts: Vec<_> = granted.iter().map(|g| (g.queue.0, g.offset.0, g.attempt)).collect();
        assert_eq!(facts, [(1, 0, 1), (0, 0, 2), (0, 1, 1)]);
    }

    #[test]
    fn a_pop_that_makes_no_sense_changes_nothing() {
        let mut script = Script::with_messages(9);
        let cases = [
            (pick(0, 0..4, &[2, 1]), Rejection::BadPick),
            (pick(0, 0..4, &[1, 1]), Rejection::BadPick),
            (pick(0, 0..4, &[4]), Rejection::BadPick),
            (pick(0, 2..4, &[1]), Rejection::BadPick),
            (pick(1, 0..4, &[1]), Rejection::QueueNotFound { queues: 1 }),
        ];
        for (bad, rejection) in cases {
            let picks = vec![pick(0, 0..1, &[0]), bad];
            let outcome = script.does(Command::Pop(pop("worker", picks)));
            assert_eq!(outcome, Outcome::Rejected(rejection));
            assert_eq!(script.state.groups().count(), 0);
        }
        let elsewhere = Pop { topic: "bills".parse().unwrap(), ..pop("worker", vec![]) };
        let outcome = script.does(Command::Pop(elsewhere));
        assert_eq!(outcome, Outcome::Rejected(Rejection::TopicNotFound));
        let write_only = TopicConfig { permission: v2::Permission::Write, ..config(1, 2) };
        script.does(put_topic("orders", write_only));
        let outcome = script.does(Command::Pop(pop("worker", vec![])));
        assert_eq!(outcome, Outcome::Rejected(Rejection::TopicNotReadable));
    }

    #[test]
    fn a_queue_with_too_many_deliveries_waits_for_acks() {
        let full = u64::from(limits::IN_FLIGHT_PER_QUEUE);
        let mut script = Script::with_messages(usize::try_from(full).unwrap() - 1);
        script.appends(0, &vec![message("more"); 3]);
        let step = 32_767;
        let held: Vec<_> = (0..full + 2).step_by(step).collect();
        let mut granted = vec![];
        for from in held {
            granted.extend(script.pops_range(from..(from + step as u64).min(full + 2)));
        }
        assert_eq!(granted.len() as u64, full);
        assert_eq!(script.progress(), (full, 0, limits::IN_FLIGHT_PER_QUEUE));
        assert!(!script.state.has_anything(&group(), &topic(), None, script.now()));

        script.does(ack(&[handle(&granted[9])]));
        let room =
            Effect::Visible { group: group(), topic: topic(), queue: QueueId(0), at: script.now() };
        assert_eq!(script.effects, [room]);
        assert!(script.state.has_anything(&group(), &topic(), None, script.now()));
        assert_eq!(offsets(&script.pops_range(full..full + 2)), [full]);
    }

    #[test]
    fn deliveries_survive_a_restart() {
        let mut script = Script::with_messages(3);
        let granted = script.pops_range(0..3);
        script.acks(&[handle(&granted[1])]);
        let digest = script.state.digest();
        let mut script = script.restarted();
        assert_eq!(script.state.digest(), digest);
        assert_eq!(script.progress(), (3, 0, 2));
        script.at(60_000);
        assert_eq!(script.due(), [0, 2]);
        let second = script.pops(pop("other", vec![again(&[&granted[0]])]));
        assert_eq!(second[0].attempt, 2);
    }
}
