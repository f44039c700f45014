//! Transactions: steps, what the model makes of them, and what must be seen of them.

use std::collections::BTreeMap;

use broker::command::{
    AppendHalf, CheckTransactions, Command, EndTransaction, Orphan, Outcome, ParkTransactions,
    Reference, Rejection, Resolver, Verdict,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proto::{QueueId, Timestamp, Topic};

use crate::model::{At, Model, Sent, Went};
use crate::replica::Replica;
use crate::retention::Live;
use crate::steps::{
    CLIENTS, MessageStep, QUEUES, TOPICS, client, message_step, new_message, topic,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Clone)]
struct HalfModel {
    command: AppendHalf,
    position: u64,
    born: u64,
    next_check: u64,
    checks: u32,
    parked: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Transactions {
    pending: BTreeMap<u64, HalfModel>,
    /// With when.
    ended: BTreeMap<u64, (Verdict, u64)>,
}

#[derive(Debug, Clone)]
pub(crate) enum TransactionStep {
    AppendHalf {
        topic: usize,
        queue: u32,
        client: usize,
        first_check_ms: u64,
        message: MessageStep,
    },
    End {
        which: Index,
        /// One that has ended, if any has.
        again: bool,
        commit: bool,
        by_administrator: bool,
    },
    Check {
        which: Vec<Index>,
        next_ms: u64,
        wrong: bool,
    },
    Park {
        which: Vec<Index>,
        wrong: bool,
    },
}

pub(crate) fn transaction_step() -> impl Strategy<Value = TransactionStep> {
    let ms = || prop::sample::select(vec![0_u64, 100, 6_000, 60_000]);
    let which = || prop::collection::vec(any::<Index>(), 1..4);
    let wrong = || prop::bool::weighted(0.1);
    prop_oneof![
        4 => (0..TOPICS.len(), 0..QUEUES, 0..CLIENTS.len(), ms(), message_step()).prop_map(
            |(topic, queue, client, first_check_ms, mut message)| {
                // Few, so that sends are repeated.
                message.dedupe = message.dedupe.map(|id| id % 3);
                TransactionStep::AppendHalf { topic, queue, client, first_check_ms, message }
            }
        ),
        3 => (any::<Index>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(which, again, commit, by_administrator)| TransactionStep::End {
                which, again, commit, by_administrator,
            }
        ),
        2 => (which(), ms(), wrong())
            .prop_map(|(which, next_ms, wrong)| TransactionStep::Check { which, next_ms, wrong }),
        1 => (which(), wrong()).prop_map(|(which, wrong)| TransactionStep::Park { which, wrong }),
    ]
}

impl TransactionStep {
    /// What the step means now.
    pub(crate) fn command(self, model: &Model) -> Command {
        match self {
            Self::AppendHalf { topic: t, queue, client: c, first_check_ms, message } => {
                Command::AppendHalf(AppendHalf {
                    topic: topic(t),
                    queue: QueueId(queue),
                    client: client(c),
                    first_check_ms,
                    message: new_message(&message),
                })
            }
            Self::End { which, again, commit, by_administrator } => {
                Command::EndTransaction(EndTransaction {
                    transaction: model.transactions.some(&which, again),
                    verdict: if commit { Verdict::Commit } else { Verdict::Rollback },
                    by: match by_administrator {
                        true => Resolver::Administrator,
                        false => Resolver::Producer,
                    },
                })
            }
            Self::Check { which, next_ms, wrong } => {
                let orphans = model.transactions.orphans(&which, wrong);
                Command::CheckTransactions(CheckTransactions { next_ms, orphans })
            }
            Self::Park { which, wrong } => {
                let orphans = model.transactions.orphans(&which, wrong);
                Command::ParkTransactions(ParkTransactions { orphans })
            }
        }
    }
}

impl Transactions {
    /// A topic is deleted.
    /// Half messages of a topic.
    pub(crate) fn of(&self, topic: &Topic) -> u64 {
        self.pending.values().filter(|half| half.command.topic == *topic).count() as u64
    }

    pub(crate) fn forget(&mut self, topic: &Topic) {
        self.pending.retain(|_, half| half.command.topic != *topic);
    }

    /// What the unresolved ones keep.
    pub(crate) fn live(&self) -> impl Iterator<Item = Live> {
        self.pending.iter().map(|(number, half)| Live {
            reference: Reference::Half(*number),
            topic: half.command.topic.clone(),
            position: half.position,
            len: half.command.message.bytes.len() as u64,
        })
    }

    pub(crate) fn carry(&mut self, number: u64, to: u64) {
        self.pending.get_mut(&number).unwrap().position = to;
    }

    /// Whether it was parked.
    pub(crate) fn expire(&mut self, number: u64) -> bool {
        let parked = self.pending.get(&number).is_some_and(|half| half.parked);
        parked && self.pending.remove(&number).is_some()
    }

    pub(crate) fn some(&self, which: &Index, ended: bool) -> u64 {
        let numbers: Vec<u64> = match ended && !self.ended.is_empty() {
            true => self.ended.keys().copied().collect(),
            false => self.pending.keys().copied().collect(),
        };
        if numbers.is_empty() { 7 } else { *which.get(&numbers) }
    }

