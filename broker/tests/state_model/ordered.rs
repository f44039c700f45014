//! Order and dead letters in the plainest way: every question walks over everything in flight.

use std::collections::BTreeMap;

use broker::command::{
    DeadLetter, FifoAgain, FifoPick, Granted, Outcome, PopFifo, Redrive, Rejection, TopicConfig,
};
use broker::state::QueueEntry;
use proto::{QueueId, QueueOffset, Timestamp, Topic, v2};

use crate::model::{At, Held, Model, Place, TopicModel};

/// Where a dead letter came from.
pub(crate) type Origins = BTreeMap<(Topic, u64), (Topic, QueueId)>;

impl Model {
    pub(crate) fn pop_fifo(&mut self, at: At, c: &PopFifo) -> Result<Outcome, Rejection> {
        let fresh = |pick: &FifoPick| pick.fresh.iter().map(|fresh| fresh.offset).collect();
        let picks = c.picks.iter().map(|pick| (pick.queue, pick.from..pick.to, fresh(pick)));
        self.check_picks(&c.topic, picks)?;
        self.touch_group(&c.group, at.delivery);
        if self.administration.disabled.contains(&c.group) {
            return Err(Rejection::GroupDisabled);
        }
        if !self.groups[&c.group].fifo {
            return Ok(Outcome::Popped { granted: vec![] });
        }
        let mut granted = self.replay(at, c);
        if granted.is_empty() {
            for pick in &c.picks {
                self.pick_in_order(at, c, pick, &mut granted);
            }
        }
        Ok(Outcome::Popped { granted })
    }

    fn replay(&mut self, at: At, c: &PopFifo) -> Vec<Granted> {
        let Some(attempt) = c.attempt_id else { return vec![] };
        let mut granted = vec![];
        let topics = self.topics.clone();
        for (((group, topic, queue), offset), held) in &mut self.held {
            let same = (&c.group, &c.topic, &c.client) == (group, topic, &held.client);
            if !same || held.attempt_id != Some(attempt) {
                continue;
            }
            held.due = at.stamp + c.invisible_ms;
            held.since = at.stamp.max(held.since + 1);
            held.auto_renew = c.auto_renew;
            let entry = topics[topic].queues[queue.0 as usize][usize::try_from(*offset).unwrap()];
            granted.push(grant(*queue, &entry, held, held.attempt));
        }
        granted
    }

    fn pick_in_order(&mut self, at: At, c: &PopFifo, pick: &FifoPick, granted: &mut Vec<Granted>) {
        let place = (c.group.clone(), c.topic.clone(), pick.queue);
        let mut taken = BTreeMap::new();
        for again in &pick.again {
            let key = (place.clone(), again.offset.0);
            let Some(attempts) = self.may_repeat(at, &place, again, &taken) else { continue };
            let behind = taken.insert(again.block, again.offset.0).is_some();
            if !behind && self.groups[&c.group].max_attempts.max(1) <= attempts {
                self.bury(at, &place, again.offset.0);
                continue;
            }
            let attempt = if behind { attempts.max(1) } else { attempts + 1 };
            let held = holder(at, c, again.block, attempt);
            let entry = self.entry(&place, again.offset.0);
            granted.push(grant(pick.queue, &entry, &held, attempts));
            self.held.insert(key, held);
        }
        let next = self.next_of(&place);
        let len = self.topics[&c.topic].queues[pick.queue.0 as usize].len() as u64;
        let end = pick.to.0.min(len);
        if next < pick.from.0 || end <= next {
            return;
        }
        self.next.insert(place.clone(), end);
        self.subscribed.insert((c.group.clone(), c.topic.clone()));
        for fresh in pick.fresh.iter().filter(|f| next <= f.offset.0 && f.offset.0 < end) {
            let block = self.block(&place, fresh.block);
            let behind_all = taken.get(&fresh.block).is_some_and(|l| block.iter().all(|o| o <= l));
            let key = (place.clone(), fresh.offset.0);
            if fresh.deliver && (block.is_empty() || behind_all) {
                taken.insert(fresh.block, fresh.offset.0);
                let held = holder(at, c, fresh.block, 1);
                granted.push(grant(pick.queue, &self.entry(&place, fresh.offset.0), &held, 0));
                self.held.insert(key, held);
            } else {
                let waits = Held {
                    due: 0,
                    auto_renew: false,
                    attempt_id: None,
                    ..holder(at, c, fresh.block, 0)
                };
                self.held.insert(key, waits);
            }
        }
    }

    /// How often the message was delivered, if it is its turn.
    fn may_repeat(
        &self,
        at: At,
        place: &Place,
        again: &FifoAgain,
        taken: &BTreeMap<u64, u64>,
    ) -> Option<u32> {
        let held = self.held.get(&(place.clone(), again.offset.0))?;
        if held.delivery != again.delivery || at.stamp < held.due {
            return None;
        }
        if held.block.is_some_and(|block| block != again.block) {
            return None;
        }
        let last = taken.get(&again.block);
        if last.is_some_and(|last| again.offset.0 <= *last) {
            return None;
        }
        let block = self.block(place, again.block);
        if block.is_empty() {
            return Some(held.attempt);
        }
        let lasts = |offset: &u64| at.stamp < self.held[&(place.clone(), *offset)].due;
        if last.is_none() && block.iter().any(lasts) {
            return None;
        }
        let next = block.iter().copied().find(|offset| last.is_none_or(|last| offset > last));
        let turn = match held.block {
            Some(_) => next == Some(again.offset.0),
            None => next.is_none_or(|next| again.offset.0 < next),
        };
        turn.then_some(held.attempt)
    }

