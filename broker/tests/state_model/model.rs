//! What a broker group must do, in the plainest way: lists, walked from end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::administration::Administration;
use broker::command::{
    Ack, AckOutcome, Append, ChangeInvisible, Command, GiveBack, Granted, GroupConfig, Handle,
    NewMessage, Outcome, Placed, Pop, PutGroup, PutTopic, Rejection, Release, Renew, TopicConfig,
};
use broker::kv::reset::Reset;
use broker::state::QueueEntry;
use commitlog::position::LogOffset;
use proto::{ClientId, ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic, v2};

use crate::ordered::Origins;
use crate::timers::Timers;
use crate::transactions::Transactions;

/// Where, when and as what a command is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) stamp: u64,
    pub(crate) delivery: u64,
    /// Where the command ends in the log.
    pub(crate) end: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) due: u64,
    pub(crate) since: u64,
    pub(crate) delivery: u64,
    pub(crate) attempt: u32,
    pub(crate) client: ClientId,
    pub(crate) auto_renew: bool,
    /// The message group, where order matters.
    pub(crate) block: Option<u64>,
    pub(crate) attempt_id: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct TopicModel {
    pub(crate) config: TopicConfig,
    /// Queues that can be read; the rest are closed.
    pub(crate) readable: u32,
    pub(crate) queues: Vec<Vec<QueueEntry>>,
}

/// A send with a dedupe id.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) id: u128,
    /// `None` once it was deleted.
    pub(crate) topic: Option<Topic>,
    pub(crate) went: Went,
    pub(crate) stamp: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Went {
    ToQueue(Placed),
    /// With the number of its transaction.
    AsHalf(u64),
    /// With the number of its timer.
    Delayed(u64),
}

pub(crate) type Place = (ConsumerGroup, Topic, QueueId);

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) topics: BTreeMap<Topic, TopicModel>,
    pub(crate) groups: BTreeMap<ConsumerGroup, GroupConfig>,
    pub(crate) next: BTreeMap<Place, u64>,
    pub(crate) held: BTreeMap<(Place, u64), Held>,
    pub(crate) resets: BTreeMap<Place, Reset>,
    /// Key hash, topic, queue, offset.
    pub(crate) keys: Vec<(u64, Topic, QueueId, QueueOffset)>,
    pub(crate) origins: Origins,
    /// How far dead letters were put back.
    pub(crate) redriven: BTreeMap<(Topic, QueueId), u64>,
    pub(crate) transactions: Transactions,
    pub(crate) timers: Timers,
    pub(crate) sent: Vec<Sent>,
    /// Groups that were given, or have committed, anything of a topic.
    pub(crate) subscribed: BTreeSet<(ConsumerGroup, Topic)>,
    pub(crate) administration: Administration,
    /// Bytes carried, ever.
    pub(crate) carried: u64,
}

const WINDOW_MS: u64 = 10 * 60 * 1000;
const RENEW_MS: u64 = 3 * 60 * 60 * 1000;
/// An auto-renewed delivery that ends within this of its beginning was not renewed yet.
const FIRST_MS: u64 = 60 * 1000;

impl Model {
    pub(crate) fn apply(&mut self, at: At, command: &Command) -> Outcome {
        let result = match command {
            Command::PutTopic(c) => self.put_topic(at, c),
            Command::PutGroup(PutGroup { group, config }) => {
                self.touch_group(group, at.delivery);
                self.groups.insert(group.clone(), config.clone());
                Ok(Outcome::Done)
            }
            Command::Append(c) => self.append(at, c),
            Command::Pop(c) => self.pop(at, c),
            Command::Ack(c) => self.ack(at, c),
            Command::ChangeInvisible(c) => self.change_invisible(at, c),
            Command::Renew(c) => self.renew(at, c),
            Command::Release(c) => self.release(at, c),
            Command::GiveBack(c) => self.give_back(at, c),
            Command::AppendDelayed(c) => self.append_delayed(at, c),
            Command::Fire(c) => Ok(self.fire(at, *c)),
            Command::Recall(c) => self.recall(at, c),
            Command::CommitOffset(c) => self.commit_offset(at, c),
            Command::ResetOffsets(c) => self.reset_offsets(at, c),
            Command::FollowReset(c) => self.follow_reset(c),
            Command::PopFifo(c) => self.pop_fifo(at, c),
            Command::DeadLetter(c) => self.dead_letter(at, c),
            Command::Redrive(c) => self.redrive(at, c),
            Command::AppendHalf(c) => self.append_half(at, c),
            Command::EndTransaction(c) => self.end_transaction(at, *c),
            Command::CheckTransactions(c) => Ok(self.check_transactions(at, c)),
            Command::ParkTransactions(c) => Ok(self.park_transactions(at, c)),
            Command::DeleteTopic(c) => self.delete_topic(c),
            Command::DeleteGroup(c) => self.delete_group(c),
            Command::SwitchGroup(c) => Ok(self.switch_group(at.delivery, c)),
            Command::PutQuota(c) => Ok(self.put_quota(c)),
            Command::PutRetention(c) => self.put_retention(c),
            Command::Expire(c) => self.expire(c),
            Command::CloseQueues(c) => self.close_queues(c),
            Command::Carry(c) => Ok(self.carry(at, c)),
            Command::ExpireTransactions(c) => Ok(self.expire_transactions(c)),
            Command::PutSetting(c) => self.put_setting(at.delivery, c),
            Command::RetireTopic(c) => self.retire_topic(c),
            Command::Mark(_) => unreachable!("no step marks: it changes nothing"),
            Command::PutLiveSetting(_) => unreachable!("no step: nothing else depends on it"),
            // The only level there is.
            Command::RaiseLevel(_) => Ok(Outcome::Done),
        };
        result.unwrap_or_else(Outcome::Rejected)
    }

