//! A message on its way out.

use std::time::Duration;

use bytes::Bytes;
use proto::{Timestamp, clock, v2};

/// A message to be sent. It is checked when it is sent.
///
/// ```
/// use raftmq_client::Message;
///
/// let message = Message::new("orders", "two apples").tag("fruit").key("order-17");
/// assert_eq!(message.topic(), "orders");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a message does nothing until it is sent"]
pub struct Message {
    pub(crate) topic: String,
    pub(crate) body: Bytes,
    pub(crate) tag: Option<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) message_group: Option<String>,
    pub(crate) deliver: Option<Deliver>,
    pub(crate) recovery: Option<Duration>,
    pub(crate) trace_context: Option<String>,
}

/// RocketMQ's delay levels, from 1 on, in seconds.
const DELAY_LEVELS_S: [u64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

/// When a delayed message is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deliver {
    At(Timestamp),
    After(Duration),
}

impl Message {
    /// A message with this body, which must not be empty.
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            body: body.into(),
            tag: None,
            keys: Vec::new(),
            properties: Vec::new(),
            message_group: None,
            deliver: None,
            recovery: None,
            trace_context: None,
        }
    }

    /// What consumers filter by most cheaply.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Something to look the message up by later, such as the number of an order. A message can
    /// have several.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// A property, seen by consumers and SQL filters. The last of one name counts.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Makes it an ordered (FIFO) message: those of one group keep the order in which they were
    /// sent, one after the other.
    pub fn message_group(mut self, group: impl Into<String>) -> Self {
        self.message_group = Some(group.into());
        self
    }

    /// Makes it a delayed message, which nobody sees before this time. One that has passed means
    /// now.
    pub fn deliver_at(mut self, time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.deliver = Some(Deliver::At(Timestamp(clock::millis(since))));
        self
    }

    /// Makes it a delayed message, which nobody sees for this long after it is sent.
    pub fn deliver_after(mut self, delay: Duration) -> Self {
        self.deliver = Some(Deliver::After(delay));
        self
    }

    /// Makes it a delayed message by one of RocketMQ's 18 levels: 1 s, 5 s, 10 s, 30 s, 1 to 10 min,
    /// 20 min, 30 min, 1 h, 2 h. As there, 0 is no delay, and a higher number means the last level.
    pub fn delay_level(mut self, level: usize) -> Self {
        let last = DELAY_LEVELS_S.len();
        let seconds = level.min(last).checked_sub(1).map(|index| DELAY_LEVELS_S[index]);
        self.deliver = seconds.map(|seconds| Deliver::After(Duration::from_secs(seconds)));
        self
    }

    /// How long the cluster waits before it asks about a transaction that was left open, if this is
    /// its message. Default: what the cluster is set to, 6 s.
    pub fn transaction_recovery(mut self, wait: Duration) -> Self {
        self.recovery = Some(wait);
        self
    }

    /// The W3C `traceparent` that consumers continue. Without it the producer takes that of its
    /// [`Propagation`](crate::Propagation), if there is one.
    pub fn trace_context(mut self, traceparent: impl Into<String>) -> Self {
        self.trace_context = Some(traceparent.into());
        self
    }

    /// Where it goes.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What it carries.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it is by its content.
    pub(crate) fn kind(&self) -> v2::MessageType {
        if self.deliver.is_some() {
            v2::MessageType::Delay
        } else if self.message_group.is_some() {
            v2::MessageType::Fifo
        } else {
            v2::MessageType::Normal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_level_is_a_delay() {
        let delay = |level| Message::new("t", "b").delay_level(level).deliver;
        let after = |seconds| Some(Deliver::After(Duration::from_secs(seconds)));
        assert_eq!(delay(0), None, "no delay");
        assert_eq!([delay(1), delay(3), delay(5)], [after(1), after(10), after(60)]);
        let minutes: Vec<_> = (5..=14).map(delay).collect();
        assert_eq!(minutes, (1..=10).map(|minute| after(60 * minute)).collect::<Vec<_>>());
        assert_eq!([delay(16), delay(17), delay(18)], [after(1800), after(3600), after(7200)]);
        assert_eq!(delay(19), after(7200), "the last one");
        assert_eq!(Message::new("t", "b").delay_level(0).kind(), v2::MessageType::Normal);
        assert_eq!(Message::new("t", "b").delay_level(1).kind(), v2::MessageType::Delay);
    }
}
