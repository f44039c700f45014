//! The deterministic middle of a broker group: what its replicated log adds up to.
//!
//! [`State::apply`] takes committed entries and nothing else: no clock, no randomness, no network.
//! Maps without an order are only looked up, never walked. So replicas that applied the same
//! entries answer alike and have equal [`State::digest`]s, however the entries were batched and
//! whenever a replica was restarted.
//!
//! One file per command; what they change is in `topics`, `consumer_groups`, `tails`,
//! `subscriptions`, `dedupe`, `message_keys`, `transactions`, `timers` and `retained`. Everything but consume
//! queues, sealed message keys and timers of the far future is held in memory; everything is
//! written to the store, in one batch per call of `apply`.
//! Reads for the leader are in `view`.

mod ack;
mod append;
mod append_delayed;
mod append_half;
mod blocks;
mod carry;
mod change_invisible;
mod check_transactions;
mod clients;
mod close_queues;
mod commit_offset;
mod consumer_groups;
mod dead_letter;
mod dedupe;
mod delete_group;
mod delete_topic;
mod digest;
mod end_transaction;
mod entries;
mod expire;
mod expire_transactions;
mod fire;
mod give_back;
mod in_flight;
mod in_flight_view;
pub mod limits;
mod live_settings;
mod machine;
mod mark;
mod message_keys;
mod offsets;
mod pending;
mod pop;
mod pop_fifo;
mod put_group;
mod put_setting;
mod put_topic;
mod quotas;
mod raise_level;
mod recall;
mod redrive;
mod release;
mod renew;
mod reset_offsets;
mod retained;
mod retained_view;
mod retire_topic;
#[cfg(test)]
mod script;
mod subscriptions;
mod tails;
mod timers;
mod topics;
mod transactions;
mod transactions_view;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use commitlog::Bug;
use commitlog::position::{LogId, LogIndex, LogOffset};
use proto::{QueueId, QueueOffset, Timestamp};
use raft::{Entry, Payload};

use crate::command::{Command, DecodeError, Effect, Outcome, level};
use crate::kv::{self, Batch, Durable, Frontier, Kv, TopicId};

pub use digest::Digest;
pub use entries::QueueEntry;
pub use in_flight_view::InFlightAt;
pub use machine::{Machine, SharedState};
pub use offsets::{Backlog, Consumption};
pub use pending::{PendingTimer, TimerPage};
pub use retained_view::{Kept, Lying, Walk};
pub use topics::TopicState;
pub use transactions_view::{Transaction, Unresolved};
pub use view::{DueDelivery, Holding, QueueProgress};

use consumer_groups::ConsumerGroups;
use dedupe::Dedupe;
use live_settings::LiveSettings;
use mark::Marks;
use message_keys::{KeyCounters, MessageKeys};
use put_setting::SettingVersions;
use quotas::Quotas;
use retained::Retained;
use subscriptions::Subscriptions;
use tails::Tails;
use timers::Timers;
use topics::Topics;
use transactions::Transactions;

/// After this much the store is flushed, so that no crash leaves more to be applied again: that
/// must take well under 0.6 s even when the last flush did not get through.
mod flush_after {
    /// Messages appended, delivered or acknowledged.
    pub(super) const WORK: usize = 65_536;
    /// Bytes of commands, which have to be read again.
    pub(super) const LOG_BYTES: usize = 64 << 20;
    /// Bytes written to the store, which are in memory until then.
    pub(super) const STORE_BYTES: usize = 12 << 20;
}

/// The state of one broker group as of [`State::applied`].
#[derive(Debug)]
pub struct State {
    kv: Arc<dyn Kv>,
    applied: Option<LogId>,
    membership: Option<Bytes>,
    /// Log time.
    stamp: Timestamp,
    topics_version: u64,
    topics: Topics,
    groups: ConsumerGroups,
    tails: Tails,
    subscriptions: Subscriptions,
    dedupe: Dedupe,
    keys: MessageKeys,
    /// How far the dead letters of each queue were put back.
    redriven: BTreeMap<(TopicId, QueueId), QueueOffset>,
    transactions: Transactions,
    quotas: Quotas,
    settings: SettingVersions,
    live_settings: LiveSettings,
    /// The feature level, see `command::level`.
    level: u32,
    timers: Timers,
    retained: Retained,
    /// What the current call of `apply` has changed so far.
    change: Change,
    /// What was written since the last flush.
    unflushed: Unflushed,
    marks: Marks,
}