    pub(crate) fn next_of(&self, place: &Place) -> u64 {
        let next = self.next.get(place).copied().unwrap_or(0);
        next.max(self.min_of(&place.1, place.2))
    }

    pub(crate) fn held_in<'a>(
        &'a self,
        place: &'a Place,
    ) -> impl Iterator<Item = (u64, &'a Held)> + 'a {
        self.held.iter().filter(move |((p, _), _)| p == place).map(|((_, o), h)| (*o, h))
    }

    fn put_topic(&mut self, at: At, c: &PutTopic) -> Result<Outcome, Rejection> {
        let Some(known) = self.topics.get_mut(&c.topic) else {
            let readable = c.config.queues.max(1);
            let queues = vec![vec![]; readable as usize];
            let config = c.config.clone();
            self.topics.insert(c.topic.clone(), TopicModel { config, readable, queues });
            self.administration.topics_born.insert(c.topic.clone(), at.delivery);
            return Ok(Outcome::TopicPut { created: true, version: c.config.version });
        };
        let current = &known.config;
        if !c.create_only && *current != c.config {
            if c.config.version <= current.version {
                return Err(Rejection::StaleVersion { current: current.version });
            }
            known.config = c.config.clone();
            known.readable = known.readable.max(c.config.queues);
            let queues = known.queues.len().max(c.config.queues as usize);
            known.queues.resize(queues, vec![]);
            self.close_drained(&c.topic);
        }
        let version = self.topics[&c.topic].config.version;
        Ok(Outcome::TopicPut { created: false, version })
    }

    fn append(&mut self, at: At, c: &Append) -> Result<Outcome, Rejection> {
        self.writable(&c.topic, c.queue)?;
        let mut messages = vec![];
        for (number, message) in c.messages.iter().enumerate() {
            let rest: usize = c.messages[number..].iter().map(|m| m.bytes.len()).sum();
            let position = at.end - rest as u64;
            messages.push(self.append_one(at, &c.topic, c.queue, position, message));
        }
        Ok(Outcome::Appended { stamp: Timestamp(at.stamp), messages })
    }

    pub(crate) fn append_one(
        &mut self,
        at: At,
        topic: &Topic,
        queue: QueueId,
        position: u64,
        message: &NewMessage,
    ) -> Placed {
        if let Some(Went::ToQueue(first)) = self.sent_before(at, topic, message.dedupe) {
            return Placed { repeated: true, ..first };
        }
        let offset = self.enqueue(at, topic, queue, position, message);
        let placed = Placed { queue, offset, repeated: false };
        self.remember(at, topic, message, Went::ToQueue(placed));
        placed
    }

    pub(crate) fn remember(&mut self, at: At, topic: &Topic, message: &NewMessage, went: Went) {
        if let Some(id) = message.dedupe {
            let topic = Some(topic.clone());
            self.sent.push(Sent { id, topic, went, stamp: at.stamp });
        }
    }

    pub(crate) fn writable(&self, topic: &Topic, queue: QueueId) -> Result<(), Rejection> {
        let topic = self.topics.get(topic).ok_or(Rejection::TopicNotFound)?;
        if !matches!(topic.config.permission, v2::Permission::Write | v2::Permission::ReadWrite) {
            return Err(Rejection::TopicNotWritable);
        }
        let queues = topic.config.queues;
        if queue.0 < queues { Ok(()) } else { Err(Rejection::QueueNotFound { queues }) }
    }

    /// Where an earlier attempt of the same send went.
    pub(crate) fn sent_before(&self, at: At, topic: &Topic, id: Option<u128>) -> Option<Went> {
        let earlier = self.sent.iter().rev().find(|sent| Some(sent.id) == id)?;
        let known = earlier.topic.as_ref() == Some(topic) && at.stamp < earlier.stamp + WINDOW_MS;
        known.then_some(earlier.went)
    }

    /// A message that lies at a position enters a queue that exists.
    pub(crate) fn enqueue(
        &mut self,
        at: At,
        topic: &Topic,
        queue: QueueId,
        position: u64,
        message: &NewMessage,
    ) -> QueueOffset {
        let known = self.topics.get_mut(topic).unwrap();
        let queue = QueueId(queue.0 % known.config.queues.max(1));
        let entries = &mut known.queues[queue.0 as usize];
        let offset = QueueOffset(entries.len() as u64);
        entries.push(QueueEntry {
            offset,
            position: LogOffset(position),
            len: u32::try_from(message.bytes.len()).unwrap(),
            tag_hash: message.tag_hash,
            visible: Timestamp(at.stamp),
        });
        for hash in &message.key_hashes {
            self.keys.push((*hash, topic.clone(), queue, offset));
        }
        offset
    }

    fn pop(&mut self, at: At, c: &Pop) -> Result<Outcome, Rejection> {
        let picks = c.picks.iter().map(|p| (p.queue, p.from..p.to, p.fresh.clone()));
        self.check_picks(&c.topic, picks)?;
        self.touch_group(&c.group, at.delivery);
        if self.administration.disabled.contains(&c.group) {
            return Err(Rejection::GroupDisabled);
        }
        let group = self.groups[&c.group].clone();
        if group.fifo {
            return Ok(Outcome::Popped { granted: vec![] });
        }
        let most = group.max_attempts.max(1);
        let mut granted = vec![];
        for pick in &c.picks {
            let place = (c.group.clone(), c.topic.clone(), pick.queue);
            let mut hand_out = vec![];
            for again in &pick.again {
                // In turn: a delivery that is repeated twice in one pick is repeated once.
                let key = (place.clone(), again.offset.0);
                let held = self.held.get(&key);
                let ended = held.filter(|h| h.delivery == again.delivery && h.due <= at.stamp);
                match ended.map(|h| h.attempt) {
                    Some(attempts) if most <= attempts => self.bury(at, &place, again.offset.0),
                    Some(attempts) => {
                        self.held.insert(key, holder(at, c, attempts + 1));
                        hand_out.push((again.offset, attempts + 1));
                    }
                    None => {}
                }
            }
            let queue = self.topics[&c.topic].queues[pick.queue.0 as usize].clone();
            let next = self.next_of(&place);
            let end = pick.to.0.min(queue.len() as u64);
            if pick.from.0 <= next && next < end {
                self.next.insert(place.clone(), end);
                self.subscribed.insert((c.group.clone(), c.topic.clone()));
                for offset in pick.fresh.iter().filter(|o| next <= o.0 && o.0 < end) {
                    self.held.insert((place.clone(), offset.0), holder(at, c, 1));
                    hand_out.push((*offset, 1));
                }
            }
            for (offset, attempt) in hand_out {
                let entry = &queue[usize::try_from(offset.0).unwrap()];
                granted.push(Granted {
                    queue: pick.queue,
                    offset,
                    position: entry.position,
                    len: entry.len,
                    attempt,
                    before: attempt - 1,
                    since: Timestamp(at.stamp),
                    delivery: at.delivery,
                    due: Timestamp(at.stamp + c.invisible_ms),
                });
            }
        }
        Ok(Outcome::Popped { granted })
    }

    pub(crate) fn check_picks(
        &self,
        topic: &Topic,
        picks: impl Iterator<Item = (QueueId, Range<QueueOffset>, Vec<QueueOffset>)>,
    ) -> Result<(), Rejection> {
        let known = self.topics.get(topic).ok_or(Rejection::TopicNotFound)?;
        let (config, queues) = (&known.config, known.readable);
        if !matches!(config.permission, v2::Permission::Read | v2::Permission::ReadWrite) {
            return Err(Rejection::TopicNotReadable);
        }
        for (queue, range, fresh) in picks {
            if queue.0 >= queues {
                return Err(Rejection::QueueNotFound { queues });
            }
            let outside = fresh.iter().any(|o| !range.contains(o));
            if outside || !fresh.windows(2).all(|pair| pair[0] < pair[1]) {
                return Err(Rejection::BadPick);
            }
        }
        Ok(())
    }

    pub(crate) fn known(&self, group: &ConsumerGroup, topic: &Topic) -> Result<(), Rejection> {
        self.topics.get(topic).ok_or(Rejection::TopicNotFound)?;
        self.groups.get(group).ok_or(Rejection::GroupNotFound)?;
        Ok(())
    }

    pub(crate) fn valid(&self, at: At, place: &Place, handle: &Handle) -> bool {
        let held = self.held.get(&(place.clone(), handle.offset.0));
        held.is_some_and(|h| h.delivery == handle.delivery && at.stamp < h.due)
    }

    fn ack(&mut self, at: At, c: &Ack) -> Result<Outcome, Rejection> {
        self.known(&c.group, &c.topic)?;
        let mut outcomes = vec![];
        for handle in &c.handles {
            let place = (c.group.clone(), c.topic.clone(), handle.queue);
            let key = (place.clone(), handle.offset.0);
            let valid = self.valid(at, &place, handle);
            let known = self.oldest_delivery(&place) <= handle.delivery;
            let consumed = handle.offset.0 < self.next_of(&place) && known;
            let done = !self.held.contains_key(&key) && consumed;
            if valid {
                self.held.remove(&key);
            }
            let good = valid || done;
            outcomes.push(if good { AckOutcome::Acked } else { AckOutcome::InvalidHandle });
        }
        Ok(Outcome::Acked(outcomes))
    }

    fn change_invisible(&mut self, at: At, c: &ChangeInvisible) -> Result<Outcome, Rejection> {
        self.known(&c.group, &c.topic)?;
        let place = (c.group.clone(), c.topic.clone(), c.handle.queue);
        if !self.valid(at, &place, &c.handle) {
            return Err(Rejection::InvalidHandle);
        }
        let held = self.held.get_mut(&(place, c.handle.offset.0)).unwrap();
        held.due = at.stamp + c.invisible_ms;
        held.auto_renew = false;
        Ok(Outcome::InvisibleChanged { due: Timestamp(held.due) })
    }

    fn renew(&mut self, at: At, c: &Renew) -> Result<Outcome, Rejection> {
        self.known(&c.group, &c.topic)?;
        let place = (c.group.clone(), c.topic.clone(), c.queue);
        let mut count = 0;
        for ((at_place, _), held) in &mut self.held {
            if *at_place == place && held.client == c.client && held.auto_renew {
                let first_end = held.since + FIRST_MS;
                if held.since < c.trusted_since.0 && held.due <= first_end {
                    continue;
                }
                let due = (at.stamp + c.invisible_ms).min(held.since + RENEW_MS);
                count += u32::from(held.due < due);
                held.due = held.due.max(due);
            }
        }
        Ok(Outcome::Renewed { count })
    }

    fn release(&mut self, at: At, c: &Release) -> Result<Outcome, Rejection> {
        self.groups.get(&c.group).ok_or(Rejection::GroupNotFound)?;
        let mut count = 0;
        for (((group, ..), _), held) in &mut self.held {
            if *group == c.group && held.client == c.client && held.auto_renew {
                held.due = held.due.min(at.stamp + c.after_ms);
                held.auto_renew = false;
                count += 1;
            }
        }
        Ok(Outcome::Released { count })
    }

    fn give_back(&mut self, at: At, c: &GiveBack) -> Result<Outcome, Rejection> {
        self.known(&c.group, &c.topic)?;
        let mut count = 0;
        for back in &c.deliveries {
            let place = (c.group.clone(), c.topic.clone(), back.handle.queue);
            let Some(held) = self.held.get_mut(&(place, back.handle.offset.0)) else { continue };
            if held.delivery == back.handle.delivery && held.since == back.since.0 {
                held.attempt = held.attempt.min(back.attempt);
                held.attempt_id = None;
                held.auto_renew = false;
                // In an order, what nobody was given waits from the beginning of time.
                let waits = held.attempt == 0 && held.block.is_some();
                held.due = if waits { 0 } else { held.due.min(at.stamp) };
                count += 1;
            }
        }
        Ok(Outcome::GivenBack { count })
    }
}

fn holder(at: At, c: &Pop, attempt: u32) -> Held {
    Held {
        due: at.stamp + c.invisible_ms,
        since: at.stamp,
        delivery: at.delivery,
        attempt,
        client: c.client.clone(),
        auto_renew: c.auto_renew,
        block: None,
        attempt_id: None,
    }
}
