//! Messages are handed to a client in the order of their message groups.
//!
//! The leader says to which block each message belongs; what is free is decided here, by the
//! deliveries in flight. So a block has one holder at a time, whatever was proposed.

use std::collections::BTreeMap;
use std::time::Duration;

use commitlog::Bug;
use proto::{QueueId, QueueOffset, Timestamp};

use super::in_flight::Record;
use super::pop::{Grant, Receiver};
use super::{At, State};
use crate::command::{Effect, FifoAgain, FifoFresh, FifoPick, Granted, Outcome, PopFifo};
use crate::kv;
use crate::kv::in_flight::{Delivery, Order, Place};

/// The blocks that a command delivers, with the last message of each.
type Taken = BTreeMap<(QueueId, u64), QueueOffset>;

impl State {
    pub(super) fn pop_fifo(&mut self, at: At, c: &PopFifo) -> Result<Outcome, kv::Error> {
        let accepted = self.readable_fifo(c).and_then(|topic| {
            let group = self.enabled(&c.group)?;
            Ok((topic, group))
        });
        let (topic, group) = match accepted {
            Ok(ids) => ids,
            Err(rejection) => return Ok(Outcome::Rejected(rejection)),
        };
        if !self.groups.config(group).fifo {
            return Ok(Outcome::Popped { granted: vec![] });
        }
        let due = at.stamp.plus(Duration::from_millis(c.invisible_ms));
        let client = self.subscriptions.hold_client(&c.client);
        let to = Receiver { group, topic, client, auto_renew: c.auto_renew, due };
        let mut granted = self.replay(at, to, c)?;
        if granted.is_empty() {
            for pick in &c.picks {
                let grants = self.deliver_in_order(at, to, c, pick)?;
                self.locate(at, to, pick.queue, &grants, &mut granted)?;
            }
        }
        self.subscriptions.let_go_of_client(client);
        let mut queues: Vec<_> = granted.iter().map(|granted| granted.queue).collect();
        queues.dedup();
        for queue in queues {
            let (group, topic) = (c.group.clone(), c.topic.clone());
            self.change.effects.push(Effect::Visible { group, topic, queue, at: due });
        }
        Ok(Outcome::Popped { granted })
    }

    fn readable_fifo(&self, c: &PopFifo) -> Result<kv::TopicId, crate::command::Rejection> {
        let (topic, queues) = self.readable_topic(&c.topic)?;
        for pick in &c.picks {
            let fresh = pick.fresh.iter().map(|fresh| fresh.offset);
            super::pop::check_pick(queues, pick.queue, pick.from..pick.to, fresh)?;
        }
        Ok(topic)
    }

    /// Grants again what an earlier attempt of the same call got: the same deliveries, with a new
    /// end.
    fn replay(&mut self, at: At, to: Receiver, c: &PopFifo) -> Result<Vec<Granted>, kv::Error> {
        let subscription = self.subscriptions.get(to.group, to.topic);
        let (Some(attempt), Some(subscription)) = (c.attempt_id, subscription) else {
            return Ok(vec![]);
        };
        let places: Vec<_> = subscription.in_flight.of_attempt(attempt, to.client).collect();
        let mut granted = Vec::with_capacity(places.len());
        for (queue, offset) in places {
            let place = to.place(queue, offset);
            let delivery = self.subscriptions.update(&place, |delivery| {
                delivery.due = to.due;
                // Later than before, so that what became of the first answer does not concern it.
                delivery.since = at.stamp.max(Timestamp(delivery.since.0 + 1));
                delivery.auto_renew = to.auto_renew;
            });
            kv::in_flight::put(&mut self.change.batch, &place, &delivery, &c.client);
            let (attempt, before) = (delivery.attempt, delivery.attempt);
            let grant = Grant { offset, attempt, before };
            let first = granted.len();
            self.locate(at, to, queue, &[grant], &mut granted)?;
            granted[first].delivery = delivery.id;
            granted[first].since = delivery.since;
        }
        self.unflushed.work += granted.len();
        Ok(granted)
    }

