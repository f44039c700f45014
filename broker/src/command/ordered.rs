//! Commands that keep order and that give messages up: FIFO deliveries and dead letters.

use proto::{BrokerName, ClientId, ConsumerGroup, QueueId, QueueOffset, Topic};

use super::Handle;

/// Hands messages out in the order of their message groups. Answered by
/// [`super::Outcome::Popped`], with each message group's messages in order.
///
/// Messages of one message group in one queue make a *block*. A block is delivered from its first
/// unacknowledged message on, and only when no other delivery of it lasts: whoever holds one of its
/// messages holds them all back. Messages of a held block that stand before others are passed over:
/// they are kept as waiting, and delivered once the block is free.
///
/// For a consumer group that does not keep order it grants nothing: its settings changed on the
/// way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PopFifo {
    pub group: ConsumerGroup,
    pub topic: Topic,
    pub client: ClientId,
    /// The leader renews the delivery while the client lives, see [`super::Renew`].
    pub auto_renew: bool,
    pub invisible_ms: u64,
    /// Names the receive call across its retries. What an earlier attempt was granted, and is
    /// still unacknowledged with its client, is granted again as it was, and nothing else.
    pub attempt_id: Option<u64>,
    /// At most [`PopFifo::MAX_PICKS`].
    pub picks: Vec<FifoPick>,
}

impl PopFifo {
    /// Queues in one command.
    pub const MAX_PICKS: usize = u16::MAX as usize;
}

/// What a [`PopFifo`] wants from one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FifoPick {
    pub queue: QueueId,
    /// The leader has evaluated the offsets `from..to`, as in [`super::Pick`].
    pub from: QueueOffset,
    pub to: QueueOffset,
    /// Messages that ended without an ack or wait, to be delivered; each block ascending.
    pub again: Vec<FifoAgain>,
    /// Strictly ascending offsets within `from..to` that pass the filter.
    pub fresh: Vec<FifoFresh>,
}

/// A message to be delivered that was delivered, or passed over, before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FifoAgain {
    pub offset: QueueOffset,
    /// The delivery that ended; another one means that somebody was faster.
    pub delivery: u64,
    /// Hash of the message group; 0 for messages without one.
    pub block: u64,
}

/// A message that is new to the consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FifoFresh {
    pub offset: QueueOffset,
    /// Hash of the message group; 0 for messages without one.
    pub block: u64,
    /// Deliver it, if its block is free; otherwise it waits.
    pub deliver: bool,
}

/// A consumer gives a message up: it goes to the consumer group's dead-letter queue. Answered by
/// [`super::Outcome::DeadLettered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub group: ConsumerGroup,
    pub topic: Topic,
    pub handle: Handle,
}

/// Puts dead letters back into the queues that they come from, in order, each once. Answered by
/// [`super::Outcome::Redriven`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// The dead-letter topic.
    pub topic: Topic,
    pub queue: QueueId,
    /// Where the last one ended; anything else is refused, so that repeating it does no harm.
    pub from: QueueOffset,
    /// At most so many.
    pub count: u32,
}

/// What the topics of dead letters begin with; the consumer group follows.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";

/// The topic of a consumer group's dead letters.
///
/// # Panics
/// Never: the name of a group fits behind the prefix.
#[must_use]
pub fn dead_letter_topic(group: &ConsumerGroup) -> Topic {
    let name = format!("{DEAD_LETTER_PREFIX}{group}");
    name.parse().expect("a group's name fits behind the prefix")
}

/// Where the dead letters of a topic's consumers are: one queue in each broker group that hosts
/// the topic.
pub(crate) fn dead_letter_placement(origin: &[(BrokerName, u32)]) -> Vec<(BrokerName, u32)> {
    origin.iter().map(|(broker, _)| (broker.clone(), 1)).collect()
}
