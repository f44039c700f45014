//! What is kept, and what need not be any more.

use std::ops::Range;

use bytes::Bytes;
use proto::{QueueId, QueueOffset, Timestamp, Topic, v2};
use raft::LogOffset;

use super::{View, store};
use crate::{
    Error,
    command::Retention,
    kv::retained::Live,
    state::{Kept, Lying, TopicState, Walk},
};

/// What is known of the first message of a queue: its offset, and when it entered.
pub type Head = Option<(QueueOffset, Timestamp)>;

impl View {
    /// How much of a topic is kept.
    pub fn retention(&self, topic: &Topic) -> Retention {
        self.state.read().topic(topic).map(TopicState::retention).unwrap_or_default()
    }

    /// The feature level of the group.
    pub fn level(&self) -> u32 {
        self.state.read().level()
    }

    /// All topics, how much of each is kept, and how many queues it has.
    pub fn topics_kept(&self) -> Vec<(Topic, Retention, u32)> {
        let state = self.state.read();
        let kept = |t: &TopicState| (t.name().clone(), t.retention(), t.readable());
        state.topics().map(kept).collect()
    }

    /// How much of the log is kept.
    pub fn kept(&self) -> Kept {
        self.state.read().kept()
    }

    /// What is kept of a topic.
    pub fn kept_of(&self, topic: &Topic) -> Live {
        self.state.read().kept_of(topic)
    }

    /// When the segment at `base` began, or the first one after it.
    pub fn segment_started(&self, base: LogOffset) -> Option<Timestamp> {
        self.state.read().segment_started(base)
    }

    /// Queues whose first message entered before `before`, and up to where they hold only messages
    /// that entered before `since`, `most` of each at most. `heads`, by queue, remembers what was
    /// seen: queues are looked at again when that has changed.
    pub fn overdue_in(
        &self,
        topic: &Topic,
        queues: Range<u32>,
        (since, before): (Timestamp, Timestamp),
        most: u64,
        heads: &mut Vec<Head>,
    ) -> Result<Vec<(QueueId, QueueOffset)>, Error> {
        let state = self.state.read();
        let Some(known) = state.topic(topic) else { return Ok(vec![]) };
        heads.resize(heads.len().max(queues.end as usize), None);
        let mut found = Vec::new();
        for queue in queues.map(QueueId) {
            let Some(held) = known.offsets(queue).filter(|held| !held.is_empty()) else { continue };
            let head = &mut heads[queue.0 as usize];
            if head.is_none_or(|(offset, _)| offset != held.start) {
                let entry = state.entry(topic, queue, held.start).map_err(|error| store(&error))?;
                *head = entry.map(|entry| (entry.offset, entry.visible));
            }
            if head.is_some_and(|(_, visible)| visible < before) {
                let to = state.older_than(topic, queue, since, most);
                found.extend(to.map_err(|error| store(&error))?.map(|to| (queue, to)));
            }
        }
        Ok(found)
    }

    /// See [`crate::state::State::oldest_of`].
    pub fn oldest_of(
        &self,
        topic: &Topic,
        excess: u64,
        most: usize,
    ) -> Result<Vec<(QueueId, QueueOffset)>, Error> {
        self.state.read().oldest_of(topic, excess, most).map_err(|error| store(&error))
    }

    /// See [`crate::state::State::parked_before`].
    pub fn parked_before(
        &self,
        most: usize,
        until: impl Fn(&Topic) -> Option<Timestamp>,
    ) -> Vec<u64> {
        self.state.read().parked_before(most, until)
    }

    /// See [`crate::state::State::worth_carrying`].
    pub fn worth_carrying(&self, share: u64, pressed: bool) -> Option<(LogOffset, Live)> {
        self.state.read().worth_carrying(share, pressed)
    }

    /// See [`crate::state::State::lying_in`].
    pub fn lying_in(
        &self,
        base: LogOffset,
        from: Walk,
        most: usize,
    ) -> Result<(Vec<Lying>, Walk), Error> {
        self.state.read().lying_in(base, from, most).map_err(|error| store(&error))
    }

    /// The message of an entry that was seen to lie at a place. It may have been carried since;
    /// `None` when it is kept no longer.
    pub fn message_of(
        &self,
        (topic, queue, offset): (&Topic, QueueId, QueueOffset),
        (position, len): (LogOffset, u32),
    ) -> Result<Option<v2::Message>, Error> {
        let failed = match self.message(position, len) {
            Ok(message) => return Ok(Some(message)),
            Err(error) => error,
        };
        match self.entry(topic, queue, offset)? {
            None => Ok(None),
            Some(now) if now.position != position => self.message(now.position, now.len).map(Some),
            Some(_) => Err(failed),
        }
    }

    /// Nobody refers to what lies there any more: who saw it there has to look again.
    pub fn is_gone(&self, position: LogOffset) -> bool {
        position < self.state.read().floor()
    }

    /// What is stored at a place of the log.
    pub fn stored_at(&self, position: LogOffset, len: u32) -> Result<Bytes, Error> {
        self.log.bytes(position, len).map_err(|error| Error::Unreadable {
            position: position.0,
            len,
            reason: error.to_string(),
        })
    }
}
