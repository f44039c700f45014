//! Places in topics.

use std::{fmt, num::TryFromIntError};

use crate::Topic;

/// A queue of a topic within one broker group; counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fails for negative ids. On the wire -1 stands for any queue: the caller decides what that means.
impl TryFrom<i32> for QueueId {
    type Error = TryFromIntError;

    fn try_from(id: i32) -> Result<Self, Self::Error> {
        u32::try_from(id).map(Self)
    }
}

/// A message's place within its queue. Dense: the next message gets the next offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueOffset(pub u64);

impl QueueOffset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a queue never holds 2^64 messages"))
    }
}

impl fmt::Display for QueueOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fails for negative offsets.
impl TryFrom<i64> for QueueOffset {
    type Error = TryFromIntError;

    fn try_from(offset: i64) -> Result<Self, Self::Error> {
        u64::try_from(offset).map(Self)
    }
}

/// A queue with its topic: what RocketMQ calls a message queue, within one broker group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Queue {
    pub topic: Topic,
    pub id: QueueId,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.id)
    }
}
