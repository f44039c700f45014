//! What the log may hold: every change of a broker group's state is one [`Command`].
//!
//! A command is proposed by the leader, replicated, and applied by every replica in log order.
//! Its bytes are described in `docs/protocol/commands.md` and never change their meaning: a new
//! layout is a new tag.

mod administration;
mod codec;
#[cfg(test)]
mod codec_test;
mod give_back;
pub mod level;
mod mark;
mod offsets;
mod ordered;
mod ordered_codec;
mod outcome;
mod retention;
mod setting;
mod timers;
mod transactions;

use bytes::Bytes;
use proto::{BrokerName, ClientId, ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic, v2};

pub use administration::{
    CloseQueues, DeleteGroup, DeleteTopic, Expire, Limited, PutQuota, PutRetention, Quota,
    Retention, RetireTopic, SwitchGroup,
};
pub use codec::DecodeError;
pub(crate) use codec::{
    decode_group_config, decode_limited, decode_topic_config, encode_group_config, encode_limited,
    encode_topic_config, tag_named, verdict_byte, verdict_of,
};
pub use give_back::{GiveBack, Returned};
pub use level::RaiseLevel;
pub use mark::Mark;
pub use offsets::{CommitOffset, FollowReset, ResetOffsets, ResetTo};
pub(crate) use ordered::dead_letter_placement;
pub use ordered::{
    DEAD_LETTER_PREFIX, DeadLetter, FifoAgain, FifoFresh, FifoPick, PopFifo, Redrive,
    dead_letter_topic, is_dead_letter_topic,
};
pub use outcome::{
    Accepted, AckOutcome, Effect, Granted, Outcome, Placed, QueueReset, RecallOutcome, Rejection,
};
pub use retention::{CarriedMessage, Carry, ExpireTransactions, Reference};
pub use setting::{PutLiveSetting, PutSetting, Setting, SettingKind, SettingOf};
pub use timers::{AppendDelayed, DelayedMessage, Fire, Recall, TimerId};
pub use transactions::{
    AppendHalf, CheckTransactions, EndTransaction, Orphan, ParkTransactions, Resolver, Verdict,
};

/// A change of the state, as proposed. Whether and how it takes effect is decided when it is
/// applied, and told by its [`Outcome`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    PutTopic(PutTopic),
    PutGroup(PutGroup),
    Append(Append),
    Pop(Pop),
    Ack(Ack),
    ChangeInvisible(ChangeInvisible),
    Renew(Renew),
    Release(Release),
    GiveBack(GiveBack),
    AppendDelayed(AppendDelayed),
    Fire(Fire),
    Recall(Recall),
    CommitOffset(CommitOffset),
    ResetOffsets(ResetOffsets),
    FollowReset(FollowReset),
    PopFifo(PopFifo),
    DeadLetter(DeadLetter),
    Redrive(Redrive),
    AppendHalf(AppendHalf),
    EndTransaction(EndTransaction),
    CheckTransactions(CheckTransactions),
    ParkTransactions(ParkTransactions),
    DeleteTopic(DeleteTopic),
    DeleteGroup(DeleteGroup),
    SwitchGroup(SwitchGroup),
    PutQuota(PutQuota),
    PutRetention(PutRetention),
    Expire(Expire),
    CloseQueues(CloseQueues),
    Carry(Carry),
    ExpireTransactions(ExpireTransactions),
    PutSetting(PutSetting),
    RetireTopic(RetireTopic),
    PutLiveSetting(PutLiveSetting),
    Mark(Mark),
    RaiseLevel(RaiseLevel),
}

/// Creates a topic, or replaces its settings. Answered by [`Outcome::TopicPut`].
///
/// An existing topic takes only a higher version (or exactly what it already has). Queues beyond a
/// lower number take no messages from then on; they are read until they are drained, see
/// [`CloseQueues`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutTopic {
    pub topic: Topic,
    pub config: TopicConfig,
    /// Leave an existing topic as it is, whatever it looks like.
    pub create_only: bool,
}

/// Settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Queues in this broker group that take messages: ids `0..queues`. None where the topic is only
    /// read any more, see [`RetireTopic`].
    pub queues: u32,
    pub permission: v2::Permission,
    /// Message types that may be sent, ascending. The edge checks; the state only keeps them.
    pub accepts: Vec<v2::MessageType>,
    /// The whole placement: every broker group that hosts the topic, this one included, with its
    /// number of queues. Ascending by name.
    pub placement: Vec<(BrokerName, u32)>,
    /// Chosen by who administers, the same in all broker groups. The higher one wins.
    pub version: u64,
}

/// Creates a consumer group, or replaces its settings. Answered by [`Outcome::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutGroup {
    pub group: ConsumerGroup,
    pub config: GroupConfig,
}

/// Settings of a consumer group. A group that came into being by its first [`Pop`] has the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// Deliver the messages of each message group in order, see [`PopFifo`].
    pub fifo: bool,
    /// Deliveries after which a message is a dead letter; 0 counts as 1.
    pub max_attempts: u32,
    pub backoff: Backoff,
}

impl GroupConfig {
    /// Whether a message that was delivered so often is given up rather than delivered again.
    #[must_use]
    pub fn is_exhausted(&self, attempt: u32) -> bool {
        attempt >= self.max_attempts.max(1)
    }
}

