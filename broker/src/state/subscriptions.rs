//! What each consumer group has been given of each topic.
//!
//! Invariants, per queue: `committed <= next <= max`, where `committed` is the first offset in
//! flight, or `next` when nothing is; every offset in flight is below `next`.

use std::collections::{BTreeMap, BTreeSet};

use proto::{ClientId, QueueId, QueueOffset, Timestamp};

use super::clients::{ClientSlot, Clients};
use super::in_flight::{InFlight, Record};
use super::limits;
use crate::kv::in_flight::{Delivery, Place};
use crate::kv::reset::Reset;
use crate::kv::{self, ConsumerGroupId, Kv, TopicId};

/// A consumer group's place in one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The first offset that was neither delivered nor filtered out.
    pub(super) next: QueueOffset,
    /// Messages below it that are not acknowledged.
    pub(super) in_flight: u32,
    /// The group has been given or has committed something, or was put here: 0 is a place too.
    pub(super) known: bool,
    /// Those of them that wait for their message group.
    pub(super) waiting: u32,
}

/// A consumer group on a topic.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// By queue; queues beyond the end have not been touched.
    progress: Vec<Progress>,
    resets: BTreeMap<QueueId, Reset>,
    pub(super) in_flight: InFlight,
}

impl Subscription {
    pub(super) fn of(&self, queue: QueueId) -> Progress {
        self.progress.get(queue.0 as usize).copied().unwrap_or_default()
    }

    fn of_mut(&mut self, queue: QueueId) -> &mut Progress {
        let place = queue.0 as usize;
        if self.progress.len() <= place {
            self.progress.resize(place + 1, Progress::default());
        }
        &mut self.progress[place]
    }

    /// Queues with progress, ascending.
    pub(super) fn progress(&self) -> impl Iterator<Item = (QueueId, Progress)> {
        let touched = self.progress.iter().copied().zip(0..).map(|(p, q)| (QueueId(q), p));
        touched.filter(|(_, progress)| *progress != Progress::default())
    }

    /// Queues that were reset, ascending.
    pub(super) fn resets(&self) -> impl Iterator<Item = (QueueId, Reset)> {
        self.resets.iter().map(|(queue, reset)| (*queue, *reset))
    }

    /// Everything below this offset was delivered and acknowledged, or filtered out.
    pub(super) fn committed(&self, queue: QueueId) -> QueueOffset {
        let progress = self.of(queue);
        if progress.in_flight == 0 {
            return progress.next;
        }
        let first = self.in_flight.first_of(queue).expect("something is in flight");
        assert!(first < progress.next, "{first} in flight, but next is {}", progress.next);
        first
    }
}

/// All consumer groups on all topics.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    map: BTreeMap<(ConsumerGroupId, TopicId), Subscription>,
    /// When the next delivery of each subscription ends, earliest first.
    next_due: BTreeSet<(Timestamp, ConsumerGroupId, TopicId)>,
    clients: Clients,
    /// Deliveries in flight, in all.
    in_flight: usize,
}

impl Subscriptions {
    pub(super) fn load(kv: &dyn Kv) -> Result<Self, kv::Error> {
        let mut all = Self::default();
        kv::progress::load(kv, |(group, topic, queue), next| {
            all.set_next(group, topic, queue, next);
            Ok(())
        })?;
        kv::reset::load(kv, |(group, topic, queue), reset| {
            all.put_reset(group, topic, queue, reset);
            Ok(())
        })?;
        kv::in_flight::load(kv, |place, delivery, client| {
            let next = all.get(place.group, place.topic).map(|s| s.of(place.queue).next);
            if next.is_none_or(|next| next <= place.offset) {
                return Err("the offset is not below the progress");
            }
            let client = all.clients.take(&client);
            all.put(&place, Record { delivery, client });
            all.clients.give_back(client);
            Ok(())
        })?;
        Ok(all)
    }

    pub(super) fn get(&self, group: ConsumerGroupId, topic: TopicId) -> Option<&Subscription> {
        self.map.get(&(group, topic))
    }