#[derive(Debug, Default)]
struct Change {
    batch: Batch,
    effects: Vec<Effect>,
    /// Names the command that is being applied.
    command: u64,
    /// Queues that grew, with their ends before.
    grown: BTreeMap<(TopicId, QueueId), QueueOffset>,
    /// Origins of new dead letters, which the store does not have yet.
    origins: BTreeMap<kv::dead_letter::Place, kv::dead_letter::Origin>,
    /// Entries that were carried to another position, which the store does not have yet.
    moved: BTreeMap<(TopicId, QueueId, QueueOffset), LogOffset>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Unflushed {
    work: usize,
    log_bytes: usize,
    store_bytes: usize,
}

impl Unflushed {
    fn is_much(self) -> bool {
        self.work >= flush_after::WORK
            || self.log_bytes >= flush_after::LOG_BYTES
            || self.store_bytes >= flush_after::STORE_BYTES
    }
}

/// Where and when a command is applied.
#[derive(Debug, Clone, Copy)]
struct At {
    /// The entry that carries it.
    index: LogIndex,
    /// Log time.
    stamp: Timestamp,
    /// Unique to the command: names the deliveries that it makes.
    delivery: u64,
}

/// Why committed entries cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] kv::Error),
    #[error("command {number} of entry {index} cannot be read")]
    Command { index: LogIndex, number: usize, source: DecodeError },
}

/// What came of a call of [`State::apply`].
#[derive(Debug, Default)]
pub struct Applied {
    /// For each entry, one per command.
    pub outcomes: Vec<Vec<Outcome>>,
    /// In the order in which they happened.
    pub effects: Vec<Effect>,
}

impl State {
    /// The state that a store holds; that of an empty broker group when the store is empty.
    /// `segment` is how many bytes a segment of the log has, the same on all replicas.
    ///
    /// # Errors
    /// The store cannot be read, is damaged, or was written by a version that this one cannot read.
    ///
    /// # Panics
    /// `segment` is 0.
    pub fn open(kv: Arc<dyn Kv>, segment: u64) -> Result<Self, kv::Error> {
        let frontier = Frontier::load(&*kv)?;
        let level = kv::level::load(&*kv, level::understood())?;
        let next = kv::next_ids::load(&*kv)?;
        let topics = Topics::load(&*kv, next.topic)?;
        let retained = Retained::load(&*kv, &topics, segment)?;
        Ok(Self {
            applied: frontier.applied,
            membership: kv::membership::load(&*kv)?,
            stamp: frontier.stamp,
            topics_version: frontier.topics_version,
            topics,
            groups: ConsumerGroups::load(&*kv, next.group)?,
            tails: Tails::default(),
            subscriptions: Subscriptions::load(&*kv)?,
            dedupe: Dedupe::load(&*kv, &frontier)?,
            keys: MessageKeys::load(&*kv, &frontier)?,
            redriven: kv::redrive::load(&*kv)?,
            transactions: Transactions::load(&*kv)?,
            quotas: Quotas::load(&*kv)?,
            settings: SettingVersions::load(&*kv)?,
            live_settings: LiveSettings::load(&*kv)?,
            level,
            timers: Timers::load(&*kv)?,
            retained,
            change: Change::default(),
            unflushed: Unflushed::default(),
            marks: Marks::default(),
            kv,
        })
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// Bytes of a segment of the log.
    fn segment(&self) -> u64 {
        self.retained.segment()
    }

    /// Where the state is kept.
    fn store(&self) -> Arc<dyn Kv> {
        self.kv.clone()
    }

    /// The last membership applied, as the `raft` crate encoded it.
    #[must_use]
    pub fn membership(&self) -> Option<&Bytes> {
        self.membership.as_ref()
    }

    /// Log time: the stamp of the last entry applied. The leader's clock is at or past it, or will
    /// be soon.
    #[must_use]
    pub fn log_time(&self) -> Timestamp {
        self.stamp
    }

    /// Applies entries that follow [`State::applied`] without a gap.
    ///
    /// # Errors
    /// The store failed, or an entry holds something else than commands. The state must not be
    /// used any more.
    ///
    /// # Panics
    /// The entries do not follow, or an invariant of the state is broken.
    pub fn apply(&mut self, entries: Vec<Entry>) -> Result<Applied, Error> {
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            outcomes.push(self.apply_entry(entry)?);
            if self.take_due_mark() {
                self.write(None)?;
                self.remember_digest();
            }
        }
        self.write(None)?;
        Ok(Applied { outcomes, effects: std::mem::take(&mut self.change.effects) })
    }

    /// Makes everything applied so far durable, so that a restart has nothing to apply again.
    ///
    /// # Errors
    /// The store failed.
    pub fn flush(&mut self) -> Result<(), kv::Error> {
        self.write(Some(Durable::Now))
    }

