//! Messages are handed to a client.

use std::time::Duration;

use proto::{QueueId, QueueOffset, Timestamp, v2};

use super::clients::ClientSlot;
use super::in_flight::Record;
use super::{At, State};
use crate::command::{Effect, Granted, Outcome, Pick, Pop, Rejection};
use crate::kv::in_flight::{Delivery, Place};
use crate::kv::{self, ConsumerGroupId, TopicId};

/// What one pick gets, before it is known where the messages lie.
struct Grant {
    offset: QueueOffset,
    attempt: u32,
}

/// Whom to deliver to, and until when.
#[derive(Clone, Copy)]
struct Receiver {
    group: ConsumerGroupId,
    topic: TopicId,
    client: ClientSlot,
    auto_renew: bool,
    due: Timestamp,
}

impl State {
    pub(super) fn pop(&mut self, at: At, c: &Pop) -> Result<Outcome, kv::Error> {
        let accepted = self.readable(c).and_then(|topic| Ok((topic, self.ensure_group(&c.group)?)));
        let (topic, group) = match accepted {
            Ok(ids) => ids,
            Err(rejection) => return Ok(Outcome::Rejected(rejection)),
        };
        let due = at.stamp.plus(Duration::from_millis(c.invisible_ms));
        let client = self.subscriptions.hold_client(&c.client);
        let receiver = Receiver { group, topic, client, auto_renew: c.auto_renew, due };
        let mut granted = Vec::new();
        for pick in &c.picks {
            let mut grants = self.deliver_again(at, receiver, pick);
            grants.extend(self.deliver_fresh(at, receiver, pick));
            if grants.is_empty() {
                continue;
            }
            self.locate(at, receiver, pick.queue, &grants, &mut granted)?;
            self.change.effects.push(Effect::Visible {
                group: c.group.clone(),
                topic: c.topic.clone(),
                queue: pick.queue,
                at: due,
            });
        }
        self.subscriptions.let_go_of_client(client);
        Ok(Outcome::Popped { granted })
    }

    /// The topic, if every pick makes sense.
    fn readable(&self, c: &Pop) -> Result<TopicId, Rejection> {
        let (id, topic) = self.topics.find(&c.topic).ok_or(Rejection::TopicNotFound)?;
        match topic.config().permission {
            v2::Permission::Read | v2::Permission::ReadWrite => {}
            v2::Permission::Unspecified | v2::Permission::None | v2::Permission::Write => {
                return Err(Rejection::TopicNotReadable);
            }
        }
        let queues = topic.config().queues;
        for pick in &c.picks {
            if pick.queue.0 >= queues {
                return Err(Rejection::QueueNotFound { queues });
            }
            let ascending = pick.fresh.is_sorted_by(|a, b| a < b);
            let in_range = pick.fresh.iter().all(|o| (pick.from..pick.to).contains(o));
            if !ascending || !in_range {
                return Err(Rejection::BadPick);
            }
        }
        Ok(id)
    }

    /// Delivers again what is still the ended delivery that the leader saw.
    fn deliver_again(&mut self, at: At, to: Receiver, pick: &Pick) -> Vec<Grant> {
        let mut grants = Vec::with_capacity(pick.again.len() + pick.fresh.len());
        for again in &pick.again {
            let place = to.place(pick.queue, again.offset);
            let ended = self.subscriptions.find(&place).map(|record| record.delivery);
            let ended = ended.filter(|d| d.id == again.delivery && d.due <= at.stamp);
            if let Some(ended) = ended {
                let attempt = ended.attempt.saturating_add(1);
                self.deliver(at, to, &place, attempt);
                grants.push(Grant { offset: again.offset, attempt });
            }
        }
        grants
    }

    /// Delivers what is new to the consumer group, and moves its progress over what was evaluated.
    fn deliver_fresh(&mut self, at: At, to: Receiver, pick: &Pick) -> Vec<Grant> {
        let next = self.subscriptions.next(to.group, to.topic, pick.queue);
        let max = self.topics.get(to.topic).head(pick.queue).expect("the queue was checked").max;
        let end = pick.to.min(max);
        // Offsets between `next` and `from` were not evaluated: skipping them would lose messages.
        if next < pick.from || end <= next {
            return vec![];
        }
        let room = self.subscriptions.room(to.group, to.topic, pick.queue);
        let mut free = pick.fresh.iter().copied().filter(|o| (next..end).contains(o));
        let offsets: Vec<_> = free.by_ref().take(room).collect();
        // The first message that found no room is where the next pop goes on.
        let end = free.next().unwrap_or(end);
        if next < end {
            self.subscriptions.set_next(to.group, to.topic, pick.queue, end);
            let place = (to.group, to.topic, pick.queue);
            kv::progress::put(&mut self.change.batch, place, end);
        }
        for offset in &offsets {
            self.deliver(at, to, &to.place(pick.queue, *offset), 1);
        }
        offsets.into_iter().map(|offset| Grant { offset, attempt: 1 }).collect()
    }

    fn deliver(&mut self, at: At, to: Receiver, place: &Place, attempt: u32) {
        let Receiver { client, auto_renew, due, .. } = to;
        let delivery = Delivery { due, since: at.stamp, id: at.delivery, attempt, auto_renew };
        self.subscriptions.put(place, Record { delivery, client });
        let client = self.subscriptions.client(client);
        kv::in_flight::put(&mut self.change.batch, place, &delivery, client);
    }

    /// Looks up where the granted messages lie in the log.
    fn locate(
        &self,
        at: At,
        to: Receiver,
        queue: QueueId,
        grants: &[Grant],
        granted: &mut Vec<Granted>,
    ) -> Result<(), kv::Error> {
        let offsets = grants.iter().map(|grant| grant.offset);
        let entries = self.entries_at(to.topic, queue, offsets)?;
        granted.extend(grants.iter().zip(entries).map(|(grant, entry)| Granted {
            queue,
            offset: grant.offset,
            position: entry.position,
            len: entry.len,
            attempt: grant.attempt,
            delivery: at.delivery,
            due: to.due,
        }));
        Ok(())
    }
}

impl Receiver {
    fn place(&self, queue: QueueId, offset: QueueOffset) -> Place {
        Place { group: self.group, topic: self.topic, queue, offset }
    }
}