    fn deliver_in_order(
        &mut self,
        at: At,
        to: Receiver,
        c: &PopFifo,
        pick: &FifoPick,
    ) -> Result<Vec<Grant>, kv::Error> {
        let mut taken = Taken::new();
        let mut grants = Vec::new();
        for again in &pick.again {
            let place = to.place(pick.queue, again.offset);
            let Some(ended) = self.next_of_block(at, to, pick.queue, again, &taken) else {
                continue;
            };
            let behind = taken.insert((pick.queue, again.block), again.offset).is_some();
            if !behind
                && self.groups.config(to.group).is_exhausted(ended.attempt)
                && self.bury(at.stamp, &c.group, &place, ended.attempt)?
            {
                continue;
            }
            // Whoever keeps order stops at the first failure: what stood behind was not tried.
            let attempt = match behind {
                true => ended.attempt.max(1),
                false => ended.attempt.saturating_add(1),
            };
            self.deliver(at, to, &place, attempt, Some(order(again.block, c)));
            grants.push(Grant { offset: again.offset, attempt, before: ended.attempt });
        }
        grants.extend(self.deliver_fresh_in_order(at, to, c, pick, &mut taken));
        Ok(grants)
    }

    /// The ended delivery to repeat, if it is the next of its block and the block is free.
    fn next_of_block(
        &self,
        at: At,
        to: Receiver,
        queue: QueueId,
        again: &FifoAgain,
        taken: &Taken,
    ) -> Option<Delivery> {
        let record = self.subscriptions.find(&to.place(queue, again.offset))?;
        let delivery = record.delivery;
        if delivery.id != again.delivery || at.stamp < delivery.due {
            return None;
        }
        if delivery.order.is_some_and(|order| order.block != again.block) {
            return None;
        }
        let subscription = self.subscriptions.get(to.group, to.topic)?;
        let last = taken.get(&(queue, again.block));
        if last.is_some_and(|last| again.offset <= *last) {
            return None;
        }
        let block = subscription.in_flight.blocks.get(queue, again.block);
        let Some(block) = block else { return Some(delivery) };
        let next = match last {
            Some(last) => block.after(*last),
            None if at.stamp < block.ready_at() => return None,
            None => block.first(),
        };
        // One that was handed out while the group kept no order is in no block yet.
        let is_next = match delivery.order {
            Some(_) => next == Some(again.offset),
            None => next.is_none_or(|next| again.offset < next),
        };
        is_next.then_some(delivery)
    }

    /// Delivers what is new and whose block is free, passes over what is held back, and moves the
    /// group's progress over both.
    fn deliver_fresh_in_order(
        &mut self,
        at: At,
        to: Receiver,
        c: &PopFifo,
        pick: &FifoPick,
        taken: &mut Taken,
    ) -> Vec<Grant> {
        let Some((fresh, end)) = self.advance(to, pick.queue, pick.from..pick.to, |range| {
            let new = pick.fresh.iter().filter(|fresh| range.contains(&fresh.offset));
            new.copied().map(|fresh| (fresh.offset, fresh)).collect()
        }) else {
            return vec![];
        };
        debug_assert!(fresh.iter().all(|(offset, _)| *offset < end), "below the progress");
        let mut grants = Vec::new();
        for (offset, FifoFresh { block, deliver, .. }) in fresh {
            let place = to.place(pick.queue, offset);
            if deliver && self.is_free(to, pick.queue, block, taken) {
                taken.insert((pick.queue, block), offset);
                self.deliver(at, to, &place, 1, Some(order(block, c)));
                grants.push(Grant { offset, attempt: 1, before: 0 });
            } else {
                self.pass_over(at, to, &place, block);
            }
        }
        grants
    }

