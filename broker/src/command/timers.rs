//! Commands about messages that are delivered later.

use proto::{QueueId, Timestamp, Topic};

use super::NewMessage;

/// Stores messages of which at least one is to be delivered later. Answered by
/// [`super::Outcome::Delayed`].
///
/// A message that is due by log time when the command is applied enters its queue at once, like one
/// of an [`super::Append`]; the others get a timer and are in no queue until a [`Fire`] finds them
/// due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendDelayed {
    pub topic: Topic,
    /// Where the messages go when their time has come.
    pub queue: QueueId,
    /// At least one, at most [`super::Append::MAX_MESSAGES`].
    pub messages: Vec<DelayedMessage>,
}

/// A message and when it is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayedMessage {
    /// Not before this, in log time. 0 for a message that is not delayed.
    pub due: Timestamp,
    pub message: NewMessage,
}

/// Delivers messages whose time has come by the command's own log time, the earliest first and
/// those of one time as they were sent. Answered by [`super::Outcome::Fired`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fire {
    /// How many at most.
    pub most: u32,
}

/// Names one timer of a broker group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    /// When it fires, in log time. First, because timers fire in this order.
    pub due: Timestamp,
    /// Unique within the broker group, ascending as messages were sent.
    pub number: u64,
}

/// Takes a message back that was not delivered yet. Answered by [`super::Outcome::Recalled`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recall {
    pub topic: Topic,
    pub timer: TimerId,
}