    pub(super) fn next(
        &self,
        group: ConsumerGroupId,
        topic: TopicId,
        queue: QueueId,
    ) -> QueueOffset {
        self.get(group, topic).map(|s| s.of(queue).next).unwrap_or_default()
    }

    /// By consumer group and topic.
    pub(super) fn iter(&self) -> impl Iterator<Item = ((ConsumerGroupId, TopicId), &Subscription)> {
        self.map.iter().map(|(key, subscription)| (*key, subscription))
    }

    /// Of one consumer group, by topic.
    pub(super) fn of_group(
        &self,
        group: ConsumerGroupId,
    ) -> impl Iterator<Item = (TopicId, &Subscription)> {
        let topics = (group, TopicId(0))..=(group, TopicId(u32::MAX));
        self.map.range(topics).map(|((_, topic), subscription)| (*topic, subscription))
    }

    /// Subscriptions with a delivery that ends at `until` or before.
    pub(super) fn due(
        &self,
        until: Timestamp,
    ) -> impl Iterator<Item = ((ConsumerGroupId, TopicId), &Subscription)> {
        let ended = ..=(until, ConsumerGroupId(u32::MAX), TopicId(u32::MAX));
        self.next_due
            .range(ended)
            .map(|(_, group, topic)| ((*group, *topic), &self.map[&(*group, *topic)]))
    }

    /// Consumer groups that have anything to do with a topic, ascending. Looks at everything.
    pub(super) fn groups_of(&self, topic: TopicId) -> Vec<ConsumerGroupId> {
        let found = self.map.keys().filter(|(_, of)| *of == topic);
        found.map(|(group, _)| *group).collect()
    }

    /// Forgets everything that a consumer group has to do with a topic.
    pub(super) fn end(&mut self, group: ConsumerGroupId, topic: TopicId) {
        let Some(gone) = self.map.remove(&(group, topic)) else { return };
        if let Some(due) = gone.in_flight.next_due() {
            self.next_due.remove(&(due, group, topic));
        }
        for (_, record) in gone.in_flight.records() {
            self.clients.give_back(record.client);
            self.in_flight -= 1;
        }
    }

