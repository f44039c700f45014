//! What the leader asks of the state.

use proto::{ClientId, ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic};

use super::subscriptions::Subscription;
use super::{QueueEntry, State, TopicState};
use crate::command::GroupConfig;
use crate::kv::{self, ConsumerGroupId, TopicId};

/// Where a consumer group stands in a queue. `committed <= next <= max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueProgress {
    pub queue: QueueId,
    pub min: QueueOffset,
    /// Where the queue ends.
    pub max: QueueOffset,
    /// The first offset that was neither delivered nor filtered out.
    pub next: QueueOffset,
    /// Everything below was acknowledged or filtered out.
    pub committed: QueueOffset,
    /// Deliveries that are not acknowledged.
    pub in_flight: u32,
    /// Messages below `next` that wait until their message group is free.
    pub waiting: u32,
}

impl QueueProgress {
    /// Messages that are not consumed yet, filtered ones among them.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.max.0 - self.next.0 + u64::from(self.in_flight) + u64::from(self.waiting)
    }
}

/// A delivery whose invisible duration has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueDelivery {
    pub queue: QueueId,
    pub offset: QueueOffset,
    pub delivery: u64,
    /// Of the delivery that has ended; the next one is one more. 0 for a message that waits.
    pub attempt: u32,
    pub due: Timestamp,
    /// Hash of its message group, where order matters.
    pub block: Option<u64>,
}

fn due_delivery(
    (queue, offset, record): (QueueId, QueueOffset, &super::in_flight::Record),
) -> DueDelivery {
    let delivery = &record.delivery;
    DueDelivery {
        queue,
        offset,
        delivery: delivery.id,
        attempt: delivery.attempt,
        due: delivery.due,
        block: delivery.order.map(|order| order.block),
    }
}

/// A client holds auto-renewed deliveries in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub group: ConsumerGroup,
    pub topic: Topic,
    pub queue: QueueId,
    pub client: ClientId,
    /// When the first of them ends.
    pub due: Timestamp,
    /// As given: what was handed out before, and never renewed, is in doubt.
    pub trusted_since: Timestamp,
}

impl State {
    /// A topic, if it exists.
    #[must_use]
    pub fn topic(&self, topic: &Topic) -> Option<&TopicState> {
        self.topics.find(topic).map(|(_, state)| state)
    }

    /// All topics, in the order of creation.
    pub fn topics(&self) -> impl Iterator<Item = &TopicState> {
        self.topics.iter()
    }

    /// Grows with every change of a topic.
    #[must_use]
    pub fn topics_version(&self) -> u64 {
        self.topics_version
    }

    /// The settings of a consumer group, if it exists.
    #[must_use]
    pub fn group(&self, group: &ConsumerGroup) -> Option<&GroupConfig> {
        self.groups.id(group).map(|id| self.groups.config(id))
    }

    /// Whether a consumer group may consume. One that does not exist may.
    #[must_use]
    pub fn is_enabled(&self, group: &ConsumerGroup) -> bool {
        self.groups.id(group).is_none_or(|id| self.groups.standing(id).enabled)
    }

    /// All consumer groups, in the order of creation.
    pub fn groups(&self) -> impl Iterator<Item = (&ConsumerGroup, &GroupConfig)> {
        self.groups.iter().map(|(_, name, config)| (name, config))
    }

    /// Messages of a queue from `from` on, at most `limit`; none where there is no such topic or
    /// queue. Long scans cost about 30 ns a message, and less for the latest ones.
    ///
    /// # Errors
    /// The store failed.
    pub fn scan(
        &self,
        topic: &Topic,
        queue: QueueId,
        from: QueueOffset,
        limit: usize,
    ) -> Result<Vec<QueueEntry>, kv::Error> {
        match self.topics.id(topic) {
            Some(id) => self.entries(id, queue, from, limit),
            None => Ok(vec![]),
        }
    }