impl Default for GroupConfig {
    /// RocketMQ's: concurrent, 16 retries, pauses of 1 s to 2 h.
    fn default() -> Self {
        Self { fifo: false, max_attempts: 17, backoff: Backoff::default() }
    }
}

/// How long a consumer that failed should wait before the next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backoff {
    /// Milliseconds before the second attempt, the third, and so on; the last one repeats.
    Customized { steps_ms: Vec<u64> },
    /// The first pause, and each further one longer by a factor, up to a longest.
    Exponential { initial_ms: u64, max_ms: u64, multiplier: u32 },
}

impl Default for Backoff {
    /// RocketMQ's steps, of 1 s to 2 h.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let minutes = (1..=10).map(|n| n * MINUTE);
        let seconds = [1, 5, 10, 30].into_iter().chain(minutes).chain([
            20 * MINUTE,
            30 * MINUTE,
            HOUR,
            2 * HOUR,
        ]);
        Self::Customized { steps_ms: seconds.map(|s| s * 1000).collect() }
    }
}

/// Adds messages to the end of a queue, in this order. Answered by [`Outcome::Appended`].
///
/// The entry that carries the command is where the messages are stored; nothing copies them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub topic: Topic,
    pub queue: QueueId,
    /// At least one, at most [`Append::MAX_MESSAGES`].
    pub messages: Vec<NewMessage>,
}

impl Append {
    /// Messages in one command.
    pub const MAX_MESSAGES: usize = u16::MAX as usize;
}

/// A message to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// `proto::TagFilter::tag_hash` of its tag; 0 when it has none.
    pub tag_hash: u64,
    /// Hashes of its keys, for queries by key. At most [`NewMessage::MAX_KEYS`].
    pub key_hashes: Vec<u64>,
    /// Names the send across its retries. A message whose key was seen before, within the window,
    /// is not appended again: the first result is answered.
    pub dedupe: Option<u128>,
    /// The `v2.Message` as received.
    pub bytes: Bytes,
}

impl NewMessage {
    /// Keys of one message.
    pub const MAX_KEYS: usize = u8::MAX as usize;
}

/// Hands messages out to a client. Answered by [`Outcome::Popped`] with what was still free.
///
/// The leader has looked at the queues and proposes; a concurrent pop may have been faster. The
/// consumer group comes into being with its first pop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pop {
    pub group: ConsumerGroup,
    pub topic: Topic,
    pub client: ClientId,
    /// The leader renews the delivery while the client lives, see [`Renew`].
    pub auto_renew: bool,
    pub invisible_ms: u64,
    /// At most [`Pop::MAX_PICKS`].
    pub picks: Vec<Pick>,
}

impl Pop {
    /// Queues in one command.
    pub const MAX_PICKS: usize = u16::MAX as usize;
}

/// What a [`Pop`] wants from one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    pub queue: QueueId,
    /// The leader has evaluated the offsets `from..to`. The group's progress moves to `to`, unless
    /// it stands before `from`: what was not evaluated cannot be skipped, and then nothing new is
    /// granted.
    pub from: QueueOffset,
    pub to: QueueOffset,
    /// Strictly ascending offsets within `from..to` that pass the filter. The others of the range
    /// count as consumed.
    pub fresh: Vec<QueueOffset>,
    /// Deliveries whose invisible duration has ended, to be delivered again.
    pub again: Vec<Again>,
}

/// A delivery to be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    pub offset: QueueOffset,
    /// The delivery that ended without an ack; another one means that somebody was faster.
    pub delivery: u64,
}

/// Names one delivery of one message within a consumer group and a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    pub queue: QueueId,
    pub offset: QueueOffset,
    pub delivery: u64,
}

/// Ends deliveries: the messages are consumed. Answered by [`Outcome::Acked`], one per handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub group: ConsumerGroup,
    pub topic: Topic,
    /// At most [`Ack::MAX_HANDLES`].
    pub handles: Vec<Handle>,
}

impl Ack {
    /// Handles in one command.
    pub const MAX_HANDLES: usize = u16::MAX as usize;
}

/// Moves the end of one delivery's invisible duration to `invisible_ms` after log time, and takes
/// it out of automatic renewal. Answered by [`Outcome::InvisibleChanged`].
///
/// The delivery keeps its id, so handles given out before stay valid until it is delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeInvisible {
    pub group: ConsumerGroup,
    pub topic: Topic,
    pub handle: Handle,
    pub invisible_ms: u64,
}

/// Extends every auto-renewed delivery of one client in one queue to `invisible_ms` after log
/// time, but not past [`proto::limits::AUTO_RENEW_TOTAL`] after it was handed out. Answered by
/// [`Outcome::Renewed`].
///
/// What was handed out before `trusted_since` and never renewed yet is left as it is: the answer
/// that carried it may have died on its way, and then nobody would ever acknowledge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renew {
    pub group: ConsumerGroup,
    pub topic: Topic,
    pub queue: QueueId,
    pub client: ClientId,
    pub trusted_since: Timestamp,
    pub invisible_ms: u64,
}

/// Lets go of every auto-renewed delivery of a client that is gone: visible again `after_ms` after
/// log time, or earlier if it was due earlier. Answered by [`Outcome::Released`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub client: ClientId,
    pub group: ConsumerGroup,
    pub after_ms: u64,
}
