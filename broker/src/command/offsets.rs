//! Commands about how far a consumer group has come in a queue.

use proto::{ConsumerGroup, QueueId, QueueOffset, Topic};

/// Everything of a queue below `offset` is consumed by the group. Answered by
/// [`super::Outcome::OffsetCommitted`].
///
/// Never takes anything back: an offset at or below what is committed already changes nothing. The
/// group's offset is one, whether its members pull or pop: deliveries in flight below `offset` end
/// as if they were acknowledged, and pops go on at `offset` or after. The consumer group comes into
/// being with its first commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffset {
    pub group: ConsumerGroup,
    pub topic: Topic,
    pub queue: QueueId,
    pub offset: QueueOffset,
}

/// Puts a consumer group somewhere else in queues of a topic, ahead or back; all of them or none.
/// Answered by [`super::Outcome::OffsetsReset`].
///
/// Deliveries in flight in these queues end, and receipt handles given out before are not valid any
/// more. Commits are refused until a pull of the group has started where it was put, see
/// [`FollowReset`]: what a running consumer had in hand before must not undo the reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetOffsets {
    pub group: ConsumerGroup,
    pub topic: Topic,
    /// At most [`ResetOffsets::MAX_QUEUES`].
    pub queues: Vec<(QueueId, ResetTo)>,
}

impl ResetOffsets {
    /// Queues in one command.
    pub const MAX_QUEUES: usize = u16::MAX as usize;
}

/// Where a consumer group is to go on in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// The first message that the queue holds.
    Begin,
    /// The next message that the queue gets.
    End,
    /// A message that the queue holds, or its end.
    Offset(QueueOffset),
}

/// A pull of the group has started where a reset put it: commits count again. Answered by
/// [`super::Outcome::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowReset {
    pub group: ConsumerGroup,
    pub topic: Topic,
    pub queue: QueueId,
    /// The reset that was followed; a later one still has to be.
    pub reset: u64,
}
