//! Reading a queue from an offset on, without taking anything.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    ClientId, ConsumerGroup, Filter, QueueId, QueueOffset, Topic, limits,
    v2::{self, Permission},
};

use super::{
    ANSWER_BYTES, ANSWER_RESERVE, Broker, CLIENT_RESERVE, INLINE_BYTES, Reading, quota::limited,
};
use crate::{
    Error,
    command::{Command, FollowReset, Rejection},
    delivery::Lease,
    error::Bound,
    state::QueueEntry,
};

/// Entries looked at in one go when not every message is wanted.
const ENTRIES_LOOKED_AT: usize = 1024;
/// Messages read in one go when it takes the message to know whether it is wanted.
const ENTRIES_READ: usize = 256;

/// A pull call.
#[derive(Debug, Clone)]
pub struct Pull {
    /// Who asks.
    pub client: Option<ClientId>,
    /// On whose behalf. The group need not exist, and pulling does not make it.
    pub group: ConsumerGroup,
    /// Of what.
    pub topic: Topic,
    /// From which queue.
    pub queue: QueueId,
    /// The first message wanted.
    pub offset: QueueOffset,
    /// Which messages.
    pub filter: Filter,
    /// How many at most; at least 1.
    pub batch: usize,
    /// How long to wait for a message.
    pub wait_until: Instant,
    /// When the client stops listening.
    pub deadline: Instant,
}

/// What a pull found. As long as it lives, its bytes count as in progress.
#[derive(Debug)]
pub struct Pulled {
    /// In the order of the queue; empty when the time to wait has passed, or on `misplaced`.
    pub messages: Vec<v2::Message>,
    /// Where to go on.
    pub next: QueueOffset,
    /// The offset asked for is none to pull from; `next` is the nearest that is.
    pub misplaced: Option<Misplaced>,
    _lease: Option<Lease>,
}

/// Why an offset cannot be pulled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// Messages there are not kept any more.
    #[error("offset {asked} is below the first one of the queue, {min}")]
    BeforeBegin {
        /// The offset asked for.
        asked: QueueOffset,
        /// Where the queue begins.
        min: QueueOffset,
    },
    /// No message can have been there.
    #[error("offset {asked} is beyond the end of the queue, {max}")]
    BeyondEnd {
        /// The offset asked for.
        asked: QueueOffset,
        /// Where the queue ends.
        max: QueueOffset,
    },
    /// The group was put somewhere else meanwhile.
    #[error("the consumer group was reset to offset {to}")]
    Reset {
        /// Where it goes on.
        to: QueueOffset,
    },
}

/// Part of a queue as this replica sees it.
struct Look {
    /// With tags that may match.
    entries: Vec<QueueEntry>,
    /// Behind the last one looked at.
    next: QueueOffset,
}

impl Broker {
    /// Waits for messages at or after an offset, and reads them. On the leader linearizable: what
    /// was stored before the call is found. On a follower that may answer, what it has applied is;
    /// what it cannot know is left to the leader. Changes nothing, but that it follows a reset.
    pub async fn pull(self: &Arc<Self>, mut pull: Pull) -> Result<Pulled, Error> {
        let reading = self.reading()?;
        let config = match reading {
            Reading::Latest => {
                if let Some(client) = &pull.client {
                    self.clients().seen(client, Instant::now());
                }
                self.topic(&pull.topic, pull.deadline).await?
            }
            Reading::Applied => self.view.topic(&pull.topic).ok_or_else(|| self.elsewhere())?,
        };
        if !matches!(config.permission, Permission::Read | Permission::ReadWrite) {
            return Err(Error::NotReadable(pull.topic.clone()));
        }
        if reading == Reading::Latest {
            self.catch_up(pull.deadline).await?;
        }
        if !self.view.may_consume(&pull.group) {
            return Err(Error::Rejected(Rejection::GroupDisabled));
        }
        self.must_not_owe(limited(&pull.group, pull.client.as_ref()))?;
        if let Some(misplaced) = self.follow_reset(&pull, reading).await? {
            return Ok(Pulled::misplaced(misplaced));
        }
        let began = pull.offset;
        loop {
            let Ok(mut place) = self.readers.join(&pull.topic, pull.queue) else {
                return Err(Error::Overloaded(Bound::LongPolls));
            };
            // What lies below was found in its place, and nothing goes away but by retention.
            let look = match self.look_from(&pull)? {
                Ok(look) => look,
                // It may be that only this replica has not come so far.
                Err(Misplaced::BeyondEnd { .. }) if reading == Reading::Applied => {
                    return Err(self.elsewhere());
                }
                Err(misplaced) => return Ok(Pulled::misplaced(misplaced)),
            };
            let found = self.read(&pull, look).await?;
            if !found.messages.is_empty() {
                for message in &found.messages {
                    let place = (&pull.group, &pull.topic);
                    self.metrics.delivered(place, message.body.len(), 1);
                }
                let bodies = found.messages.iter().map(|message| message.body.len());
                self.charge(limited(&pull.group, pull.client.as_ref()), bodies);
                return Ok(found);
            }
            let moved = found.next > pull.offset;
            pull.offset = found.next;
            if self.is_stopping() || Instant::now() >= pull.wait_until {
                return Ok(Pulled::nothing(pull.offset));
            }
            if !moved {
                let until = pull.wait_until.into();
                if tokio::time::timeout_at(until, place.called()).await.is_err() {
                    return Ok(Pulled::nothing(pull.offset));
                }
                if self.reading()? != reading {
                    return Err(self.elsewhere());
                }
                let asked = Pull { offset: began, ..pull.clone() };
                if let Some(misplaced) = self.follow_reset(&asked, reading).await? {
                    return Ok(Pulled::misplaced(misplaced));
                }
            }
        }
    }

