//! What became of a command, and what the leader should do about it.

use commitlog::position::{LogIndex, LogOffset};
use proto::{ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic};

use super::TimerId;

/// The answer to a command, equal on all replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To `PutTopic`.
    TopicPut {
        /// The topic is new.
        created: bool,
        /// The version in force now.
        version: u64,
    },
    /// To `Append`: one per message, in order.
    Appended {
        /// Log time of the entry that carries the command.
        stamp: Timestamp,
        messages: Vec<Placed>,
    },
    /// To `Pop`: what was granted; by pick, redeliveries first, then ascending offsets.
    Popped { granted: Vec<Granted> },
    /// To `Ack`: one per handle, in order.
    Acked(Vec<AckOutcome>),
    /// To `ChangeInvisible`.
    InvisibleChanged { due: Timestamp },
    /// To `Renew`.
    Renewed {
        /// Deliveries that were extended.
        count: u32,
    },
    /// To `Release`.
    Released {
        /// Deliveries that were let go of.
        count: u32,
    },
    /// To `Mark`.
    Marked {
        /// Of the entry that carries the command.
        index: LogIndex,
    },
    /// To `GiveBack`.
    GivenBack {
        /// Deliveries that were taken back.
        count: u32,
    },
    /// To `AppendDelayed`: one per message, in order.
    Delayed {
        /// Log time of the entry that carries the command.
        stamp: Timestamp,
        messages: Vec<Accepted>,
    },
    /// To `Fire`.
    Fired {
        /// Log time of the entry that carries the command: when the messages became visible.
        stamp: Timestamp,
        /// When each message was due, in the order in which they entered their queues.
        due: Vec<Timestamp>,
        /// Messages whose topic was deleted meanwhile: they went with it.
        dropped: u32,
    },
    /// To `Recall`.
    Recalled(RecallOutcome),
    /// To `CommitOffset`.
    OffsetCommitted {
        /// What is committed now; higher than asked for when that was old news.
        offset: QueueOffset,
    },
    /// To `ResetOffsets`: one per queue, in order.
    OffsetsReset { queues: Vec<QueueReset> },
    /// To `DeadLetter`: it is in the dead-letter queue, now or by an earlier command, or it was
    /// acknowledged before.
    DeadLettered,
    /// To `Redrive`.
    Redriven {
        /// Messages put back.
        count: u32,
        /// Where the next one goes on.
        next: QueueOffset,
    },
    /// To `AppendHalf`.
    HalfAppended {
        /// Log time of the entry that carries the command.
        stamp: Timestamp,
        /// Names the transaction within the broker group, for ever.
        transaction: u64,
        /// It had been appended before, by an earlier attempt of the same send.
        repeated: bool,
    },
    /// To `EndTransaction`.
    TransactionEnded {
        /// It had ended so before.
        repeated: bool,
    },
    /// To `CheckTransactions`.
    TransactionsChecked {
        /// Checks that count.
        count: u32,
    },
    /// To `ParkTransactions`.
    TransactionsParked {
        /// Transactions that were given up.
        count: u32,
    },
    /// To `Carry`.
    Carried {
        /// References that point to the new place now.
        references: u32,
        /// Bytes of messages that any of them pointed to.
        bytes: u64,
    },
    /// To `ExpireTransactions`.
    TransactionsExpired {
        /// Transactions that were forgotten.
        count: u32,
    },
    /// To `PutGroup` and `FollowReset`.
    Done,
    /// To any command: it changed nothing.
    Rejected(Rejection),
}

/// Where a message ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub queue: QueueId,
    pub offset: QueueOffset,
    /// It had been appended before, by an earlier attempt of the same send; this is where.
    pub repeated: bool,
}

/// What became of a message of an `AppendDelayed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It waits for its time.
    Waits {
        timer: TimerId,
        /// An earlier attempt of the same send had stored it. It may have been delivered since.
        repeated: bool,
    },
    /// Its time had come already.
    Queued(Placed),
}

/// What a recall did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecallOutcome {
    /// The message will never be delivered: it was taken back, now or by an earlier recall.
    Done,
    /// It had entered its queue.
    Delivered,
    /// No message of this topic waits or waited under this id, or it was due so long ago that
    /// nobody remembers.
    Unknown,
}

