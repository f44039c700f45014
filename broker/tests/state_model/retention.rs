//! What is kept, counted from scratch; messages that are carried, and transactions that expire.

use std::collections::BTreeMap;

use broker::command::{
    CarriedMessage, Carry, Command, ExpireTransactions, Outcome, Reference, TimerId,
};
use broker::state::{State, Walk};
use bytes::Bytes;
use commitlog::position::LogOffset;
use proptest::prelude::*;
use proptest::sample::Index;
use proto::{QueueId, Timestamp, Topic};

use crate::model::{At, Model};
use crate::steps::Log;

/// Two entries of the log are in one segment.
pub(crate) const SEGMENT: u64 = 2_000_000;

/// What refers to a message: who, of which topic, where the message lies, and its length.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) reference: Reference,
    pub(crate) topic: Topic,
    pub(crate) position: u64,
    pub(crate) len: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Carry {
        which: Vec<Index>,
        /// Everything in the oldest segment instead.
        oldest: bool,
        /// From where nothing is.
        wrong: bool,
    },
    ExpireTransactions {
        which: Vec<Index>,
    },
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let which = || prop::collection::vec(any::<Index>(), 1..6);
    prop_oneof![
        4 => (which(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(which, oldest, wrong)| Step::Carry { which, oldest, wrong }),
        1 => which().prop_map(|which| Step::ExpireTransactions { which }),
    ]
}

pub(crate) fn resolve(step: &Step, model: &Model) -> Command {
    match step {
        Step::Carry { which, oldest, wrong } => {
            let all = model.live();
            let first = all.iter().map(|live| live.position / SEGMENT).min();
            let chosen: Vec<&Live> = match (all.is_empty(), oldest) {
                (true, _) => vec![],
                (false, true) => {
                    all.iter().filter(|live| Some(live.position / SEGMENT) == first).collect()
                }
                (false, false) => which.iter().map(|which| &all[which.index(all.len())]).collect(),
            };
            let mut bodies: BTreeMap<(u64, u64), Vec<Reference>> = BTreeMap::new();
            for live in chosen {
                bodies.entry((live.position, live.len)).or_default().push(live.reference.clone());
            }
            let messages = bodies.into_iter().map(|((from, len), references)| CarriedMessage {
                from: LogOffset(from + u64::from(*wrong)),
                references,
                bytes: Bytes::from(vec![b'x'; usize::try_from(len).unwrap()]),
            });
            Command::Carry(Carry { messages: messages.collect() })
        }
        Step::ExpireTransactions { which } => Command::ExpireTransactions(ExpireTransactions {
            transactions: which.iter().map(|which| model.transactions.some(which, false)).collect(),
        }),
    }
}

impl Model {
    /// Everything that keeps a message.
    pub(crate) fn live(&self) -> Vec<Live> {
        let mut all = vec![];
        for (topic, known) in &self.topics {
            let readable = known.queues[..known.readable as usize].iter();
            for (queue, entries) in (0..).map(QueueId).zip(readable) {
                let min = self.min_of(topic, queue);
                all.extend(entries.iter().filter(|entry| min <= entry.offset.0).map(|entry| {
                    let reference =
                        Reference::Entry { topic: topic.clone(), queue, offset: entry.offset };
                    let (position, len) = (entry.position.0, entry.len.into());
                    Live { reference, topic: topic.clone(), position, len }
                }));
            }
        }
        all.extend(self.live_timers());
        all.extend(self.transactions.live());
        all
    }

    pub(crate) fn carry(&mut self, at: At, c: &Carry) -> Outcome {
        let (mut references, mut bytes) = (0, 0);
        for (number, message) in c.messages.iter().enumerate() {
            let rest: u64 = c.messages[number..].iter().map(|m| m.bytes.len() as u64).sum();
            let (from, to) = (message.from.0, at.end - rest);
            let mut moved = 0;
            for reference in &message.references {
                moved += u32::from(self.carry_one(reference, from, to));
            }
            references += moved;
            if moved > 0 {
                bytes += message.bytes.len() as u64;
            }
        }
        self.carried += bytes;
        Outcome::Carried { references, bytes }
    }