    fn apply_entry(&mut self, entry: Entry) -> Result<Vec<Outcome>, Error> {
        let index = entry.log_id.index;
        if let Some(applied) = self.applied {
            assert_eq!(applied.index.next(), index, "entries are applied without a gap");
            assert!(applied.term <= entry.log_id.term, "terms never decrease along the log");
        }
        self.stamp = self.stamp.max(Timestamp(entry.stamp));
        if Bug::B33.is_sown() {
            self.stamp = self.stamp.max(proto::clock::wall_now());
        }
        let outcomes = match entry.payload {
            Payload::Blank => vec![],
            Payload::Membership(membership) => {
                kv::membership::put(&mut self.change.batch, &membership);
                self.membership = Some(membership);
                vec![]
            }
            Payload::Batch(commands) => self.apply_batch(index, commands)?,
        };
        self.applied = Some(entry.log_id);
        Ok(outcomes)
    }

    fn apply_batch(
        &mut self,
        index: LogIndex,
        commands: Vec<raft::Command>,
    ) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for (number, command) in commands.into_iter().enumerate() {
            let at = At { index, stamp: self.stamp, delivery: delivery_id(index, number) };
            self.change.command = at.delivery;
            let len = command.bytes.len();
            let end = command.position + len as u64;
            let command = Command::decode(command.bytes).map_err(|source| Error::Command {
                index,
                number,
                source,
            })?;
            self.unflushed.log_bytes += len;
            self.unflushed.work += work(&command);
            outcomes.push(self.apply_command(at, command, end)?);
            self.retained.reached(end, self.stamp);
        }
        self.dedupe.write(&mut self.change.batch, self.stamp);
        Ok(outcomes)
    }

    fn apply_command(
        &mut self,
        at: At,
        command: Command,
        end: LogOffset,
    ) -> Result<Outcome, kv::Error> {
        Ok(match command {
            Command::PutTopic(c) => self.put_topic(c)?,
            Command::PutGroup(c) => self.put_group(c),
            Command::Append(c) => self.append(at, &c, end),
            Command::Pop(c) => self.pop(at, &c)?,
            Command::Ack(c) => self.ack(at, &c),
            Command::ChangeInvisible(c) => self.change_invisible(at, &c),
            Command::Renew(c) => self.renew(at, &c),
            Command::Release(c) => self.release(at, &c),
            Command::GiveBack(c) => self.give_back(at, &c),
            Command::DeleteTopic(c) => self.delete_topic(c),
            Command::DeleteGroup(c) => self.delete_group(c),
            Command::SwitchGroup(c) => self.switch_group(c),
            Command::PutQuota(c) => self.put_quota(c),
            Command::PutRetention(c) => self.put_retention(&c),
            Command::Expire(c) => self.expire(at, &c)?,
            Command::CloseQueues(c) => self.close_queues(c)?,
            Command::Carry(c) => self.carry(&c, end)?,
            Command::ExpireTransactions(c) => self.expire_transactions(&c),
            Command::PutSetting(c) => self.put_setting(c),
            Command::RetireTopic(c) => self.retire_topic(c),
            Command::PutLiveSetting(c) => self.put_live_setting(c),
            Command::AppendDelayed(c) => self.append_delayed(at, &c, end),
            Command::Fire(c) => self.fire(at, c)?,
            Command::Recall(c) => self.recall(at, &c)?,
            Command::CommitOffset(c) => self.commit_offset(at, &c),
            Command::ResetOffsets(c) => self.reset_offsets(at, &c),
            Command::FollowReset(c) => self.follow_reset(&c),
            Command::PopFifo(c) => self.pop_fifo(at, &c)?,
            Command::DeadLetter(c) => self.dead_letter(at, &c)?,
            Command::Redrive(c) => self.redrive(at, &c)?,
            Command::AppendHalf(c) => self.append_half(at, &c, end),
            Command::EndTransaction(c) => self.end_transaction(at, c),
            Command::CheckTransactions(c) => self.check_transactions(at, &c),
            Command::ParkTransactions(c) => self.park_transactions(at, &c),
            Command::Mark(_) => self.mark(at.index),
            Command::RaiseLevel(c) => self.raise_level(c),
        })
    }

    /// Writes what the call of `apply` has changed, all or nothing; and makes it durable when that
    /// is asked for, or due.
    fn write(&mut self, flush: Option<Durable>) -> Result<(), kv::Error> {
        self.write_moved_entries()?;
        self.write_grown_queues();
        if Bug::B07.is_sown() {
            self.say_applied_too_early()?;
        }
        self.unflushed.store_bytes += self.change.batch.size();
        let flush = flush.or(self.unflushed.is_much().then_some(Durable::Soon));
        let sealed = self.keys.write(&mut self.change.batch, flush.is_some());
        if sealed {
            let topics = &self.topics;
            let kept = |key: &kv::key_log::Keyed| topics.holds(key.topic, key.queue, key.offset);
            self.keys.tidy(&*self.kv, &mut self.change.batch, kept)?;
        }
        self.timers.write(&mut self.change.batch);
        self.retained.write(&mut self.change.batch);
        self.frontier().put(&mut self.change.batch);
        self.kv.write(&self.change.batch)?;
        self.change.batch.clear();
        self.change.origins.clear();
        self.change.moved.clear();

        self.tails.shrink();
        self.timers.written(&*self.kv)?;
        if let Some(number) = self.dedupe.forget(self.stamp) {
            kv::dedupe::trim(&*self.kv, number)?;
        }
        if sealed {
            kv::key_log::trim(&*self.kv, self.keys.counters().sealed)?;
        }
        if let Some(when) = flush {
            self.kv.flush(when)?;
            self.unflushed = Unflushed::default();
        }
        Ok(())
    }

    /// Of [`Bug::B07`] alone.
    fn say_applied_too_early(&self) -> Result<(), kv::Error> {
        let mut early = Batch::default();
        let stored = Frontier::load(&*self.kv)?;
        Frontier { applied: self.applied, ..stored }.put(&mut early);
        self.kv.write(&early)?;
        self.kv.flush(Durable::Now)
    }

    /// Consume-queue entries reach the store in runs: everything that one call of `apply` appended
    /// to a queue is one record.
    fn write_grown_queues(&mut self) {
        for ((topic, queue), before) in std::mem::take(&mut self.change.grown) {
            // It may have been closed since, which is no reason to lose its head.
            let head = &self.topics.get(topic).heads()[queue.0 as usize];
            let tail = self.tails.of(topic, queue).expect("it grew");
            let fresh = usize::try_from(head.max.0 - before.0).expect("they are in memory");
            let entries = tail.iter().skip(tail.len() - fresh);
            kv::consume_queue::put(&mut self.change.batch, topic, queue, before, entries);
            kv::queue_head::put(&mut self.change.batch, topic, queue, head);
        }
    }

    fn frontier(&self) -> Frontier {
        let (dedupe_next, dedupe_digest) = self.dedupe.counters();
        let KeyCounters { next, sealed, blocks } = self.keys.counters();
        Frontier {
            applied: self.applied,
            stamp: self.stamp,
            topics_version: self.topics_version,
            dedupe_next,
            dedupe_digest,
            keys_next: next,
            keys_sealed: sealed,
            key_blocks: blocks,
        }
    }
}