    /// Whether a message behind all others of its block can be delivered.
    fn is_free(&self, to: Receiver, queue: QueueId, block: u64, taken: &Taken) -> bool {
        let subscription = self.subscriptions.get(to.group, to.topic);
        let held = subscription.and_then(|s| s.in_flight.blocks.get(queue, block));
        match (held, taken.get(&(queue, block))) {
            (None, _) => true,
            _ if Bug::B17.is_sown() => true,
            (Some(_), None) => false,
            (Some(held), Some(last)) => held.after(*last).is_none(),
        }
    }

    fn pass_over(&mut self, at: At, to: Receiver, place: &Place, block: u64) {
        let delivery = Delivery {
            due: Timestamp(0),
            since: at.stamp,
            id: at.delivery,
            attempt: 0,
            auto_renew: false,
            order: Some(Order { block, attempt_id: None }),
        };
        self.subscriptions.put(place, Record { delivery, client: to.client });
        let client = self.subscriptions.client(to.client);
        kv::in_flight::put(&mut self.change.batch, place, &delivery, client);
    }

    /// After a message left its block: whoever waits for the next one looks again.
    pub(super) fn block_moved(
        &mut self,
        stamp: Timestamp,
        place: &Place,
        order: Option<Order>,
    ) -> Option<Timestamp> {
        let block = order?.block;
        let subscription = self.subscriptions.get(place.group, place.topic)?;
        match subscription.in_flight.blocks.get(place.queue, block) {
            Some(held) => Some(held.ready_at().max(stamp)),
            None => {
                let head = self.topics.get(place.topic).head(place.queue)?;
                (subscription.of(place.queue).next < head.max).then_some(stamp)
            }
        }
    }
}

