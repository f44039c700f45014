//! Offsets of queues and of consumer groups.

use std::time::Instant;

use commitlog::Bug;
use proto::{ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic};

use super::{Broker, sown, unexpected};
use crate::{
    Error,
    command::{Command, CommitOffset, Outcome, QueueReset, ResetOffsets, ResetTo},
};

/// An offset by description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// The first message that the queue holds.
    Begin,
    /// The next message that the queue gets.
    End,
    /// The first message that entered the queue at this time or later; the end when none did.
    Time(Timestamp),
    /// As given.
    Offset(QueueOffset),
}

impl Broker {
    /// The group has consumed everything of the queue below the offset. Returns what is committed
    /// then: more, if the group was further already.
    pub async fn commit_offset(
        &self,
        commit: CommitOffset,
        deadline: Instant,
    ) -> Result<QueueOffset, Error> {
        self.leading()?;
        match self.propose(&Command::CommitOffset(commit), deadline).await? {
            Outcome::OffsetCommitted { offset } => Ok(offset),
            other => unexpected(&other),
        }
    }

    /// What the group has committed. Linearizable.
    pub async fn committed_offset(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
        deadline: Instant,
    ) -> Result<QueueOffset, Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        self.view.queue(topic, queue)?;
        let committed = self.view.committed_offset(group, topic, queue).ok_or(Error::NoOffset)?;
        Ok(if Bug::B08.is_sown() { sown::known(topic, queue, committed) } else { committed })
    }

    /// Where a spot of a queue is now. Linearizable.
    pub async fn find_offset(
        &self,
        topic: &Topic,
        queue: QueueId,
        spot: Spot,
        deadline: Instant,
    ) -> Result<QueueOffset, Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        let range = self.view.queue(topic, queue)?;
        match spot {
            Spot::Begin => Ok(range.start),
            Spot::End => Ok(range.end),
            Spot::Offset(offset) => Ok(offset),
            Spot::Time(time) => self.view.offset_at(topic, queue, time),
        }
    }

    /// Puts the group at this spot, in one queue or in all of the topic, all at once.
    pub async fn reset_offsets(
        &self,
        group: ConsumerGroup,
        topic: Topic,
        queue: Option<QueueId>,
        spot: Spot,
        deadline: Instant,
    ) -> Result<Vec<QueueReset>, Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        if self.view.topic(&topic).is_none() {
            return Err(Error::TopicNotFound(topic.clone()));
        }
        let queues: Vec<QueueId> = match queue {
            Some(queue) => vec![queue],
            None => self.view.queue_ends(&topic).into_iter().map(|(id, ..)| id).collect(),
        };
        let (found, max) = (queues.len(), ResetOffsets::MAX_QUEUES);
        if found > max {
            return Err(Error::TooManyEntries { found, max });
        }
        let mut targets = Vec::with_capacity(found);
        for queue in queues {
            targets.push((queue, self.reset_target(&topic, queue, spot)?));
        }
        let reset = ResetOffsets { group: group.clone(), topic: topic.clone(), queues: targets };
        match self.propose(&Command::ResetOffsets(reset), deadline).await? {
            Outcome::OffsetsReset { queues } => {
                tracing::info!(%group, %topic, queues = queues.len(), ?spot, "offsets reset");
                Ok(queues)
            }
            other => unexpected(&other),
        }
    }

    /// Messages that arrive between this look and the reset enter their queue later than any time
    /// that has passed, so the offset found for a time stays right. A time to come is the end.
    fn reset_target(&self, topic: &Topic, queue: QueueId, spot: Spot) -> Result<ResetTo, Error> {
        Ok(match spot {
            Spot::Begin => ResetTo::Begin,
            Spot::End => ResetTo::End,
            Spot::Offset(offset) => ResetTo::Offset(offset),
            Spot::Time(time) if time > self.view.log_time() => ResetTo::End,
            Spot::Time(time) => {
                self.view.queue(topic, queue)?;
                ResetTo::Offset(self.view.offset_at(topic, queue, time)?)
            }
        })
    }
}