    /// The message at an offset, if the queue holds it.
    ///
    /// # Errors
    /// The store failed.
    pub fn entry(
        &self,
        topic: &Topic,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<QueueEntry>, kv::Error> {
        let found = self.scan(topic, queue, offset, 1)?;
        Ok(found.first().copied().filter(|entry| entry.offset == offset))
    }

    /// The first offset that entered the queue at `time` or later; the queue's end when none did.
    /// `None` when there is no such topic or queue.
    ///
    /// # Errors
    /// The store failed.
    pub fn offset_at(
        &self,
        topic: &Topic,
        queue: QueueId,
        time: Timestamp,
    ) -> Result<Option<QueueOffset>, kv::Error> {
        let Some((id, state)) = self.topics.find(topic) else {
            return Ok(None);
        };
        let Some(offsets) = state.offsets(queue) else {
            return Ok(None);
        };
        // Times never decrease along a queue.
        let (mut low, mut high) = (offsets.start.0, offsets.end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entries_at(id, queue, &[QueueOffset(middle)])?[0];
            match entry.visible < time {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(Some(QueueOffset(low)))
    }

    /// Messages of a topic that are kept and carry a key with this hash, the newest stretch of the log first, at
    /// most `limit`. Hashes can collide: compare the keys.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_by_key(
        &self,
        topic: &Topic,
        key_hash: u64,
        limit: usize,
    ) -> Result<Vec<(QueueId, QueueOffset)>, kv::Error> {
        match self.topics.id(topic) {
            Some(id) => {
                let kept = |queue, offset| self.topics.holds(id, queue, offset);
                self.keys.find(&*self.kv, id, key_hash, limit, &kept)
            }
            None => Ok(vec![]),
        }
    }

    /// The first offset that is kept and that the consumer group was not given yet. 0 for a queue
    /// that is not known.
    #[must_use]
    pub fn next_offset(&self, group: &ConsumerGroup, topic: &Topic, queue: QueueId) -> QueueOffset {
        let min = self.topic(topic).and_then(|t| t.head(queue)).map_or(QueueOffset(0), |h| h.min);
        match self.ids(group, topic) {
            Some((group, topic)) => self.subscriptions.next(group, topic, queue).max(min),
            None => min,
        }
    }

    /// Where the consumer group stands in a queue; `None` when there is no such topic or queue.
    /// A consumer group that is not known stands at the beginning.
    #[must_use]
    pub fn progress(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
    ) -> Option<QueueProgress> {
        let (id, state) = self.topics.find(topic)?;
        let subscription = self.groups.id(group).and_then(|g| self.subscriptions.get(g, id));
        progress_in(state, subscription, queue)
    }

    /// The same for every queue of every topic that the consumer group was given anything of.
    pub fn all_progress(
        &self,
        group: &ConsumerGroup,
    ) -> impl Iterator<Item = (&Topic, QueueProgress)> {
        let group = self.groups.id(group);
        let subscriptions = group.into_iter().flat_map(|g| self.subscriptions.of_group(g));
        subscriptions.flat_map(|(topic, subscription)| {
            let topic = self.topics.get(topic);
            (0..topic.readable()).filter_map(move |queue| {
                let progress = progress_in(topic, Some(subscription), QueueId(queue))?;
                Some((topic.name(), progress))
            })
        })
    }

    /// Queues that hold messages which the consumer group was not given yet, and which it can be
    /// given: see [`super::limits::IN_FLIGHT_PER_QUEUE`]. Ascending from `from`, then from 0.
    pub fn backlogged(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        from: QueueId,
    ) -> impl Iterator<Item = QueueId> {
        let found = self.topics.find(topic);
        let group = self.groups.id(group);
        found.into_iter().flat_map(move |(id, state)| {
            let queues = state.readable();
            let start = if from.0 < queues { from.0 } else { 0 };
            let all = (start..queues).chain(0..start).map(QueueId);
            all.filter(move |queue| self.has_fresh(group, id, state, *queue))
        })
    }

    /// Whether a pop would find anything at `now`, in one queue or in any of the topic.
    #[must_use]
    pub fn has_anything(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: Option<QueueId>,
        now: Timestamp,
    ) -> bool {
        let fresh = match (queue, self.topics.find(topic)) {
            (Some(queue), Some((id, state))) => {
                self.has_fresh(self.groups.id(group), id, state, queue)
            }
            (None, Some(_)) => self.backlogged(group, topic, QueueId(0)).next().is_some(),
            (_, None) => false,
        };
        fresh || self.due_in(group, topic, now).any(|due| queue.is_none_or(|q| q == due.queue))
    }

    /// Deliveries that have ended at `now`, the longest ended first, at most `limit`; of one queue
    /// or of any. They stay until they are delivered again.
    #[must_use]
    pub fn due(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: Option<QueueId>,
        now: Timestamp,
        limit: usize,
    ) -> Vec<DueDelivery> {
        let due = self.due_in(group, topic, now);
        due.filter(|due| queue.is_none_or(|q| q == due.queue)).take(limit).collect()
    }

    /// When the next delivery of a consumer group on a topic ends; in the past when there is one
    /// to be delivered again.
    #[must_use]
    pub fn next_due(&self, group: &ConsumerGroup, topic: &Topic) -> Option<Timestamp> {
        let (group, topic) = self.ids(group, topic)?;
        self.subscriptions.get(group, topic)?.in_flight.next_due()
    }

    /// The messages of a block that are not acknowledged, in order: what is delivered, and what
    /// waits for it.
    #[must_use]
    pub fn block_of(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
        block: u64,
    ) -> Vec<DueDelivery> {
        let ids = self.ids(group, topic);
        let subscription = ids.and_then(|(group, topic)| self.subscriptions.get(group, topic));
        let Some(subscription) = subscription else { return vec![] };
        let messages = subscription.in_flight.blocks.get(queue, block);
        let messages = messages.into_iter().flat_map(super::blocks::Block::messages);
        let held = messages
            .filter_map(|offset| Some((queue, offset, subscription.in_flight.get(queue, offset)?)));
        held.map(due_delivery).collect()
    }

    /// Whether a message of the block is in flight, or waits.
    #[must_use]
    pub fn is_held(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
        block: u64,
    ) -> bool {
        let ids = self.ids(group, topic);
        let subscription = ids.and_then(|(group, topic)| self.subscriptions.get(group, topic));
        subscription.is_some_and(|s| s.in_flight.blocks.get(queue, block).is_some())
    }

    /// Whether a receive call of this attempt would get what an earlier one got.
    #[must_use]
    pub fn is_repeated(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        client: &ClientId,
        attempt_id: u64,
    ) -> bool {
        let slot = self.subscriptions.find_client(client);
        let ids = self.ids(group, topic);
        let subscription = ids.and_then(|(group, topic)| self.subscriptions.get(group, topic));
        let (Some(slot), Some(subscription)) = (slot, subscription) else { return false };
        subscription.in_flight.of_attempt(attempt_id, slot).next().is_some()
    }

    /// Every consumer group and topic with a delivery that has ended at `now`.
    pub fn all_due(&self, now: Timestamp) -> impl Iterator<Item = (&ConsumerGroup, &Topic)> {
        self.subscriptions
            .due(now)
            .map(|((group, topic), _)| (self.groups.name(group), self.topics.get(topic).name()))
    }

    /// The earliest end of any delivery in flight.
    #[must_use]
    pub fn earliest_due(&self) -> Option<Timestamp> {
        self.subscriptions.next_due()
    }

    /// Clients and queues with auto-renewed deliveries that end at `until` or before: what to
    /// propose a `Renew` for, if the client lives. At most `limit`. Deliveries that may never have
    /// reached their client are left out; `trusted_since` says for each client from when on its
    /// deliveries are known to have been answered.
    #[must_use]
    pub fn holdings(
        &self,
        until: Timestamp,
        limit: usize,
        trusted_since: impl Fn(&ClientId) -> Timestamp,
    ) -> Vec<Holding> {
        let mut found = std::collections::BTreeMap::new();
        for ((group, topic), subscription) in self.subscriptions.iter() {
            for (queue, _, record) in subscription.in_flight.ending(until) {
                if found.len() == limit {
                    break;
                }
                let delivery = &record.delivery;
                let longest = delivery.since.plus(proto::limits::AUTO_RENEW_TOTAL);
                if !delivery.auto_renew || delivery.due >= longest {
                    continue;
                }
                let trusted = trusted_since(self.subscriptions.client(record.client));
                if !delivery.is_doubtful(trusted) {
                    // The first one seen is the one that ends first.
                    let place = (group, topic, queue, record.client);
                    found.entry(place).or_insert((delivery.due, trusted));
                }
            }
        }
        let holding = |((group, topic, queue, client), (due, trusted_since))| Holding {
            group: self.groups.name(group).clone(),
            topic: self.topics.get(topic).name().clone(),
            queue,
            client: self.subscriptions.client(client).clone(),
            due,
            trusted_since,
        };
        found.into_iter().map(holding).collect()
    }

    fn ids(&self, group: &ConsumerGroup, topic: &Topic) -> Option<(ConsumerGroupId, TopicId)> {
        Some((self.groups.id(group)?, self.topics.id(topic)?))
    }

    fn due_in(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        now: Timestamp,
    ) -> impl Iterator<Item = DueDelivery> {
        let ids = self.ids(group, topic);
        let subscription = ids.and_then(|(group, topic)| self.subscriptions.get(group, topic));
        let due = subscription.into_iter().flat_map(move |s| s.in_flight.due(now));
        due.map(due_delivery)
    }

    fn has_fresh(
        &self,
        group: Option<ConsumerGroupId>,
        topic: TopicId,
        state: &TopicState,
        queue: QueueId,
    ) -> bool {
        let Some(head) = state.head(queue) else {
            return false;
        };
        match group {
            Some(group) => {
                self.subscriptions.next(group, topic, queue).max(head.min) < head.max
                    && self.subscriptions.room(group, topic, queue) > 0
            }
            None => head.min < head.max,
        }
    }
}

fn progress_in(
    topic: &TopicState,
    subscription: Option<&Subscription>,
    queue: QueueId,
) -> Option<QueueProgress> {
    let head = topic.head(queue)?;
    let progress = subscription.map(|s| s.of(queue)).unwrap_or_default();
    // What is not kept any more counts as consumed.
    let next = progress.next.max(head.min);
    let committed = subscription.map_or(head.min, |s| s.committed(queue)).max(head.min);
    assert!(
        committed <= next && next <= head.max,
        "{committed} <= {next} <= {} must hold",
        head.max,
    );
    Some(QueueProgress {
        queue,
        min: head.min,
        max: head.max,
        next,
        committed,
        in_flight: progress.in_flight - progress.waiting,
        waiting: progress.waiting,
    })
}
