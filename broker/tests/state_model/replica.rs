//! A state that applies a log, in any batches, and goes through restarts and crashes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker::kv::{Kv, Memory, Rocks, RocksConfig};
use broker::state::{Digest, State};
use proptest::prelude::*;
use proto::{QueueId, QueueOffset, Timestamp};
use raft::Payload;

use crate::retention::SEGMENT;
use crate::steps::{GROUPS, Log, QUEUES, TOPICS, group, topic};

/// What happens to a replica on its way through the log.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Applies so many entries in one call.
    Apply(usize),
    /// Makes durable what was applied.
    Flush,
    /// Stops and starts again.
    Restart,
    /// Forgets what was not durable. A replica on the disk stops and starts instead.
    Crash,
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..20_usize).prop_map(Event::Apply),
        2 => Just(Event::Flush),
        1 => Just(Event::Restart),
        1 => Just(Event::Crash),
    ]
}

enum Store {
    Memory(Arc<Memory>),
    Disk(PathBuf),
}

pub(crate) struct Replica<'a> {
    pub(crate) log: &'a Log,
    store: Store,
    /// `None` only while it is restarted.
    state: Option<State>,
}

impl<'a> Replica<'a> {
    pub(crate) fn in_memory(log: &'a Log) -> Self {
        Self::over(log, Store::Memory(Arc::new(Memory::new())))
    }

    pub(crate) fn on_disk(log: &'a Log, path: &Path) -> Self {
        Self::over(log, Store::Disk(path.to_owned()))
    }

    fn over(log: &'a Log, store: Store) -> Self {
        let mut replica = Self { log, store, state: None };
        replica.open();
        replica
    }

    fn open(&mut self) {
        let kv: Arc<dyn Kv> = match &self.store {
            Store::Memory(kv) => Arc::clone(kv) as Arc<dyn Kv>,
            Store::Disk(path) => Arc::new(Rocks::open(&RocksConfig::new(path)).unwrap()),
        };
        self.state = Some(State::open(kv, SEGMENT).unwrap());
    }

    pub(crate) fn state(&self) -> &State {
        self.state.as_ref().unwrap()
    }