/// Every command has its own; all deliveries that a command makes share it.
fn delivery_id(index: LogIndex, number: usize) -> u64 {
    const NUMBER_BITS: u32 = 20;
    let number = number as u64;
    assert!(number < 1 << NUMBER_BITS, "an entry holds fewer commands than {number}");
    assert!(index.0 < 1 << (u64::BITS - NUMBER_BITS), "index {index} is out of reach");
    (index.0 << NUMBER_BITS) | number
}

/// How many messages a command touches, about.
fn work(command: &Command) -> usize {
    match command {
        Command::Append(c) => c.messages.len(),
        Command::Pop(c) => c.picks.iter().map(|p| 1 + p.fresh.len() + p.again.len()).sum(),
        Command::PopFifo(c) => c.picks.iter().map(|p| 1 + p.fresh.len() + p.again.len()).sum(),
        Command::AppendDelayed(c) => c.messages.len(),
        Command::Fire(c) => c.most as usize,
        Command::Ack(c) => c.handles.len(),
        Command::GiveBack(c) => c.deliveries.len(),
        Command::ResetOffsets(c) => c.queues.len(),
        Command::CheckTransactions(c) => c.orphans.len(),
        Command::ParkTransactions(c) => c.orphans.len(),
        Command::ExpireTransactions(c) => c.transactions.len(),
        Command::Carry(c) => c.messages.iter().map(|m| m.references.len()).sum(),
        Command::PutTopic(_)
        | Command::PutGroup(_)
        | Command::ChangeInvisible(_)
        | Command::Renew(_)
        | Command::Release(_)
        | Command::DeleteTopic(_)
        | Command::DeleteGroup(_)
        | Command::SwitchGroup(_)
        | Command::PutQuota(_)
        | Command::PutRetention(_)
        | Command::Expire(_)
        | Command::CloseQueues(_)
        | Command::PutSetting(_)
        | Command::RetireTopic(_)
        | Command::PutLiveSetting(_)
        | Command::Mark(_)
        | Command::RaiseLevel(_)
        | Command::Recall(_)
        | Command::CommitOffset(_)
        | Command::FollowReset(_)
        | Command::DeadLetter(_)
        | Command::Redrive(_)
        | Command::AppendHalf(_)
        | Command::EndTransaction(_) => 1,
    }
}
