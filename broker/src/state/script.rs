//! For tests: a state over a store in memory, and commands in few words.
//!
//! The topic is `orders`, the consumer group `audit`, the client `worker`, unless a test says
//! otherwise. Time is log time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use commitlog::position::{LogId, LogOffset};
use proto::{ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic, v2};
use raft::{Entry, Payload};

use super::State;
use crate::command::{
    Accepted, Ack, AckOutcome, Append, AppendDelayed, AppendHalf, ChangeInvisible,
    CheckTransactions, Command, CommitOffset, DelayedMessage, Effect, EndTransaction, Fire,
    Granted, Handle, NewMessage, Orphan, Outcome, Pick, Pop, PutTopic, Recall, RecallOutcome,
    Release, Renew, ResetOffsets, ResetTo, Resolver, TimerId, TopicConfig, Verdict,
};
use crate::kv::Memory;

/// Entries begin this far from each other, so that each has a segment of its own.
pub(super) const SEGMENT: u64 = 1000;

pub(super) struct Script {
    pub(super) state: State,
    kv: Arc<Memory>,
    index: u64,
    now: u64,
    /// What the last command did for the rim.
    pub(super) effects: Vec<Effect>,
}

pub(super) fn topic() -> Topic {
    "orders".parse().unwrap()
}

pub(super) fn group() -> ConsumerGroup {
    "audit".parse().unwrap()
}

pub(super) fn config(queues: u32, version: u64) -> TopicConfig {
    TopicConfig {
        queues,
        permission: v2::Permission::ReadWrite,
        accepts: vec![v2::MessageType::Normal],
        placement: vec![("broker-a".parse().unwrap(), queues)],
        version,
    }
}

/// A message without tag, keys and dedupe id.
pub(super) fn message(body: &'static str) -> NewMessage {
    let bytes = Bytes::from_static(body.as_bytes());
    NewMessage { tag_hash: 0, key_hashes: vec![], dedupe: None, bytes }
}

pub(super) fn delayed(due: u64, message: NewMessage) -> DelayedMessage {
    DelayedMessage { due: Timestamp(due), message }
}

/// A message that got a timer just now.
pub(super) fn waits(due: u64, number: u64) -> Accepted {
    Accepted::Waits { timer: TimerId { due: Timestamp(due), number }, repeated: false }
}

pub(super) fn handle(granted: &Granted) -> Handle {
    Handle { queue: granted.queue, offset: granted.offset, delivery: granted.delivery }
}

/// A pick of new offsets out of a range.
pub(super) fn pick(queue: u32, range: std::ops::Range<u64>, fresh: &[u64]) -> Pick {
    Pick {
        queue: QueueId(queue),
        from: QueueOffset(range.start),
        to: QueueOffset(range.end),
        fresh: fresh.iter().copied().map(QueueOffset).collect(),
        again: vec![],
    }
}

pub(super) fn pop(client: &str, picks: Vec<Pick>) -> Pop {
    Pop {
        group: group(),
        topic: topic(),
        client: client.parse().unwrap(),
        auto_renew: false,
        invisible_ms: 60_000,
        picks,
    }
}

pub(super) fn append(queue: u32, messages: &[NewMessage]) -> Command {
    let (topic, queue, messages) = (topic(), QueueId(queue), messages.to_vec());
    Command::Append(Append { topic, queue, messages })
}

pub(super) fn ack(handles: &[Handle]) -> Command {
    Command::Ack(Ack { group: group(), topic: topic(), handles: handles.to_vec() })
}

pub(super) fn commit(queue: u32, offset: u64) -> Command {
    let (group, topic, offset) = (group(), topic(), QueueOffset(offset));
    Command::CommitOffset(CommitOffset { group, topic, queue: QueueId(queue), offset })
}

pub(super) fn reset(queues: &[(u32, ResetTo)]) -> Command {
    let queues = queues.iter().map(|(queue, to)| (QueueId(*queue), *to)).collect();
    Command::ResetOffsets(ResetOffsets { group: group(), topic: topic(), queues })
}

pub(super) fn renew(client: &str, queue: u32, invisible_ms: u64) -> Command {
    let (group, topic, client) = (group(), topic(), client.parse().unwrap());
    let (queue, trusted_since) = (QueueId(queue), Timestamp(0));
    Command::Renew(Renew { group, topic, queue, client, trusted_since, invisible_ms })
}

impl Script {
    /// An empty broker group at time 0.
    pub(super) fn new() -> Self {
        Self::over(Arc::new(Memory::new()))
    }

    fn over(kv: Arc<Memory>) -> Self {
        let state = State::open(Arc::clone(&kv) as Arc<dyn crate::kv::Kv>, SEGMENT).unwrap();
        let index = state.applied().map_or(0, |id| id.index.0 + 1);
        let now = state.log_time().0;
        Self { state, kv, index, now, effects: vec![] }
    }

    /// With the topic.
    pub(super) fn with_queues(queues: u32) -> Self {
        let mut script = Self::new();
        script.does(put_topic("orders", config(queues, 1)));
        script
    }

    /// With one queue of messages.
    pub(super) fn with_messages(count: usize) -> Self {
        let mut script = Self::with_queues(1);
        script.appends(0, &vec![message("hello"); count]);
        script
    }

    /// The same broker group after a planned restart.
    pub(super) fn restarted(mut self) -> Self {
        self.state.flush().unwrap();
        Self::over(Arc::new(self.kv.crashed()))
    }

    /// Moves log time.
    pub(super) fn at(&mut self, now: u64) -> &mut Self {
        self.now = now;
        self
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }

    /// Applies one command in an entry of its own; the entry's commands start at 1000 * index.
    pub(super) fn does(&mut self, command: Command) -> Outcome {
        self.does_all(vec![command]).remove(0)
    }

    /// The same for several commands in one entry.
    pub(super) fn does_all(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let mut position = LogOffset(self.index * SEGMENT);
        let mut batch = vec![];
        for command in commands {
            let mut bytes = BytesMut::new();
            command.encode().iter().for_each(|part| bytes.extend_from_slice(part));
            let len = bytes.len() as u64;
            batch.push(raft::Command { position, bytes: bytes.freeze() });
            position = position + len;
        }
        let log_id = LogId::new(1, self.index);
        let entry = Entry { log_id, stamp: self.now, payload: Payload::Batch(batch) };
        self.index += 1;
        let mut applied = self.state.apply(vec![entry]).unwrap();
        self.effects = applied.effects;
        applied.outcomes.remove(0)
    }

    pub(super) fn appends(&mut self, queue: u32, messages: &[NewMessage]) -> Outcome {
        self.does(append(queue, messages))
    }

    pub(super) fn kv(&self) -> Arc<Memory> {
        Arc::clone(&self.kv)
    }

    /// Into the first queue.
    pub(super) fn delays(&mut self, messages: &[DelayedMessage]) -> Outcome {
        let (topic, queue, messages) = (topic(), QueueId(0), messages.to_vec());
        self.does(Command::AppendDelayed(AppendDelayed { topic, queue, messages }))
    }

    pub(super) fn delayed(&mut self, messages: &[DelayedMessage]) -> Vec<Accepted> {
        match self.delays(messages) {
            Outcome::Delayed { messages, .. } => messages,
            other => panic!("{other:?}"),
        }
    }

    /// When the messages were due that fired.
    pub(super) fn fires(&mut self, most: u32) -> Vec<u64> {
        match self.does(Command::Fire(Fire { most })) {
            Outcome::Fired { due, stamp, dropped } => {
                assert_eq!((stamp, dropped), (self.now(), 0));
                due.iter().map(|due| due.0).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn recalls(&mut self, due: u64, number: u64) -> RecallOutcome {
        let timer = TimerId { due: Timestamp(due), number };
        match self.does(Command::Recall(Recall { topic: topic(), timer })) {
            Outcome::Recalled(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn pops(&mut self, pop: Pop) -> Vec<Granted> {
        match self.does(Command::Pop(pop)) {
            Outcome::Popped { granted } => granted,
            other => panic!("{other:?}"),
        }
    }

    /// The worker pops a range of the first queue, all of it wanted.
    pub(super) fn pops_range(&mut self, range: std::ops::Range<u64>) -> Vec<Granted> {
        let fresh: Vec<_> = range.clone().collect();
        self.pops(pop("worker", vec![pick(0, range, &fresh)]))
    }

    pub(super) fn acks(&mut self, handles: &[Handle]) -> Vec<AckOutcome> {
        match self.does(ack(handles)) {
            Outcome::Acked(outcomes) => outcomes,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn changes_invisible(&mut self, handle: Handle, invisible_ms: u64) -> Outcome {
        let (group, topic) = (group(), topic());
        self.does(Command::ChangeInvisible(ChangeInvisible { group, topic, handle, invisible_ms }))
    }

    pub(super) fn releases(&mut self, client: &str, after_ms: u64) -> Outcome {
        let (client, group) = (client.parse().unwrap(), group());
        self.does(Command::Release(Release { client, group, after_ms }))
    }

    /// The worker stores a half message; the number of its transaction.
    pub(super) fn appends_half(&mut self, message: NewMessage) -> u64 {
        match self.does(Command::AppendHalf(half(message))) {
            Outcome::HalfAppended { transaction, repeated: false, .. } => transaction,
            other => panic!("{other:?}"),
        }
    }

    /// The producer ends a transaction.
    pub(super) fn ends(&mut self, transaction: u64, verdict: Verdict) -> Outcome {
        let by = Resolver::Producer;
        self.does(Command::EndTransaction(EndTransaction { transaction, verdict, by }))
    }

    /// A check of one transaction is recorded; the next one is due 30 s later.
    pub(super) fn checks(&mut self, transaction: u64, checks: u32) -> u32 {
        let orphans = vec![Orphan { transaction, checks }];
        let check = CheckTransactions { next_ms: 30_000, orphans };
        match self.does(Command::CheckTransactions(check)) {
            Outcome::TransactionsChecked { count } => count,
            other => panic!("{other:?}"),
        }
    }

    /// Offsets that are due for another delivery now.
    pub(super) fn due(&self) -> Vec<u64> {
        let due = self.state.due(&group(), &topic(), None, self.now(), usize::MAX);
        due.iter().map(|due| due.offset.0).collect()
    }

    /// Next and committed offset of the group in the first queue, and deliveries in flight.
    pub(super) fn progress(&self) -> (u64, u64, u32) {
        let progress = self.state.progress(&group(), &topic(), QueueId(0)).unwrap();
        (progress.next.0, progress.committed.0, progress.in_flight)
    }
}

/// The worker's half message for the first queue, left alone for 6 s.
pub(super) fn half(message: NewMessage) -> AppendHalf {
    AppendHalf {
        topic: topic(),
        queue: QueueId(0),
        client: "worker".parse().unwrap(),
        first_check_ms: 6_000,
        message,
    }
}

pub(super) fn put_topic(name: &str, config: TopicConfig) -> Command {
    Command::PutTopic(PutTopic { topic: name.parse().unwrap(), config, create_only: false })
}