    /// Goes through the events, then applies what is left, one entry at a time.
    pub(crate) fn run(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Apply(count) => self.apply(*count),
                Event::Flush => self.state.as_mut().unwrap().flush().unwrap(),
                Event::Restart => {
                    self.state.as_mut().unwrap().flush().unwrap();
                    self.crash();
                }
                Event::Crash => self.crash(),
            }
        }
        while self.next() < self.log.entries.len() {
            self.apply(1);
        }
    }

    fn crash(&mut self) {
        self.state = None;
        if let Store::Memory(kv) = &mut self.store {
            *kv = Arc::new(kv.crashed());
        }
        self.open();
    }

    fn next(&self) -> usize {
        self.state().applied().map_or(0, |id| usize::try_from(id.index.0).unwrap() + 1)
    }

    /// Whenever an entry is applied, also for the second time, it must answer like the model.
    fn apply(&mut self, count: usize) {
        let next = self.next();
        let end = (next + count).min(self.log.entries.len());
        let entries = self.log.entries[next..end].to_vec();
        let applied = self.state.as_mut().unwrap().apply(entries).unwrap();
        assert_eq!(applied.outcomes, self.log.outcomes[next..end], "entries {next}..{end}");
    }

    pub(crate) fn digest(&self) -> Digest {
        self.state().digest()
    }

    /// Everything that can be read is what the model says.
    pub(crate) fn check_views(&self) {
        let (state, model) = (self.state(), &self.log.model);
        assert_eq!(state.log_time(), Timestamp(self.log.entries.last().unwrap().stamp));
        let memberships = self.log.entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Membership(bytes) => Some(bytes),
            Payload::Blank | Payload::Batch(_) => None,
        });
        assert_eq!(state.membership(), memberships.last());
        assert_eq!(state.topics().count(), model.topics.len());
        for (name, expected) in &model.topics {
            assert_eq!(state.topic(name).unwrap().config(), &expected.config);
        }
        let groups: Vec<_> = state.groups().collect();
        assert_eq!(groups.len(), model.groups.len());
        for (name, expected) in &model.groups {
            assert_eq!(state.group(name), Some(expected));
        }
        self.check_transactions();
        crate::administration::check(state, model);
        crate::timers::check(state, model);
        crate::retention::check(state, self.log);
        for t in 0..TOPICS.len() {
            (0..QUEUES).for_each(|queue| self.check_queue(t, QueueId(queue)));
            self.check_keys(t);
            for g in 0..GROUPS.len() {
                (0..QUEUES).for_each(|queue| self.check_progress(g, t, QueueId(queue)));
                self.check_due(g, t);
            }
        }
    }

    fn check_queue(&self, t: usize, queue: QueueId) {
        let (state, topic) = (self.state(), topic(t));
        let known = self.log.model.topics.get(&topic);
        let readable = |m: &&crate::model::TopicModel| queue.0 < m.readable;
        let Some(expected) = known.filter(readable).map(|m| &m.queues[queue.0 as usize]) else {
            assert!(state.scan(&topic, queue, QueueOffset(0), 9).unwrap().is_empty());
            return;
        };
        let end = QueueOffset(expected.len() as u64);
        let min = usize::try_from(self.log.model.min_of(&topic, queue)).unwrap();
        let begin = QueueOffset(min as u64);
        assert_eq!(state.topic(&topic).unwrap().offsets(queue), Some(begin..end));
        for (from, limit) in [(0, 1000), (1, 3), (5, 2), (expected.len(), 9)] {
            let found = state.scan(&topic, queue, QueueOffset(from as u64), limit).unwrap();
            let rest = expected.get(from.max(min)..).unwrap_or_default();
            assert_eq!(found, rest[..limit.min(rest.len())]);
        }
        let expected = &expected[min..];
        for entry in expected {
            assert_eq!(state.entry(&topic, queue, entry.offset).unwrap(), Some(*entry));
            for time in [entry.visible, Timestamp(entry.visible.0 + 1)] {
                let first = expected.iter().find(|e| time <= e.visible).map_or(end, |e| e.offset);
                assert_eq!(state.offset_at(&topic, queue, time).unwrap(), Some(first));
            }
        }
    }

    fn check_keys(&self, t: usize) {
        for hash in 0..6 {
            let mut found = self.state().find_by_key(&topic(t), hash, usize::MAX).unwrap();
            let keys = self.log.model.keys.iter();
            let expected = keys.filter(|(h, of, ..)| *h == hash && *of == topic(t));
            let kept = expected.filter(|(_, of, q, o)| self.log.model.keeps(of, *q, *o));
            let mut expected: Vec<_> = kept.map(|(_, _, q, o)| (*q, *o)).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "key {hash}");
        }
    }

    fn check_progress(&self, g: usize, t: usize, queue: QueueId) {
        let (state, model) = (self.state(), &self.log.model);
        let place = (group(g), topic(t), queue);
        let known = model.topics.get(&place.1);
        let readable = |m: &&crate::model::TopicModel| queue.0 < m.readable;
        let Some(messages) = known.filter(readable).map(|m| &m.queues[queue.0 as usize]) else {
            assert_eq!(state.progress(&place.0, &place.1, queue), None);
            return;
        };
        let progress = state.progress(&place.0, &place.1, queue).unwrap();
        let next = model.next_of(&place);
        let held: Vec<_> = model.held_in(&place).collect();
        let committed = held.first().map_or(next, |(offset, _)| *offset);
        assert_eq!(progress.next, QueueOffset(next));
        assert_eq!(progress.committed, QueueOffset(committed));
        let waiting = held.iter().filter(|(_, held)| held.attempt == 0).count();
        assert_eq!(progress.in_flight as usize, held.len() - waiting);
        assert_eq!(progress.waiting as usize, waiting);
        assert_eq!(progress.lag(), messages.len() as u64 - next + held.len() as u64);
        let fresh = next < messages.len() as u64;
        let backlogged = state.backlogged(&place.0, &place.1, QueueId(1)).any(|q| q == queue);
        assert_eq!(backlogged, fresh);
        let now = Timestamp(self.log.stamp);
        let due = model.dues(&place).iter().any(|(due, _)| *due <= now.0);
        assert_eq!(state.has_anything(&place.0, &place.1, Some(queue), now), fresh || due);
        crate::offsets::check(state, model, &place, now);
    }

    fn check_due(&self, g: usize, t: usize) {
        let (state, model) = (self.state(), &self.log.model);
        let now = self.log.stamp;
        let mut all = vec![];
        for queue in (0..QUEUES).map(QueueId) {
            let place = (group(g), topic(t), queue);
            for (due, offset) in model.dues(&place) {
                all.push((due, queue.0, offset, &model.held[&(place.clone(), offset)]));
            }
        }
        assert_eq!(
            state.next_due(&group(g), &topic(t)).map(|due| due.0),
            all.iter().map(|h| h.0).min()
        );
        let mut expected: Vec<_> = all.iter().filter(|h| h.0 <= now).collect();
        expected.sort_by_key(|h| (h.3.block.is_some(), h.0, h.1, h.2));
        let due = state.due(&group(g), &topic(t), None, Timestamp(now), usize::MAX);
        assert_eq!(due.len(), expected.len());
        for (due, (_, queue, offset, held)) in due.iter().zip(expected) {
            let facts = (due.due.0, due.queue.0, due.offset.0, due.delivery, due.attempt);
            assert_eq!(facts, (held.due, *queue, *offset, held.delivery, held.attempt));
        }
    }
}