    /// Whether the reference pointed there.
    fn carry_one(&mut self, reference: &Reference, from: u64, to: u64) -> bool {
        let pointed = |live: &Live| live.reference == *reference && live.position == from;
        if !self.live().iter().any(pointed) {
            return false;
        }
        match reference {
            Reference::Entry { topic, queue, offset } => {
                let queue = &mut self.topics.get_mut(topic).unwrap().queues[queue.0 as usize];
                let entry = &mut queue[usize::try_from(offset.0).unwrap()];
                entry.position = LogOffset(to);
            }
            Reference::Timer(TimerId { number, .. }) => self.carry_timer(*number, to),
            Reference::Half(number) => self.transactions.carry(*number, to),
        }
        true
    }

    pub(crate) fn expire_transactions(&mut self, c: &ExpireTransactions) -> Outcome {
        let count = c.transactions.iter().filter(|n| self.transactions.expire(**n)).count();
        Outcome::TransactionsExpired { count: u32::try_from(count).unwrap() }
    }
}

/// What the state has counted on its way is what there is.
pub(crate) fn check(state: &State, log: &Log) {
    let model = &log.model;
    let all = model.live();
    let mut segments: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut topics: BTreeMap<&Topic, (u64, u64)> = BTreeMap::new();
    for live in &all {
        let base = live.position / SEGMENT * SEGMENT;
        for sum in [segments.entry(base).or_default(), topics.entry(&live.topic).or_default()] {
            *sum = (sum.0 + 1, sum.1 + live.len);
        }
    }
    let counted = state.live_segments().map(|(base, live)| (base.0, (live.references, live.bytes)));
    assert_eq!(counted.collect::<BTreeMap<_, _>>(), segments);
    for topic in model.topics.keys() {
        let counted = state.kept_of(topic);
        let expected = topics.get(topic).copied().unwrap_or_default();
        assert_eq!((counted.references, counted.bytes), expected, "{topic}");
    }
    let ends = log.entries.iter().filter_map(|entry| match &entry.payload {
        raft::Payload::Batch(commands) => commands.last(),
        raft::Payload::Blank | raft::Payload::Membership(_) => None,
    });
    let end = ends.last().map_or(0, |last| last.position.0 + last.bytes.len() as u64);
    let end = end / SEGMENT * SEGMENT;
    let floor = segments.keys().next().copied().unwrap_or(end);
    let kept = state.kept();
    assert_eq!((state.floor().0, kept.end.0), (floor, end));
    assert_eq!(kept.carried_bytes, model.carried);
    check_walks(state, &all, segments.keys());
}

/// Looking for what refers into a segment finds all of it, and each once.
fn check_walks<'a>(state: &State, all: &[Live], segments: impl Iterator<Item = &'a u64>) {
    for base in segments {
        let mut found = vec![];
        let mut walk = Walk::BEGIN;
        while walk != Walk::Done {
            let (some, next) = state.lying_in(LogOffset(*base), walk, 3).unwrap();
            assert!(walk < next, "{walk:?} goes on to {next:?}");
            found.extend(some.into_iter().map(|l| (l.position.0, u64::from(l.len), l.reference)));
            walk = next;
        }
        let in_it = all.iter().filter(|live| live.position / SEGMENT * SEGMENT == *base);
        let mut expected: Vec<_> =
            in_it.map(|live| (live.position, live.len, live.reference.clone())).collect();
        let key = |(position, _, reference): &(u64, u64, Reference)| {
            (*position, format!("{reference:?}"))
        };
        found.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(found, expected);
    }
}

/// A timer's id.
pub(crate) fn timer_id(due: u64, number: u64) -> Reference {
    Reference::Timer(TimerId { due: Timestamp(due), number })
}