    fn orphans(&self, which: &[Index], wrong: bool) -> Vec<Orphan> {
        let orphan = |which| {
            let transaction = self.some(which, false);
            let checks = self.pending.get(&transaction).map_or(0, |half| half.checks);
            Orphan { transaction, checks: checks + u32::from(wrong) }
        };
        which.iter().map(orphan).collect()
    }

    fn as_seen(&mut self, orphan: &Orphan) -> Option<&mut HalfModel> {
        let half = self.pending.get_mut(&orphan.transaction)?;
        (half.checks == orphan.checks && !half.parked).then_some(half)
    }
}

impl Model {
    pub(crate) fn append_half(&mut self, at: At, c: &AppendHalf) -> Result<Outcome, Rejection> {
        self.writable(&c.topic, c.queue)?;
        let stamp = Timestamp(at.stamp);
        let earlier = self.sent_before(at, &c.topic, c.message.dedupe);
        if let Some(Went::AsHalf(transaction)) = earlier {
            return Ok(Outcome::HalfAppended { stamp, transaction, repeated: true });
        }
        let transaction = at.delivery;
        let half = HalfModel {
            command: c.clone(),
            position: at.end - c.message.bytes.len() as u64,
            born: at.stamp,
            next_check: at.stamp + c.first_check_ms,
            checks: 0,
            parked: false,
        };
        self.transactions.pending.insert(transaction, half);
        if let Some(id) = c.message.dedupe {
            let went = Went::AsHalf(transaction);
            let topic = Some(c.topic.clone());
            self.sent.push(Sent { id, topic, went, stamp: at.stamp });
        }
        Ok(Outcome::HalfAppended { stamp, transaction, repeated: false })
    }

    pub(crate) fn end_transaction(
        &mut self,
        at: At,
        c: EndTransaction,
    ) -> Result<Outcome, Rejection> {
        let all = &mut self.transactions;
        let Some(half) = all.pending.get(&c.transaction).cloned() else {
            let ended = all.ended.get(&c.transaction);
            return match ended.filter(|(_, when)| at.stamp < when + DAY_MS) {
                Some((verdict, _)) if *verdict == c.verdict => {
                    Ok(Outcome::TransactionEnded { repeated: true })
                }
                Some((Verdict::Commit, _)) => Err(Rejection::TransactionCommitted),
                Some((Verdict::Rollback, _)) => Err(Rejection::TransactionRolledBack),
                None => Err(Rejection::TransactionNotFound),
            };
        };
        if half.parked && c.by == Resolver::Producer {
            return Err(Rejection::TransactionParked);
        }
        all.pending.remove(&c.transaction);
        all.ended.insert(c.transaction, (c.verdict, at.stamp));
        if c.verdict == Verdict::Commit {
            let AppendHalf { topic, queue, message, .. } = &half.command;
            self.enqueue(at, topic, *queue, half.position, message);
        }
        Ok(Outcome::TransactionEnded { repeated: false })
    }

    pub(crate) fn check_transactions(&mut self, at: At, c: &CheckTransactions) -> Outcome {
        let mut count = 0;
        for orphan in &c.orphans {
            if let Some(half) = self.transactions.as_seen(orphan) {
                half.checks += 1;
                half.next_check = at.stamp + c.next_ms;
                count += 1;
            }
        }
        Outcome::TransactionsChecked { count }
    }

    pub(crate) fn park_transactions(&mut self, at: At, c: &ParkTransactions) -> Outcome {
        let mut count = 0;
        for orphan in &c.orphans {
            if let Some(half) = self.transactions.as_seen(orphan) {
                half.parked = true;
                half.next_check = at.stamp;
                count += 1;
            }
        }
        Outcome::TransactionsParked { count }
    }
}

impl Replica<'_> {
    pub(crate) fn check_transactions(&self) {
        let (state, expected) = (self.state(), &self.log.model.transactions.pending);
        let parked = expected.values().filter(|half| half.parked).count();
        let counts = state.unresolved();
        assert_eq!((counts.pending, counts.parked), (expected.len() - parked, parked));
        let found = state.transactions(None, false, 0, usize::MAX);
        assert_eq!(found.len(), expected.len());
        for (found, (number, half)) in found.iter().zip(expected) {
            assert_eq!(found.number, *number);
            assert_eq!((&found.topic, found.queue), (&half.command.topic, half.command.queue));
            assert_eq!(found.client, half.command.client);
            assert_eq!((found.position.0, found.born.0), (half.position, half.born));
            assert_eq!(found.len as usize, half.command.message.bytes.len());
            assert_eq!((found.checks, found.parked), (half.checks, half.parked));
            assert_eq!(found.next_check.0, half.next_check);
        }
        let now = self.log.stamp;
        let waiting = || expected.iter().filter(|(_, half)| !half.parked);
        let mut due: Vec<_> = waiting().map(|(number, half)| (half.next_check, *number)).collect();
        due.sort_unstable();
        assert_eq!(state.next_check(|_| true).map(|at| at.0), due.first().map(|(at, _)| *at));
        due.retain(|(at, _)| *at <= now);
        let found = state.checks_due(Timestamp(now), usize::MAX, |_| true);
        let found: Vec<_> = found.iter().map(|t| (t.next_check.0, t.number)).collect();
        assert_eq!(found, due);
    }
}
