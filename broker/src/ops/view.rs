//! What operations read of the replicated state of this node, and how they hear of its changes.

mod retention;
mod timers;

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use commitlog::Bug;
use prost::Message as _;
use proto::{ClientId, ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic, v2};
use raft::{LogIndex, LogOffset, Reader};
use tokio::sync::{broadcast, watch};

use super::{
    alarm::Alarm,
    pick::{Entry, Overdue, Queues, Wish},
    pick_fifo::{Held, OrderedQueues, Ready},
};
use crate::{
    Error,
    command::{Effect, GroupConfig, Limited, Quota, Rejection, SettingOf, TopicConfig},
    delivery::{Place, Readers, Waiting},
    kv,
    kv::reset::Reset,
    state::{
        Backlog, Consumption, DueDelivery, Holding, InFlightAt, QueueEntry, QueueProgress,
        SharedState, State, TopicState, Transaction, Unresolved,
    },
};

pub use retention::Head;

/// Changes of consumer groups that an access point may be behind by.
const GROUP_CHANGES_KEPT: usize = 256;

/// What happens in the state, for those who wait for it. Told by `apply`, on its thread.
#[derive(Debug)]
pub struct Signals {
    waiting: Arc<Waiting>,
    readers: Arc<Readers>,
    topics: watch::Sender<u64>,
    groups: broadcast::Sender<ConsumerGroup>,
    live_settings: watch::Sender<u64>,
    checks: Alarm,
    timers: Alarm,
}

impl Signals {
    /// Calls the consumers of `waiting` and `readers`.
    pub fn new(waiting: Arc<Waiting>, readers: Arc<Readers>) -> Arc<Self> {
        let topics = watch::Sender::new(0);
        let groups = broadcast::Sender::new(GROUP_CHANGES_KEPT);
        let live_settings = watch::Sender::new(0);
        let (checks, timers) = (Alarm::default(), Alarm::default());
        Arc::new(Signals { waiting, readers, topics, groups, live_settings, checks, timers })
    }

