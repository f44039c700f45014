//! Commands that keep the log from growing for ever.

use bytes::Bytes;
use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Topic};

use super::TimerId;

/// Stores messages again, so that the segments in which they were can go. Answered by
/// [`super::Outcome::Carried`].
///
/// Changes nothing but positions: every reference that still points to where its message was
/// points into the entry that carries the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carry {
    /// At most [`Carry::MAX_MESSAGES`].
    pub messages: Vec<CarriedMessage>,
}

impl Carry {
    /// Messages in one command.
    pub const MAX_MESSAGES: usize = u16::MAX as usize;
}

/// A message that is stored again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedMessage {
    /// Where it was.
    pub from: LogOffset,
    /// At most [`CarriedMessage::MAX_REFERENCES`].
    pub references: Vec<Reference>,
    /// What is stored there.
    pub bytes: Bytes,
}

impl CarriedMessage {
    /// References to one message in one command.
    pub const MAX_REFERENCES: usize = u16::MAX as usize;
}

/// What keeps a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// An entry of a queue.
    Entry { topic: Topic, queue: QueueId, offset: QueueOffset },
    /// A message that waits for its time.
    Timer(TimerId),
    /// A half message, by the number of its transaction.
    Half(u64),
}

/// Forgets transactions that were given up: what they would have sent is kept no longer. Answered
/// by [`super::Outcome::TransactionsExpired`]. Others are left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpireTransactions {
    /// At most [`super::CheckTransactions::MAX_ORPHANS`].
    pub transactions: Vec<u64>,
}