    /// A group that was reset hears of it with its next pull, and again until it pulls from where
    /// it was put; that counts as having followed.
    async fn follow_reset(
        &self,
        pull: &Pull,
        reading: Reading,
    ) -> Result<Option<Misplaced>, Error> {
        let Pull { group, topic, queue, .. } = pull;
        let Some((reset, committed)) = self.view.pending_reset(group, topic, *queue) else {
            return Ok(None);
        };
        if reading == Reading::Applied {
            // Following is a change, and so is what may have come after it.
            return Err(self.elsewhere());
        }
        if !(reset.to..=committed).contains(&pull.offset) {
            return Ok(Some(Misplaced::Reset { to: committed }));
        }
        let follow = Command::FollowReset(FollowReset {
            group: group.clone(),
            topic: topic.clone(),
            queue: *queue,
            reset: reset.id,
        });
        self.propose(&follow, pull.deadline).await?;
        Ok(None)
    }

    fn look_from(&self, pull: &Pull) -> Result<Result<Look, Misplaced>, Error> {
        let (hashes, most) = match &pull.filter {
            Filter::Tags(tags) => (tags.hashes(), pull.batch),
            Filter::Sql(_) => (None, ENTRIES_READ),
        };
        let at = if hashes.is_none() { most } else { ENTRIES_LOOKED_AT };
        let (range, entries) = self.view.stretch(&pull.topic, pull.queue, pull.offset, at)?;
        let asked = pull.offset;
        if asked < range.start {
            return Ok(Err(Misplaced::BeforeBegin { asked, min: range.start }));
        }
        if asked > range.end {
            return Ok(Err(Misplaced::BeyondEnd { asked, max: range.end }));
        }
        let mut look = Look { entries: Vec::new(), next: asked };
        let mut bytes = 0;
        for entry in entries {
            if hashes.as_ref().is_none_or(|hashes| hashes.contains(&entry.tag_hash)) {
                bytes += u64::from(entry.len);
                let full = look.entries.len() == most || bytes > ANSWER_BYTES;
                if full && !look.entries.is_empty() {
                    break;
                }
                look.entries.push(entry);
            }
            look.next = entry.offset.next();
        }
        Ok(Ok(look))
    }

    async fn read(self: &Arc<Self>, pull: &Pull, look: Look) -> Result<Pulled, Error> {
        let Look { entries, next } = look;
        let bytes = entries.iter().map(|entry| u64::from(entry.len)).sum::<u64>();
        let lease = self.receive_budget.take(usize::try_from(bytes).unwrap_or(usize::MAX));
        let lease = lease.ok_or(Error::Overloaded(Bound::ReceiveBytes))?;
        let cold = entries.first().is_some_and(|entry| self.is_cold(entry.position));
        let (messages, full_at) = if bytes <= INLINE_BYTES && !cold {
            self.read_entries(pull, &entries)?
        } else {
            let (broker, pull) = (Arc::clone(self), pull.clone());
            let task = tokio::task::spawn_blocking(move || broker.read_entries(&pull, &entries));
            task.await.expect("reading does not panic")?
        };
        let next = full_at.unwrap_or(next);
        Ok(Pulled { messages, next, misplaced: None, _lease: Some(lease) })
    }

    /// What is wanted of the entries, and the first that there was no room for.
    fn read_entries(
        &self,
        pull: &Pull,
        entries: &[QueueEntry],
    ) -> Result<(Vec<v2::Message>, Option<QueueOffset>), Error> {
        let mut messages = Vec::with_capacity(pull.batch.min(entries.len()));
        for entry in entries {
            if messages.len() == pull.batch {
                return Ok((messages, Some(entry.offset)));
            }
            let Some(message) = self.stored(&pull.topic, pull.queue, entry)? else { continue };
            // Tags of equal hash need not be equal.
            if pull.filter.matches(&message) {
                messages.push(message);
            }
        }
        Ok((messages, None))
    }
}

impl Pulled {
    fn nothing(next: QueueOffset) -> Self {
        Pulled { messages: Vec::new(), next, misplaced: None, _lease: None }
    }

    fn misplaced(misplaced: Misplaced) -> Self {
        let next = match misplaced {
            Misplaced::BeforeBegin { min, .. } => min,
            Misplaced::BeyondEnd { max, .. } => max,
            Misplaced::Reset { to } => to,
        };
        Pulled { messages: Vec::new(), next, misplaced: Some(misplaced), _lease: None }
    }
}

/// How long a pull waits: what it asks for, or what the deadline leaves beside a client's own
/// reserve; never beyond the deadline. Unlike a receive call it may ask for no wait at all.
pub fn pulling_time(asked: Option<Duration>, left: Duration) -> Duration {
    asked
        .unwrap_or_else(|| left.saturating_sub(CLIENT_RESERVE))
        .min(limits::LONG_POLL_MAX)
        .min(left.saturating_sub(ANSWER_RESERVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_pull_waits_as_long_as_it_asks_and_its_deadline_allows() {
        assert_eq!(pulling_time(Some(S(0)), S(3)), S(0));
        assert_eq!(pulling_time(Some(S(10)), S(13)), S(10));
        assert_eq!(pulling_time(Some(S(60)), S(90)), S(20));
        assert_eq!(pulling_time(Some(S(20)), S(20)), S(20) - ANSWER_RESERVE);
        assert_eq!(pulling_time(None, S(3)), Duration::from_millis(1500));
        assert_eq!(pulling_time(None, S(1)), S(0));
    }
}