    /// Passes on what an apply did.
    pub fn tell(&self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Appended { topic, queue } => {
                    self.waiting.appended(topic);
                    self.readers.call(topic, *queue);
                }
                Effect::Visible { group, topic, at, .. } => {
                    let place = Place { group: group.clone(), topic: topic.clone() };
                    self.waiting.due_at(&place, *at);
                }
                Effect::Reset { group, topic, queue, at } => {
                    let place = Place { group: group.clone(), topic: topic.clone() };
                    self.waiting.due_at(&place, *at);
                    self.readers.call(topic, *queue);
                }
                Effect::Orphaned { at } => self.checks.due(*at),
                Effect::Scheduled { due } => self.timers.due(*due),
                Effect::TopicChanged { topic } => {
                    self.topics.send_modify(|count| *count += 1);
                    // It may be gone, or not be for reading any more.
                    self.waiting.appended(topic);
                }
                // Nobody may be listening.
                Effect::GroupChanged { group } => drop(self.groups.send(group.clone())),
                Effect::LiveSettingChanged => {
                    self.live_settings.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

/// The state of this node and the log that it points into.
#[derive(Debug, Clone)]
pub struct View {
    state: SharedState,
    log: Reader,
    signals: Arc<Signals>,
}

impl View {
    /// Reads `state`, whose positions are those of `log`, and whose changes `signals` hears of.
    pub fn new(state: SharedState, log: Reader, signals: Arc<Signals>) -> Self {
        View { state, log, signals }
    }

    /// The topic's settings, if it exists as far as this node knows.
    pub fn topic(&self, topic: &Topic) -> Option<TopicConfig> {
        self.state.read().topic(topic).map(|topic| topic.config().clone())
    }

    /// All topics, by creation.
    pub fn topics(&self) -> Vec<(Topic, TopicConfig)> {
        let state = self.state.read();
        state.topics().map(|topic| (topic.name().clone(), topic.config().clone())).collect()
    }

    /// Where each queue of the topic begins and ends.
    pub fn queue_ends(&self, topic: &Topic) -> Vec<(QueueId, QueueOffset, QueueOffset)> {
        let state = self.state.read();
        let Some(topic) = state.topic(topic) else { return Vec::new() };
        (0..topic.readable())
            .filter_map(|id| {
                let offsets = topic.offsets(QueueId(id))?;
                Some((QueueId(id), offsets.start, offsets.end))
            })
            .collect()
    }

    /// Changes whenever a topic does.
    pub fn topics_changed(&self) -> watch::Receiver<u64> {
        self.signals.topics.subscribe()
    }

    /// Topics whose last queue can be closed.
    pub fn closable(&self) -> Vec<Topic> {
        self.state.read().closable().cloned().collect()
    }

    /// Whether any topic has queues that it is to lose.
    pub fn is_shrinking(&self) -> bool {
        self.state.read().is_shrinking()
    }

    /// Every quota that bounds anything.
    pub fn quotas(&self) -> Vec<(Limited, Quota)> {
        self.state.read().quotas().map(|(of, quota)| (of.clone(), *quota)).collect()
    }

    /// Those among `of` that have a quota.
    pub fn quotas_of(&self, of: impl IntoIterator<Item = Limited>) -> Vec<(Limited, Quota)> {
        let state = self.state.read();
        let found = of.into_iter().map(|of| (state.quota(&of), of));
        found.filter(|(quota, _)| *quota != Quota::default()).map(|(q, of)| (of, q)).collect()
    }

    /// Whether a consumer group may consume. One that does not exist may.
    pub fn is_enabled(&self, group: &ConsumerGroup) -> bool {
        self.state.read().is_enabled(group)
    }

    /// The settings of a consumer group, if it exists.
    pub fn consumer_group(&self, group: &ConsumerGroup) -> Option<GroupConfig> {
        self.state.read().group(group).cloned()
    }

    /// Under which version something was set; 0 if nobody did.
    pub fn setting_version(&self, of: &SettingOf) -> u64 {
        self.state.read().setting_version(of)
    }

    /// What was set while brokers ran, and not taken back.
    pub fn live_settings(&self) -> BTreeMap<String, String> {
        let state = self.state.read();
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        state.live_settings().map(owned).collect()
    }

    /// Under which version a setting was set or taken back while brokers ran; 0 if it never was.
    pub fn live_setting_version(&self, key: &str) -> u64 {
        self.state.read().live_setting_version(key)
    }

    /// Changes whenever one of them does, but for those that come with a snapshot.
    pub fn live_settings_changed(&self) -> watch::Receiver<u64> {
        self.signals.live_settings.subscribe()
    }

    /// Deliveries of a group that are not acknowledged, up to one more than `most`; `None` when
    /// there is no such group.
    pub fn in_flight(
        &self,
        group: &ConsumerGroup,
        topic: Option<&Topic>,
        most: usize,
    ) -> Option<Vec<InFlightAt>> {
        self.state.read().in_flight(group, topic, most)
    }

    /// All consumer groups, by creation.
    pub fn consumer_groups(&self) -> Vec<(ConsumerGroup, GroupConfig)> {
        let state = self.state.read();
        state.groups().map(|(name, config)| (name.clone(), config.clone())).collect()
    }

    /// Names each consumer group that changes.
    pub fn group_changes(&self) -> broadcast::Receiver<ConsumerGroup> {
        self.signals.groups.subscribe()
    }

    /// Where a consumer group stands, in one topic or in every one that it was given anything of.
    pub fn progress(
        &self,
        group: &ConsumerGroup,
        topic: Option<&Topic>,
    ) -> Vec<(Topic, QueueProgress)> {
        let state = self.state.read();
        match topic {
            None => state.all_progress(group).map(|(topic, at)| (topic.clone(), at)).collect(),
            Some(topic) => {
                let queues = state.topic(topic).map_or(0, TopicState::readable);
                (0..queues)
                    .filter_map(|id| state.progress(group, topic, QueueId(id)))
                    .map(|progress| (topic.clone(), progress))
                    .collect()
            }
        }
    }

    /// Whether a receive call would find anything at `now`.
    pub fn has_anything(&self, group: &ConsumerGroup, topic: &Topic, now: Timestamp) -> bool {
        self.state.read().has_anything(group, topic, None, now)
    }

    /// When the next delivery of the group on the topic ends.
    pub fn next_due(&self, group: &ConsumerGroup, topic: &Topic) -> Option<Timestamp> {
        self.state.read().next_due(group, topic)
    }

    /// Clients with auto-renewed deliveries that end until then, and are not in doubt, see
    /// [`State::holdings`].
    pub fn holdings(
        &self,
        until: Timestamp,
        most: usize,
        trusted_since: impl Fn(&ClientId) -> Timestamp,
    ) -> Vec<Holding> {
        self.state.read().holdings(until, most, trusted_since)
    }

    /// When a message entered its queue, in log time.
    pub fn visible_at(
        &self,
        topic: &Topic,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<Timestamp>, Error> {
        let entry = self.state.read().entry(topic, queue, offset).map_err(|error| store(&error))?;
        Ok(entry.map(|entry| entry.visible))
    }

    /// Whether a receive call of this attempt would get what an earlier one got.
    pub fn is_repeated(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        client: &ClientId,
        attempt_id: u64,
    ) -> bool {
        self.state.read().is_repeated(group, topic, client, attempt_id)
    }

    /// How far the dead letters of a queue were put back.
    pub fn redriven_to(&self, topic: &Topic, queue: QueueId) -> QueueOffset {
        self.state.read().redriven_to(topic, queue)
    }

    /// Log time: the stamp of the last entry applied here.
    pub fn log_time(&self) -> Timestamp {
        self.state.read().log_time()
    }

    /// A transaction that has not ended.
    pub fn transaction(&self, number: u64) -> Option<Transaction> {
        self.state.read().transaction(number)
    }

    /// The topic of a transaction that has not ended, or ended lately.
    pub fn transaction_topic(&self, number: u64) -> Option<Topic> {
        self.state.read().transaction_topic(number).cloned()
    }

    /// Transactions after a number that have not ended; see [`State::transactions`].
    pub fn transactions(
        &self,
        topic: Option<&Topic>,
        parked_only: bool,
        after: u64,
        most: usize,
    ) -> Vec<Transaction> {
        self.state.read().transactions(topic, parked_only, after, most)
    }

    /// How many transactions have not ended.
    pub fn unresolved(&self) -> Unresolved {
        self.state.read().unresolved()
    }

    /// Transactions of wanted topics whose producers are to be asked at `now`.
    pub fn checks_due(
        &self,
        now: Timestamp,
        most: usize,
        wanted: impl Fn(&Topic) -> bool,
    ) -> Vec<Transaction> {
        self.state.read().checks_due(now, most, wanted)
    }

    /// When the next producer is to be asked, for a wanted topic.
    pub fn next_check(&self, wanted: impl Fn(&Topic) -> bool) -> Option<Timestamp> {
        self.state.read().next_check(wanted)
    }

    /// Rings when a check is due earlier than was known.
    pub fn check_alarm(&self) -> &Alarm {
        &self.signals.checks
    }

    /// Looks at the queues of a topic for a group, `None` where there is no such topic. Short:
    /// nothing is applied meanwhile.
    pub(super) fn plan<T>(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        look: impl FnOnce(&Looking<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let state = self.state.read();
        if state.topic(topic).is_none() {
            return Ok(None);
        }
        look(&Looking { state: &state, group, topic }).map(Some)
    }

    /// The message at a place that a delivery named.
    pub fn message(&self, position: LogOffset, len: u32) -> Result<v2::Message, Error> {
        let unreadable = |reason: String| Error::Unreadable { position: position.0, len, reason };
        let bytes = self.log.bytes(position, len).map_err(|error| unreadable(error.to_string()))?;
        v2::Message::decode(bytes).map_err(|error| unreadable(error.to_string()))
    }

    /// Index of the last entry applied, and the digest of the state then.
    pub fn digest(&self) -> (u64, String) {
        let state = self.state.read();
        let applied = state.applied().map_or(0, |log_id| log_id.index.0);
        (applied, state.digest().to_string())
    }

    /// The digest as of the mark in this entry.
    pub fn digest_at(&self, index: LogIndex) -> Option<String> {
        Some(self.state.read().digest_at(index)?.to_string())
    }

    /// Who waits at the ends of queues.
    pub(super) fn readers(&self) -> Arc<Readers> {
        Arc::clone(&self.signals.readers)
    }

    /// Whether the group may consume: unless an administrator has stopped it.
    pub fn may_consume(&self, group: &ConsumerGroup) -> bool {
        self.state.read().may_consume(group)
    }

    /// How many pulls wait at the ends of queues.
    pub fn pulls_waiting(&self) -> usize {
        self.signals.readers.len()
    }

    /// The offsets that a queue holds.
    pub fn queue(&self, topic: &Topic, queue: QueueId) -> Result<Range<QueueOffset>, Error> {
        queue_in(&self.state.read(), topic, queue)
    }

    /// The offsets that a queue holds, and up to `most` entries from an offset on.
    pub fn stretch(
        &self,
        topic: &Topic,
        queue: QueueId,
        from: QueueOffset,
        most: usize,
    ) -> Result<(Range<QueueOffset>, Vec<QueueEntry>), Error> {
        let state = self.state.read();
        let range = queue_in(&state, topic, queue)?;
        if !range.contains(&from) {
            return Ok((range, vec![]));
        }
        let entries = state.scan(topic, queue, from, most).map_err(|error| store(&error))?;
        Ok((range, entries))
    }

    /// The entry at an offset, if the queue holds it.
    pub fn entry(
        &self,
        topic: &Topic,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<QueueEntry>, Error> {
        self.state.read().entry(topic, queue, offset).map_err(|error| store(&error))
    }

    /// The first offset that entered the queue at this time or later; its end when none did.
    pub fn offset_at(
        &self,
        topic: &Topic,
        queue: QueueId,
        time: Timestamp,
    ) -> Result<QueueOffset, Error> {
        let state = self.state.read();
        let range = queue_in(&state, topic, queue)?;
        let found = state.offset_at(topic, queue, time).map_err(|error| store(&error))?;
        Ok(found.unwrap_or(range.end))
    }

    /// Up to `most` messages that have a key with this hash, the latest stretch of the log first.
    pub fn find_by_key(
        &self,
        topic: &Topic,
        hash: u64,
        most: usize,
    ) -> Result<Vec<(QueueId, QueueEntry)>, Error> {
        let state = self.state.read();
        let places = state.find_by_key(topic, hash, most).map_err(|error| store(&error))?;
        let mut found = Vec::with_capacity(places.len());
        for (queue, offset) in places {
            let entry = state.entry(topic, queue, offset).map_err(|error| store(&error))?;
            found.extend(entry.map(|entry| (queue, entry)));
        }
        Ok(found)
    }

    /// What the group has committed in a queue, if anything.
    pub fn committed_offset(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
    ) -> Option<QueueOffset> {
        self.state.read().committed_offset(group, topic, queue)
    }

    /// A reset of the group that no pull has followed yet, and what is committed now.
    pub fn pending_reset(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
    ) -> Option<(Reset, QueueOffset)> {
        let state = self.state.read();
        let reset = state.pending_reset(group, topic, queue)?;
        Some((reset, state.committed_offset(group, topic, queue)?))
    }

    /// What became of a message in every group that consumes its topic.
    pub fn consumptions(
        &self,
        topic: &Topic,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Vec<(ConsumerGroup, Consumption)> {
        let state = self.state.read();
        let all = state.consumptions(topic, queue, offset).into_iter();
        all.map(|(group, consumption)| (group.clone(), consumption)).collect()
    }

    /// What a group has before it at `now`, in one topic or in every one that it consumed.
    pub fn backlog(
        &self,
        group: &ConsumerGroup,
        topic: Option<&Topic>,
        now: Timestamp,
    ) -> Result<Vec<(Topic, Backlog)>, Error> {
        let state = self.state.read();
        let places: Vec<(Topic, QueueId)> = match topic {
            None => {
                state.all_progress(group).map(|(topic, at)| (topic.clone(), at.queue)).collect()
            }
            Some(topic) => {
                let queues = state.topic(topic).map_or(0, TopicState::readable);
                (0..queues).map(|id| (topic.clone(), QueueId(id))).collect()
            }
        };
        // A delivery that has ended for the leader has ended, also if log time is behind.
        let now = now.max(state.log_time());
        let mut found = Vec::with_capacity(places.len());
        for (topic, queue) in places {
            let backlog =
                state.backlog(group, &topic, queue, now).map_err(|error| store(&error))?;
            found.extend(backlog.map(|backlog| (topic, backlog)));
        }
        Ok(found)
    }

    /// Makes what was applied durable, so that the next start has nothing to apply again.
    pub fn flush(&self) -> Result<(), kv::Error> {
        self.state.flush()
    }
}

/// The state while nothing is applied.
pub(super) struct Looking<'a> {
    state: &'a State,
    group: &'a ConsumerGroup,
    topic: &'a Topic,
}

fn queue_in(state: &State, topic: &Topic, queue: QueueId) -> Result<Range<QueueOffset>, Error> {
    let known = state.topic(topic).ok_or_else(|| Error::TopicNotFound(topic.clone()))?;
    let queues = known.readable();
    known.offsets(queue).ok_or(Error::Rejected(Rejection::QueueNotFound { queues }))
}

fn store(error: &kv::Error) -> Error {
    Error::Store { reason: error.to_string() }
}

impl Queues for Looking<'_> {
    fn backlogged(&self, first: QueueId) -> Box<dyn Iterator<Item = QueueId> + '_> {
        let queues = self.state.topic(self.topic).map_or(1, TopicState::readable);
        let first = QueueId(first.0 % queues.max(1));
        Box::new(self.state.backlogged(self.group, self.topic, first))
    }

    fn next(&self, queue: QueueId) -> QueueOffset {
        self.state.next_offset(self.group, self.topic, queue)
    }

    fn entries(&self, queue: QueueId, from: QueueOffset, most: usize) -> Result<Vec<Entry>, Error> {
        let found =
            self.state.scan(self.topic, queue, from, most).map_err(|error| store(&error))?;
        Ok(found.iter().map(Entry::of).collect())
    }

    fn overdue(&self, now: Timestamp, most: usize) -> Result<Vec<Overdue>, Error> {
        let mut overdue = Vec::new();
        let early = Duration::from_millis(if Bug::B16.is_sown() { 500 } else { 0 });
        for due in self.state.due(self.group, self.topic, None, now.plus(early), most) {
            let entry = self
                .state
                .entry(self.topic, due.queue, due.offset)
                .map_err(|error| store(&error))?;
            if let Some(entry) = entry {
                let (queue, delivery) = (due.queue, due.delivery);
                overdue.push(Overdue { queue, entry: Entry::of(&entry), delivery });
            }
        }
        Ok(overdue)
    }
}

impl OrderedQueues for Looking<'_> {
    fn ready(&self, wish: &Wish<'_>, most: usize) -> Result<Vec<Ready>, Error> {
        let heads = self.state.due(self.group, self.topic, None, wish.now, most);
        let ready = |head: DueDelivery| {
            let queue = head.queue;
            let all = match head.block {
                Some(block) => self.state.block_of(self.group, self.topic, queue, block),
                None => vec![head],
            };
            let messages = all.iter().take(wish.messages).map(|due| self.held(due));
            let messages = messages.collect::<Result<Vec<_>, Error>>()?;
            Ok(Ready { queue, block: head.block, whole: messages.len() == all.len(), messages })
        };
        heads.into_iter().map(ready).collect()
    }

    fn is_held(&self, queue: QueueId, block: u64) -> bool {
        !Bug::B17.is_sown() && self.state.is_held(self.group, self.topic, queue, block)
    }
}

impl Looking<'_> {
    fn held(&self, due: &DueDelivery) -> Result<Held, Error> {
        let entry = self.state.entry(self.topic, due.queue, due.offset);
        let entry =
            entry.map_err(|error| store(&error))?.expect("the queue holds what is in flight");
        let config = self.state.group(self.group);
        Ok(Held {
            entry: Entry::of(&entry),
            delivery: due.delivery,
            exhausted: config.is_some_and(|config| config.is_exhausted(due.attempt)),
        })
    }
}
