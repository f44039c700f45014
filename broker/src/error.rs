//! Why an operation did not do what was asked, and what is true afterwards.

use std::time::Duration;

use proto::{
    BrokerName, InvalidFilter, InvalidMessage, InvalidName, InvalidRecallHandle,
    InvalidReceiptHandle, InvalidTransactionId, Topic, v2,
};
use raft::ProposeError;

use crate::command::{Limited, Rejection};

/// What is true after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It did not happen and will not: the request must change.
    Rejected,
    /// It did not happen: the same request may be made again.
    NotDone,
    /// It was proposed, and may happen or have happened.
    Unknown,
}

/// An operation's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name that cannot be.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Messages that break a rule.
    #[error(transparent)]
    Message(#[from] InvalidMessage),
    /// A filter that does not parse.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// A receipt handle that is no handle.
    #[error("INVALID_RECEIPT_HANDLE: {0}")]
    Handle(#[from] InvalidReceiptHandle),
    /// A handle of another group, topic or broker.
    #[error("INVALID_RECEIPT_HANDLE: the receipt handle is for another {0}")]
    ForeignHandle(&'static str),
    /// The delivery ended: its invisible duration passed, or the message was acknowledged.
    #[error("INVALID_RECEIPT_HANDLE: the delivery has ended")]
    StaleHandle,
    /// A transaction id that is no id.
    #[error(transparent)]
    TransactionId(#[from] InvalidTransactionId),
    /// A transaction of another topic or broker.
    #[error("the transaction is of another {0}")]
    ForeignTransaction(&'static str),
    /// A recall handle that is no handle.
    #[error("recall handle is invalid: {0}")]
    RecallHandle(#[from] InvalidRecallHandle),
    /// A recall handle of another broker or topic.
    #[error("recall handle is invalid: it is for another {0}")]
    ForeignRecallHandle(&'static str),
    /// Too late: the message to be recalled is in its queue.
    #[error("the message was delivered already")]
    AlreadyDelivered,
    /// No such delayed message, or one that was due so long ago that nobody remembers.
    #[error("there is no such delayed message")]
    NothingToRecall,
    /// The request does not say who asks.
    #[error("client id cannot be empty")]
    NoClientId,
    /// The topic does not exist.
    #[error("topic {0} does not exist")]
    TopicNotFound(Topic),
    /// The topic takes no messages.
    #[error("no writable queue: topic {0} does not permit sending")]
    NotWritable(Topic),
    /// The topic gives no messages.
    #[error("no readable queue: topic {0} does not permit receiving")]
    NotReadable(Topic),
    /// Messages of several message groups in one request.
    #[error("the messages of one request must be of one message group")]
    MixedMessageGroups,
    /// The message group's queue is in another broker group: the topic's placement is changing.
    #[error("the queue of the message group is at {0}")]
    PlacedElsewhere(BrokerName),
    /// The topic, or the queue that was chosen, takes no messages in this broker group any more;
    /// another queue or group does.
    #[error("closed for messages in this broker group")]
    ClosedHere,
    /// A command that not all replicas understand yet.
    #[error(
        "this needs feature level {needed}, and the group stays at {level} until all its replicas \
         run the newer release"
    )]
    Level {
        /// The command's.
        needed: u32,
        /// The group's.
        level: u32,
    },
    /// Something that this version does not do.
    #[error("{0} is not available in this version")]
    Unsupported(&'static str),
    /// Shorter than consumers may ask for.
    #[error("the invisibleTime is too small: {asked:?} is less than {min:?}")]
    InvisibleTooSmall {
        /// As asked for.
        asked: Duration,
        /// The limit.
        min: Duration,
    },
    /// Longer than consumers may ask for.
    #[error("the invisibleTime is too large: {asked:?} is more than {max:?}")]
    InvisibleTooLarge {
        /// As asked for.
        asked: Duration,
        /// The limit.
        max: Duration,
    },
    /// A receive call whose deadline leaves no time to wait.
    #[error("the deadline leaves {left:?} for polling, less than {min:?}")]
    NoTimeToPoll {
        /// Until the deadline.
        left: Duration,
        /// The limit.
        min: Duration,
    },
    /// More entries than one request may hold.
    #[error("the request holds {found} entries, over the limit of {max}")]
    TooManyEntries {
        /// In the request.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// More bytes than one command may have.
    #[error("the request becomes {bytes} bytes in the log, over the limit of {max}")]
    TooLarge {
        /// Of the command.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The replicated state says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A setting that cannot be.
    #[error("{field}: {why}")]
    BadSetting {
        /// Which.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A setting that cannot be changed so while the broker runs.
    #[error("{why}")]
    LiveSetting {
        /// What is wrong, and what to do.
        why: String,
    },
    /// An offset that no queue can have.
    #[error("{0} is not an offset")]
    IllegalOffset(i64),
    /// The group has no offset in the queue.
    #[error("the consumer group has committed no offset in this queue")]
    NoOffset,
    /// A bound is reached; nothing was proposed.
    #[error("too many requests: {0}")]
    Overloaded(Bound),
    /// Its quota is used up; nothing was proposed.
    #[error("too many requests: the quota of {0} is used up")]
    QuotaExceeded(Limited),
    /// Another node leads, or none.
    #[error("this node does not lead")]
    NotLeader {
        /// Client address of the leader, where it is known.
        leader: Option<String>,
    },
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopped,
    /// Proposed; nobody can say what became of it.
    #[error("proposed, outcome unknown")]
    Unknown,
    /// The state's store failed. The node is about to stop.
    #[error("read the state: {reason}")]
    Store {
        /// Why.
        reason: String,
    },
    /// The log did not give back what it holds.
    #[error("read {len} bytes at {position} of the log: {reason}")]
    Unreadable {
        /// Log offset.
        position: u64,
        /// Bytes wanted.
        len: u32,
        /// Why not.
        reason: String,
    },
}

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bound {
    /// Commands accepted and not yet applied.
    #[error("the log has a full queue of proposals")]
    Proposals,
    /// The disk of the leader.
    #[error("the disk of the leader is full")]
    Disk,
    /// Bytes of sends in progress.
    #[error("the bytes of sends in progress are at their limit")]
    SendBytes,
    /// Bytes of deliveries in progress.
    #[error("the bytes of deliveries in progress are at their limit")]
    ReceiveBytes,
    /// Receive calls that wait.
    #[error("polling full: as many receive calls wait as may")]
    LongPolls,
    /// Answers that nobody has read yet.
    #[error("too many answers are on their way to consumers")]
    Answers,
}

impl Error {
    /// What is true after it.
    pub fn fate(&self) -> Fate {
        match self {
            Error::Name(_)
            | Error::Message(_)
            | Error::Filter(_)
            | Error::Handle(_)
            | Error::ForeignHandle(_)
            | Error::StaleHandle
            | Error::TransactionId(_)
            | Error::ForeignTransaction(_)
            | Error::RecallHandle(_)
            | Error::ForeignRecallHandle(_)
            | Error::AlreadyDelivered
            | Error::NothingToRecall
            | Error::NoClientId
            | Error::TopicNotFound(_)
            | Error::NotWritable(_)
            | Error::NotReadable(_)
            | Error::MixedMessageGroups
            | Error::Unsupported(_)
            | Error::InvisibleTooSmall { .. }
            | Error::InvisibleTooLarge { .. }
            | Error::NoTimeToPoll { .. }
            | Error::TooManyEntries { .. }
            | Error::TooLarge { .. }
            | Error::Rejected(_)
            | Error::IllegalOffset(_)
            | Error::NoOffset
            | Error::BadSetting { .. }
            | Error::LiveSetting { .. } => Fate::Rejected,
            Error::Overloaded(_)
            | Error::PlacedElsewhere(_)
            | Error::ClosedHere
            | Error::Level { .. }
            | Error::QuotaExceeded(_)
            | Error::NotLeader { .. }
            | Error::Stopped
            | Error::Store { .. } => Fate::NotDone,
            Error::Unknown | Error::Unreadable { .. } => Fate::Unknown,
        }
    }

    /// For a message whose kind nobody handles yet.
    pub fn unsupported_type(kind: v2::MessageType) -> Error {
        Error::Unsupported(match kind {
            v2::MessageType::Fifo => "sending FIFO messages",
            v2::MessageType::Delay => "sending delayed messages",
            v2::MessageType::Transaction => "sending transactional messages",
            v2::MessageType::Lite => "sending to lite topics",
            v2::MessageType::Priority => "sending messages with a priority",
            v2::MessageType::Normal | v2::MessageType::Unspecified => "this type of message",
        })
    }
}

impl From<ProposeError> for Error {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Error::NotLeader {
                leader: leader.map(|member| member.client_addr).filter(|addr| !addr.is_empty()),
            },
            ProposeError::Overloaded => Error::Overloaded(Bound::Proposals),
            ProposeError::DiskFull => Error::Overloaded(Bound::Disk),
            ProposeError::Stopped => Error::Stopped,
            ProposeError::TooLarge { bytes, max } => Error::TooLarge { bytes, max },
            ProposeError::Unknown => Error::Unknown,
        }
    }
}