/// One message handed to the client of a `Pop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    pub queue: QueueId,
    pub offset: QueueOffset,
    /// Where the `v2.Message` lies in the log.
    pub position: LogOffset,
    pub len: u32,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// The attempts before this one; as many as `attempt` when this one does not count.
    pub before: u32,
    /// When it was handed out. Each hand-out of a delivery has its own.
    pub since: Timestamp,
    /// Names this delivery; goes into the receipt handle.
    pub delivery: u64,
    /// When it may be delivered again, in log time.
    pub due: Timestamp,
}

/// A queue in which a consumer group was put somewhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueReset {
    pub queue: QueueId,
    /// What was committed before.
    pub from: QueueOffset,
    /// Where the group goes on.
    pub to: QueueOffset,
    /// Deliveries that ended.
    pub ended: u32,
}

/// What an ack did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// Consumed, now or by an earlier ack.
    Acked,
    /// The invisible duration has ended, the message was delivered again since, or it was never
    /// delivered.
    InvalidHandle,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("no such topic")]
    TopicNotFound,
    #[error("the topic has {queues} queues")]
    QueueNotFound { queues: u32 },
    #[error("the topic does not permit sending")]
    TopicNotWritable,
    #[error("the topic does not permit receiving")]
    TopicNotReadable,
    #[error("the topic takes messages here: close its queues first")]
    TopicOpen,
    #[error(
        "{messages} messages of the topic are here that not all of its consumers have consumed, {delayed} delayed ones and {half} half messages"
    )]
    TopicNotDrained { messages: u64, delayed: u64, half: u64 },
    #[error("it has version {current} already")]
    StaleVersion { current: u64 },
    #[error("more than {max} queues in this broker group")]
    TooManyQueues { max: u32 },
    #[error("more than {max} topics in this broker group")]
    TooManyTopics { max: u32 },
    #[error("more than {max} consumer groups in this broker group")]
    TooManyGroups { max: u32 },
    #[error("more than {max} quotas in this broker group")]
    TooManyQuotas { max: u32 },
    #[error("more than {max} settings were changed in this broker group while it ran")]
    TooManyLiveSettings { max: u32 },
    #[error("no such consumer group")]
    GroupNotFound,
    #[error("the consumer group may not consume")]
    GroupDisabled,
    #[error("more than {max} delayed messages in this broker group")]
    TooManyTimers { max: u64 },
    #[error("the receipt handle is not valid any more")]
    InvalidHandle,
    #[error("the queue holds the offsets from {min} to {max}")]
    OffsetOutOfRange { min: QueueOffset, max: QueueOffset },
    #[error("the consumer group was reset to offset {to}: pull from there first")]
    OffsetReset { to: QueueOffset },
    #[error("dead letters up to {next} were put back already")]
    StaleRedrive { next: QueueOffset },
    #[error("no such transaction, or it ended long ago")]
    TransactionNotFound,
    #[error("the transaction was committed before")]
    TransactionCommitted,
    #[error("the transaction was rolled back before")]
    TransactionRolledBack,
    #[error("the transaction was given up after its last check; an administrator must resolve it")]
    TransactionParked,
    #[error("more than {max} unresolved transactions in this broker group")]
    TooManyTransactions { max: u32 },
    #[error("the offsets to hand out are not ascending within their range")]
    BadPick,
}

/// Something that happened to the state, for the leader's rim to react to. Followers ignore it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Messages are new in a queue.
    Appended { topic: Topic, queue: QueueId },
    /// A delivery of this consumer group ends at `at` unless it is acknowledged.
    Visible { group: ConsumerGroup, topic: Topic, queue: QueueId, at: Timestamp },
    /// A consumer group was put somewhere else in a queue.
    Reset { group: ConsumerGroup, topic: Topic, queue: QueueId, at: Timestamp },
    /// A transaction is to be asked about at `at` unless it has ended by then.
    Orphaned { at: Timestamp },
    /// A message waits until `due`.
    Scheduled { due: Timestamp },
    /// A topic was created, changed or deleted.
    TopicChanged { topic: Topic },
    /// A consumer group was created, changed or deleted.
    GroupChanged { group: ConsumerGroup },
    /// A setting of the brokers was changed. Followers do not ignore it.
    LiveSettingChanged,
}