fn order(block: u64, c: &PopFifo) -> Order {
    Order { block, attempt_id: c.attempt_id }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, group, handle, message, put_topic, topic};
    use super::*;
    use crate::command::{AckOutcome, Backoff, Command, GroupConfig, PutGroup, Rejection};

    /// A group that keeps order, and one queue of messages.
    fn script(count: usize) -> Script {
        let mut script = Script::with_messages(count);
        keeps_order(&mut script, true);
        script
    }

    fn keeps_order(script: &mut Script, fifo: bool) {
        let config = GroupConfig { fifo, max_attempts: 3, backoff: Backoff::default() };
        script.does(Command::PutGroup(PutGroup { group: group(), config }));
    }

    fn pop(client: &str, attempt_id: Option<u64>, pick: FifoPick) -> PopFifo {
        PopFifo {
            group: group(),
            topic: topic(),
            client: client.parse().unwrap(),
            auto_renew: false,
            invisible_ms: 60_000,
            attempt_id,
            picks: vec![pick],
        }
    }

    /// All from an offset on, of these blocks, to be delivered.
    fn fresh(from: u64, blocks: &[u64]) -> FifoPick {
        let offsets = (from..).map(QueueOffset);
        let fresh = offsets.zip(blocks).map(|(offset, block)| FifoFresh {
            offset,
            block: *block,
            deliver: true,
        });
        FifoPick {
            queue: QueueId(0),
            from: QueueOffset(from),
            to: QueueOffset(from + blocks.len() as u64),
            again: vec![],
            fresh: fresh.collect(),
        }
    }

    /// What is due, in the order in which the state tells it, of one block.
    fn again(script: &Script, offsets: &[u64], block: u64) -> FifoPick {
        let all = script.state.block_of(&group(), &topic(), QueueId(0), block);
        let again = all.iter().filter(|held| offsets.contains(&held.offset.0));
        let again = again.map(|h| FifoAgain { offset: h.offset, delivery: h.delivery, block });
        FifoPick { again: again.collect(), ..fresh(0, &[]) }
    }

    fn pops(script: &mut Script, pop: PopFifo) -> Vec<(u64, u32)> {
        granted(script, pop).iter().map(|g| (g.offset.0, g.attempt)).collect()
    }

    fn granted(script: &mut Script, pop: PopFifo) -> Vec<Granted> {
        match script.does(Command::PopFifo(pop)) {
            Outcome::Popped { granted } => granted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_group_has_one_holder_and_the_others_go_past_it() {
        let mut script = script(6);
        assert_eq!(pops(&mut script, pop("a", None, fresh(0, &[1, 2]))), [(0, 1), (1, 1)]);
        // 2 and 3 belong to held groups: they wait, and 4 is delivered.
        assert_eq!(pops(&mut script, pop("b", None, fresh(2, &[1, 2, 3]))), [(4, 1)]);
        let mut script = script.restarted();
        assert_eq!(script.progress(), (5, 0, 3));
        let progress = script.state.progress(&group(), &topic(), QueueId(0)).unwrap();
        assert_eq!((progress.waiting, progress.lag()), (2, 6));
        assert!(script.due().is_empty());
        let waiting = again(&script, &[2], 1);
        assert_eq!(pops(&mut script, pop("b", None, waiting)), []);
    }

    #[test]
    fn the_ack_of_the_last_one_held_frees_the_group() {
        let mut script = script(4);
        let first = granted(&mut script, pop("a", None, fresh(0, &[1, 1])));
        assert_eq!(pops(&mut script, pop("b", None, fresh(2, &[1]))), []);
        assert_eq!(script.acks(&[handle(&first[1])]), [AckOutcome::Acked]);
        assert!(script.due().is_empty(), "the first is held");
        assert_eq!(script.at(5).acks(&[handle(&first[0])]), [AckOutcome::Acked]);
        let visible =
            Effect::Visible { group: group(), topic: topic(), queue: QueueId(0), at: Timestamp(5) };
        assert_eq!(script.effects, [visible]);
        let mut script = script.restarted();
        assert_eq!(script.due(), [2]);
        let next = FifoPick { again: again(&script, &[2], 1).again, ..fresh(3, &[1]) };
        assert_eq!(pops(&mut script, pop("b", None, next)), [(2, 1), (3, 1)]);
    }

    #[test]
    fn a_retry_begins_with_the_first_and_only_when_all_have_ended() {
        let mut script = script(5);
        let held = granted(&mut script, pop("a", None, fresh(0, &[1, 1, 1])));
        script.acks(&[handle(&held[1])]);
        script.changes_invisible(handle(&held[0]), 0);
        let first = again(&script, &[0], 1);
        assert_eq!(pops(&mut script, pop("b", None, first)), [], "2 is held by another");
        assert_eq!(script.state.next_due(&group(), &topic()), Some(Timestamp(60_000)));
        script.at(60_000);
        let second = again(&script, &[2], 1);
        assert_eq!(pops(&mut script, pop("b", None, second)), [], "0 comes before it");
        let both = FifoPick { again: again(&script, &[0, 2], 1).again, ..fresh(3, &[1, 7]) };
        let got = pops(&mut script, pop("b", None, both));
        assert_eq!(got, [(0, 2), (2, 1), (3, 1), (4, 1)]);
    }

    #[test]
    fn new_messages_do_not_overtake_those_that_are_to_be_repeated() {
        let mut script = script(3);
        pops(&mut script, pop("a", None, fresh(0, &[1, 1])));
        script.at(60_000);
        let part = FifoPick { again: again(&script, &[0], 1).again, ..fresh(2, &[1]) };
        assert_eq!(pops(&mut script, pop("b", None, part)), [(0, 2)]);
        assert_eq!(script.progress(), (3, 0, 2));
        let waiting = again(&script, &[1, 2], 1);
        assert_eq!(pops(&mut script, pop("c", None, waiting)), []);
    }

    #[test]
    fn the_same_attempt_gets_the_same_and_another_client_does_not() {
        let mut script = script(4);
        let held = granted(&mut script, pop("a", Some(7), fresh(0, &[1, 2])));
        let mut script = script.restarted();
        script.at(10_000);
        let repeated = granted(&mut script, pop("a", Some(7), fresh(2, &[3])));
        let facts = |g: &Granted| (g.offset, g.attempt, g.delivery, g.position);
        assert_eq!(
            repeated.iter().map(facts).collect::<Vec<_>>(),
            held.iter().map(facts).collect::<Vec<_>>()
        );
        assert!(repeated.iter().all(|g| g.due == Timestamp(70_000)));
        assert_eq!(pops(&mut script, pop("b", Some(7), fresh(2, &[3]))), [(2, 1)]);
        script.acks(&[handle(&held[0])]);
        assert_eq!(pops(&mut script, pop("a", Some(7), fresh(3, &[4]))), [(1, 1)]);
        script.acks(&[handle(&held[1])]);
        assert_eq!(pops(&mut script, pop("a", Some(7), fresh(3, &[4]))), [(3, 1)]);
    }

    #[test]
    fn a_group_whose_order_was_switched_gets_nothing_of_the_other_kind() {
        let mut script = Script::with_messages(4);
        assert_eq!(pops(&mut script, pop("a", None, fresh(0, &[1]))), []);
        let loose = script.pops_range(0..2);
        keeps_order(&mut script, true);
        assert!(script.pops_range(2..4).is_empty());
        script.at(60_000);
        // What was handed out without order takes its place in it.
        let again =
            loose.iter().map(|g| FifoAgain { offset: g.offset, delivery: g.delivery, block: 1 });
        let pick = FifoPick { again: again.rev().collect(), ..fresh(2, &[1]) };
        assert_eq!(pops(&mut script, pop("a", None, pick)), [(1, 2), (2, 1)], "never 0 after 1");
        keeps_order(&mut script, false);
        assert_eq!(script.progress(), (3, 0, 3));
    }

    #[test]
    fn attempts_used_up_make_a_dead_letter_and_what_stood_behind_goes_on() {
        let mut script = script(3);
        pops(&mut script, pop("a", None, fresh(0, &[1, 1])));
        for round in 1..3 {
            script.at(round * 60_000);
            let both = again(&script, &[0, 1], 1);
            let attempt = u32::try_from(round).unwrap() + 1;
            assert_eq!(pops(&mut script, pop("a", None, both)), [(0, attempt), (1, 1)]);
        }
        script.at(180_000);
        let rest = FifoPick { again: again(&script, &[0, 1], 1).again, ..fresh(2, &[1]) };
        assert_eq!(pops(&mut script, pop("a", None, rest)), [(1, 1), (2, 1)]);
        let graves = "%DLQ%audit".parse().unwrap();
        let dead = script.state.scan(&graves, QueueId(0), QueueOffset(0), 9).unwrap();
        let alive = script.state.scan(&topic(), QueueId(0), QueueOffset(0), 1).unwrap();
        let place = |e: &crate::state::QueueEntry| (e.position, e.len);
        assert_eq!(
            dead.iter().map(place).collect::<Vec<_>>(),
            alive.iter().map(place).collect::<Vec<_>>()
        );
        assert!(dead.iter().all(|entry| entry.visible == Timestamp(180_000)));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut script = script(3);
        let bad = FifoPick { to: QueueOffset(0), ..fresh(0, &[1]) };
        let outcome = script.does(Command::PopFifo(pop("a", None, bad)));
        assert_eq!(outcome, Outcome::Rejected(Rejection::BadPick));
        script.does(put_topic("bills", super::super::script::config(1, 1)));
        script.appends(0, &[message("x")]);
        let elsewhere = FifoPick { queue: QueueId(7), ..fresh(0, &[]) };
        let outcome = script.does(Command::PopFifo(pop("a", None, elsewhere)));
        assert_eq!(outcome, Outcome::Rejected(Rejection::QueueNotFound { queues: 1 }));
    }
}
