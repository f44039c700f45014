//! Commands of administrators, besides creating topics and consumer groups.

use std::fmt;

use proto::{ClientId, ConsumerGroup, QueueId, QueueOffset, Topic};

/// Removes a topic with its queues and everything that consumer groups have to do with it.
/// Answered by [`super::Outcome::Done`].
///
/// A topic that is created under the name later is another one: it starts at offset 0, and receipt
/// handles of the old one are not valid there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTopic {
    pub topic: Topic,
}

/// Removes a topic like [`DeleteTopic`], if it takes no messages here any more and nothing is left
/// of it: every message is consumed by each group that consumes the topic, and none is delayed or
/// half. Answered by [`super::Outcome::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetireTopic {
    pub topic: Topic,
}

/// Removes a consumer group with its progress, its deliveries and its quota. Answered by
/// [`super::Outcome::Done`]. A group of the same name begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteGroup {
    pub group: ConsumerGroup,
}

/// Lets a consumer group consume, or not: then it is handed nothing, and what it holds it can
/// still acknowledge. The group comes into being. Answered by [`super::Outcome::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchGroup {
    pub group: ConsumerGroup,
    pub enabled: bool,
}

/// Bounds how much may pass in a second. Answered by [`super::Outcome::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutQuota {
    pub of: Limited,
    pub quota: Quota,
}

/// Who or what a quota is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limited {
    /// What is sent to it. It need not exist yet; the quota goes when it is deleted.
    Topic(Topic),
    /// What is delivered to it. The same.
    Group(ConsumerGroup),
    /// What it sends and what is delivered to it.
    Client(ClientId),
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "topic {topic}"),
            Self::Group(group) => write!(f, "consumer group {group}"),
            Self::Client(client) => write!(f, "client {client}"),
        }
    }
}

/// How much may pass in a second; 0 is without bound. The default has no bound: it is as if there
/// were no quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub messages_per_second: u64,
    pub bytes_per_second: u64,
}

/// Sets how long and how much of a topic is kept, beside what holds for the whole log. Answered by
/// [`super::Outcome::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRetention {
    pub topic: Topic,
    pub retention: Retention,
}

/// How much of a topic is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds since the message entered its queue; 0 leaves it to the broker's settings,
    /// [`Retention::FOR_EVER`] is without end.
    pub ms: u64,
    /// Bytes of messages of all its queues in this broker group; 0 is without bound.
    pub bytes: u64,
}

impl Retention {
    /// Messages are kept however old they are.
    pub const FOR_EVER: u64 = u64::MAX;
}

/// Messages of a queue below `to` are kept no longer: they are delivered to nobody any more,
/// whether they were or not. Answered by [`super::Outcome::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expire {
    pub topic: Topic,
    pub queue: QueueId,
    pub to: QueueOffset,
}

/// Removes queues that a topic has beyond its number and that are drained, the last ones first.
/// Answered by [`super::Outcome::Done`]; nothing to remove is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseQueues {
    pub topic: Topic,
}