    /// What is in flight or waits of one block, ascending.
    pub(crate) fn block(&self, place: &Place, block: u64) -> Vec<u64> {
        let all = self.held_in(place).filter(|(_, held)| held.block == Some(block));
        all.map(|(offset, _)| offset).collect()
    }

    /// When what is in flight at a place can be delivered again: each message by itself, or the
    /// first of its block.
    pub(crate) fn dues(&self, place: &Place) -> Vec<(u64, u64)> {
        let all = self.held_in(place);
        all.filter_map(|(offset, held)| match held.block {
            None => Some((held.due, offset)),
            Some(block) => {
                let block = self.block(place, block);
                let ends = block.iter().map(|o| self.held[&(place.clone(), *o)].due);
                (block[0] == offset).then(|| (ends.max().unwrap(), offset))
            }
        })
        .collect()
    }

    fn entry(&self, place: &Place, offset: u64) -> QueueEntry {
        self.topics[&place.1].queues[place.2.0 as usize][usize::try_from(offset).unwrap()]
    }

    pub(crate) fn dead_letter(&mut self, at: At, c: &DeadLetter) -> Result<Outcome, Rejection> {
        self.known(&c.group, &c.topic)?;
        let place = (c.group.clone(), c.topic.clone(), c.handle.queue);
        let key = (place.clone(), c.handle.offset.0);
        let known = self.oldest_delivery(&place) <= c.handle.delivery;
        if known && !self.held.contains_key(&key) && c.handle.offset.0 < self.next_of(&place) {
            return Ok(Outcome::DeadLettered);
        }
        if !self.valid(at, &place, &c.handle) {
            return Err(Rejection::InvalidHandle);
        }
        self.bury(at, &place, c.handle.offset.0);
        Ok(Outcome::DeadLettered)
    }

    pub(crate) fn bury(&mut self, at: At, place: &Place, offset: u64) {
        self.held.remove(&(place.clone(), offset));
        let entry = self.entry(place, offset);
        let name: Topic = format!("%DLQ%{}", place.0).parse().unwrap();
        let placement = self.topics[&place.1].config.placement.clone();
        let placement: Vec<_> = placement.into_iter().map(|(name, _)| (name, 1)).collect();
        if !self.topics.contains_key(&name) {
            self.administration.topics_born.insert(name.clone(), at.delivery);
        }
        let graves = self.topics.entry(name.clone()).or_insert_with(|| TopicModel {
            readable: 1,
            config: TopicConfig {
                queues: 1,
                permission: v2::Permission::Read,
                accepts: vec![v2::MessageType::Normal],
                version: placement.len() as u64,
                placement,
            },
            queues: vec![vec![]],
        });
        let at_end = graves.queues[0].len() as u64;
        self.origins.insert((name, at_end), (place.1.clone(), place.2));
        let (offset, visible) = (QueueOffset(at_end), Timestamp(at.stamp));
        graves.queues[0].push(QueueEntry { offset, visible, ..entry });
    }

    pub(crate) fn redrive(&mut self, at: At, c: &Redrive) -> Result<Outcome, Rejection> {
        let topic = self.topics.get(&c.topic).ok_or(Rejection::TopicNotFound)?;
        let queues = topic.readable;
        if c.queue.0 >= queues {
            return Err(Rejection::QueueNotFound { queues });
        }
        let next = *self.redriven.entry((c.topic.clone(), c.queue)).or_default();
        if next != c.from.0 {
            return Err(Rejection::StaleRedrive { next: QueueOffset(next) });
        }
        let dead = topic.queues[c.queue.0 as usize].clone();
        let mut count = 0;
        let first = next.max(self.min_of(&c.topic, c.queue));
        let end = (first + u64::from(c.count)).min(dead.len() as u64).max(next);
        for entry in dead.iter().skip(usize::try_from(first).unwrap()).take(c.count as usize) {
            let origin = self.origins.get(&(c.topic.clone(), entry.offset.0));
            let Some((topic, queue)) = origin.filter(|_| c.queue.0 == 0).cloned() else { continue };
            let topic = self.topics.get_mut(&topic).unwrap();
            let queue = &mut topic.queues[(queue.0 % topic.config.queues.max(1)) as usize];
            let (offset, visible) = (QueueOffset(queue.len() as u64), Timestamp(at.stamp));
            queue.push(QueueEntry { offset, visible, ..*entry });
            count += 1;
        }
        self.redriven.insert((c.topic.clone(), c.queue), end);
        Ok(Outcome::Redriven { count, next: QueueOffset(end) })
    }
}

fn holder(at: At, c: &PopFifo, block: u64, attempt: u32) -> Held {
    Held {
        due: at.stamp + c.invisible_ms,
        since: at.stamp,
        delivery: at.delivery,
        attempt,
        client: c.client.clone(),
        auto_renew: c.auto_renew,
        block: Some(block),
        attempt_id: c.attempt_id,
    }
}

fn grant(queue: QueueId, entry: &QueueEntry, held: &Held, before: u32) -> Granted {
    Granted {
        queue,
        offset: entry.offset,
        position: entry.position,
        len: entry.len,
        attempt: held.attempt,
        before,
        since: Timestamp(held.since),
        delivery: held.delivery,
        due: Timestamp(held.due),
    }
}