    /// The earliest end of a delivery.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.next_due.first().map(|(due, ..)| *due)
    }

    pub(super) fn client(&self, slot: ClientSlot) -> &ClientId {
        self.clients.id(slot)
    }

    pub(super) fn find_client(&self, id: &ClientId) -> Option<ClientSlot> {
        self.clients.find(id)
    }

    /// How many more deliveries the queue can have in flight.
    pub(super) fn room(&self, group: ConsumerGroupId, topic: TopicId, queue: QueueId) -> usize {
        let held = self.get(group, topic).map_or(0, |s| s.of(queue).in_flight);
        let in_queue = limits::IN_FLIGHT_PER_QUEUE.saturating_sub(held) as usize;
        in_queue.min(limits::IN_FLIGHT.saturating_sub(self.in_flight))
    }

    /// Moves a consumer group ahead in a queue.
    pub(super) fn set_next(
        &mut self,
        group: ConsumerGroupId,
        topic: TopicId,
        queue: QueueId,
        next: QueueOffset,
    ) {
        let progress = self.map.entry((group, topic)).or_default().of_mut(queue);
        assert!(progress.next <= next, "progress went back from {} to {next}", progress.next);
        progress.next = next;
        progress.known = true;
    }

    /// The next offset of a consumer group, and whether it has ever been set.
    pub(super) fn stands(
        &self,
        group: ConsumerGroupId,
        topic: TopicId,
        queue: QueueId,
    ) -> (QueueOffset, bool) {
        let progress = self.get(group, topic).map(|s| s.of(queue)).unwrap_or_default();
        (progress.next, progress.known)
    }

    /// The latest reset of a queue.
    pub(super) fn reset(
        &self,
        group: ConsumerGroupId,
        topic: TopicId,
        queue: QueueId,
    ) -> Option<Reset> {
        self.get(group, topic)?.resets.get(&queue).copied()
    }

    /// Deliveries named below this are from before the latest reset of the queue.
    pub(super) fn reset_id(&self, group: ConsumerGroupId, topic: TopicId, queue: QueueId) -> u64 {
        self.reset(group, topic, queue).map_or(0, |reset| reset.id)
    }

    /// Remembers a reset, or what became of it.
    pub(super) fn put_reset(
        &mut self,
        group: ConsumerGroupId,
        topic: TopicId,
        queue: QueueId,
        reset: Reset,
    ) {
        self.map.entry((group, topic)).or_default().resets.insert(queue, reset);
    }

    /// Moves a consumer group anywhere in a queue that it holds nothing of.
    pub(super) fn reset_to(
        &mut self,
        group: ConsumerGroupId,
        topic: TopicId,
        queue: QueueId,
        reset: Reset,
    ) {
        let progress = self.map.entry((group, topic)).or_default().of_mut(queue);
        assert_eq!(progress.in_flight, 0, "what was in flight has ended");
        (progress.next, progress.known) = (reset.to, true);
        self.put_reset(group, topic, queue, reset);
    }

    /// The slot of a client that is about to be given messages. It is kept until it is let go of.
    pub(super) fn hold_client(&mut self, client: &ClientId) -> ClientSlot {
        self.clients.take(client)
    }

    pub(super) fn let_go_of_client(&mut self, client: ClientSlot) {
        self.clients.give_back(client);
    }

    /// Puts a delivery in flight, in place of the former one of the same message.
    pub(super) fn put(&mut self, place: &Place, record: Record) {
        self.clients.take_again(record.client);
        let old = self.change(place, |s| s.in_flight.put(place.queue, place.offset, record));
        if record.delivery.attempt == 0 {
            self.count_waiting(place, 1);
        }
        match old {
            Some(old) => self.forget(place, &old),
            None => self.count(place, 1),
        }
    }

    /// Ends a delivery. Whether there was one.
    pub(super) fn remove(&mut self, place: &Place) -> bool {
        let old = self.change(place, |s| s.in_flight.remove(place.queue, place.offset));
        if let Some(old) = old {
            self.forget(place, &old);
            self.count(place, -1);
        }
        old.is_some()
    }

    fn forget(&mut self, place: &Place, old: &Record) {
        self.clients.give_back(old.client);
        if old.delivery.attempt == 0 {
            self.count_waiting(place, -1);
        }
    }

    pub(super) fn find(&self, place: &Place) -> Option<Record> {
        self.get(place.group, place.topic)?.in_flight.get(place.queue, place.offset).copied()
    }

    /// Changes a delivery that is in flight, and returns what it is now.
    pub(super) fn update(&mut self, place: &Place, f: impl FnOnce(&mut Delivery)) -> Delivery {
        let mut record = self.find(place).expect("the delivery is in flight");
        f(&mut record.delivery);
        self.put(place, record);
        record.delivery
    }

    /// Runs `f` and keeps the order by next end right.
    fn change<R>(&mut self, place: &Place, f: impl FnOnce(&mut Subscription) -> R) -> R {
        let key = (place.group, place.topic);
        let subscription = self.map.entry(key).or_default();
        let before = subscription.in_flight.next_due();
        let result = f(subscription);
        let after = subscription.in_flight.next_due();
        if before != after {
            before.map(|due| self.next_due.remove(&(due, key.0, key.1)));
            after.map(|due| self.next_due.insert((due, key.0, key.1)));
        }
        result
    }

    fn count_waiting(&mut self, place: &Place, more: i8) {
        let subscription = self.map.get_mut(&(place.group, place.topic)).expect("it was changed");
        let waiting = &mut subscription.of_mut(place.queue).waiting;
        *waiting = waiting.checked_add_signed(more.into()).expect("counted");
    }

    fn count(&mut self, place: &Place, more: i8) {
        let subscription = self.map.get_mut(&(place.group, place.topic)).expect("it was changed");
        let progress = subscription.of_mut(place.queue);
        debug_assert!(place.offset < progress.next, "{} is not below next", place.offset);
        progress.in_flight = progress.in_flight.checked_add_signed(more.into()).expect("counted");
        self.in_flight = self.in_flight.checked_add_signed(more.into()).expect("counted");
    }
}
