//! What a client asks.

use serde::{Deserialize, Serialize};

use crate::accounting::Message;

/// A queue of a topic, by its place in [`crate::history::Plan::keys`].
pub type Key = u32;

/// How a transaction ends, or what its producer says of it when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    Commit,
    Rollback,
    /// Not decided yet; only an answer to a check.
    Undecided,
}

/// How the members of a consumer group change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Join,
    Leave,
    /// Gone without a word: its leases run out, its queues have to be given away.
    Crash,
}

/// One request. Clients never repeat one by themselves: a second attempt is a second operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "value", rename_all = "snake_case")]
pub enum Call {
    /// Sends one message, or a batch that has to be stored as a whole.
    Send {
        key: Key,
        ids: Vec<Message>,
        /// Messages of one message group are delivered in order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_group: Option<String>,
        /// Wall clock time before which it must not be delivered, in ms since the epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deliver_at: Option<u64>,
    },
    /// Takes a delayed message back.
    Recall { id: Message },
    /// Reads messages of a queue without taking them. `from` is absent where the reader goes on
    /// after what it read last.
    Poll {
        key: Key,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// The consumer group on whose behalf it reads, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// The offset that the next message of the queue will have.
    MaxOffset { key: Key },
    /// The lowest offset that is still there.
    MinOffset { key: Key },
    /// Looks one message up by its id or its key.
    Lookup { key: Key, id: Message },
    /// Takes up to a batch of messages, which then nobody else of the group gets for
    /// `invisible_ms`.
    Receive {
        group: String,
        key: Key,
        invisible_ms: u64,
        /// How long the server may wait for a message.
        wait_ms: u64,
        /// Names a receive of an ordered group, so that its repetition gets the same messages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt_id: Option<String>,
    },
    /// Says that a delivery was dealt with.
    Ack { group: String, id: Message, handle: u64 },
    /// Moves the end of a delivery's invisible time; 0 gives the message back at once.
    ChangeInvisible { group: String, id: Message, handle: u64, invisible_ms: u64 },
    /// Reads the dead-letter queue of a group to its end.
    DeadLetters { group: String },
    /// Sets the consumer offset.
    Commit { group: String, key: Key, offset: u64 },
    /// Asks for the consumer offset.
    Query { group: String, key: Key },
    /// Where a consumer that starts again goes on.
    Resume { group: String, key: Key },
    /// Stores a half message: a transfer of `amount` between two accounts.
    Prepare { tx: Message, key: Key, from: u32, to: u32, amount: u64 },
    /// The producer's own ledger decides; no request to the cluster.
    Decide { tx: Message, resolution: Resolution },
    /// Tells the cluster how a transaction ended.
    End { tx: Message, resolution: Resolution },
    /// The cluster asked for the outcome of a transaction, and this is the answer that it got.
    Check { tx: Message },
    /// The transactions that the cluster has given up asking about.
    Parked {},
    /// A member of a group comes or goes.
    Member { group: String, member: String, change: Change },
    /// Which queues a member has to read.
    Assignment { group: String, member: String },
    /// Sets a piece of metadata, as a register.
    Write { register: String, value: u64 },
    /// Sets it if it has the expected value.
    Cas { register: String, expected: u64, value: u64 },
    /// Reads it.
    Read { register: String },
    /// Adds an element to a listed set, a topic for example.
    Add { set: String, element: u64 },
    /// Removes an element from it. Elements are never added again.
    Remove { set: String, element: u64 },
    /// Lists it.
    List { set: String },
    /// Asks which node leads the queues of a topic.
    Route { topic: String },
}

impl Call {
    /// The name of the operation, as in the file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Send { .. } => "send",
            Self::Recall { .. } => "recall",
            Self::Poll { .. } => "poll",
            Self::MaxOffset { .. } => "max_offset",
            Self::MinOffset { .. } => "min_offset",
            Self::Lookup { .. } => "lookup",
            Self::Receive { .. } => "receive",
            Self::Ack { .. } => "ack",
            Self::ChangeInvisible { .. } => "change_invisible",
            Self::DeadLetters { .. } => "dead_letters",
            Self::Commit { .. } => "commit",
            Self::Query { .. } => "query",
            Self::Resume { .. } => "resume",
            Self::Prepare { .. } => "prepare",
            Self::Decide { .. } => "decide",
            Self::End { .. } => "end",
            Self::Check { .. } => "check",
            Self::Parked {} => "parked",
            Self::Member { .. } => "member",
            Self::Assignment { .. } => "assignment",
            Self::Write { .. } => "write",
            Self::Cas { .. } => "cas",
            Self::Read { .. } => "read",
            Self::Add { .. } => "add",
            Self::Remove { .. } => "remove",
            Self::List { .. } => "list",
            Self::Route { .. } => "route",
        }
    }

    /// Whether it leaves nothing behind, so that an error means that nothing happened.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Self::Poll { .. }
            | Self::MaxOffset { .. }
            | Self::MinOffset { .. }
            | Self::Lookup { .. }
            | Self::DeadLetters { .. }
            | Self::Query { .. }
            | Self::Resume { .. }
            | Self::Parked {}
            | Self::Assignment { .. }
            | Self::Read { .. }
            | Self::List { .. }
            | Self::Route { .. } => true,
            Self::Send { .. }
            | Self::Recall { .. }
            // Messages that a lost answer carried are invisible to everyone for a while.
            | Self::Receive { .. }
            | Self::Ack { .. }
            | Self::ChangeInvisible { .. }
            | Self::Commit { .. }
            | Self::Prepare { .. }
            | Self::Decide { .. }
            | Self::End { .. }
            | Self::Check { .. }
            | Self::Member { .. }
            | Self::Write { .. }
            | Self::Cas { .. }
            | Self::Add { .. }
            | Self::Remove { .. } => false,
        }
    }

    /// The queue that it is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::Send { key, .. }
            | Self::Poll { key, .. }
            | Self::MaxOffset { key }
            | Self::MinOffset { key }
            | Self::Lookup { key, .. }
            | Self::Receive { key, .. }
            | Self::Commit { key, .. }
            | Self::Query { key, .. }
            | Self::Resume { key, .. }
            | Self::Prepare { key, .. } => Some(*key),
            Self::Recall { .. }
            | Self::Ack { .. }
            | Self::ChangeInvisible { .. }
            | Self::DeadLetters { .. }
            | Self::Decide { .. }
            | Self::End { .. }
            | Self::Check { .. }
            | Self::Parked {}
            | Self::Member { .. }
            | Self::Assignment { .. }
            | Self::Write { .. }
            | Self::Cas { .. }
            | Self::Read { .. }
            | Self::Add { .. }
            | Self::Remove { .. }
            | Self::List { .. }
            | Self::Route { .. } => None,
        }
    }
}
