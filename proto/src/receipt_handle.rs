//! What a consumer hands back to say which delivery it is done with.
//!
//! A handle carries everything that finds its delivery: any node can route it without state, and
//! a new leader honours the handles of the old one.
//!
//! As text it is URL-safe Base64, without padding, of
//!
//! ```text
//! version 1 | queue 4 | offset 8 | delivery 8 | group hash 4 | broker length 1 | broker | topic | CRC-32 4
//! ```
//!
//! with big-endian numbers; the checksum covers everything before it.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use crate::{BrokerName, ConsumerGroup, InvalidName, QueueId, QueueOffset, Topic, limits};

/// A text that is not a receipt handle of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidReceiptHandle {
    #[error("the receipt handle has {found} bytes, over the limit of {max}")]
    TooLong { found: usize, max: usize },
    #[error("the receipt handle is not Base64")]
    Base64,
    #[error("the receipt handle has version {0}, which is unknown")]
    Version(u8),
    #[error("the receipt handle is cut short")]
    Truncated,
    #[error("the receipt handle's checksum does not match")]
    Checksum,
    #[error("the receipt handle names no broker or topic: {0}")]
    Name(#[from] InvalidName),
}

/// One delivery of one message to one consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReceiptHandle {
    /// The broker group that holds the message.
    pub broker: BrokerName,
    pub topic: Topic,
    pub queue: QueueId,
    pub offset: QueueOffset,
    /// Tells deliveries of one message apart: a later one makes this handle stale.
    pub delivery: u64,
    /// [`group_hash`] of the consumer group that the message was delivered to.
    pub group_hash: u32,
}

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 1 + 4 + 8 + 8 + 4 + 1;
const CHECKSUM_BYTES: usize = 4;

/// What handles keep of a consumer group's name, so that one group's handle is no other's.
pub fn group_hash(group: &ConsumerGroup) -> u32 {
    crc32fast::hash(group.as_str().as_bytes())
}

impl ReceiptHandle {
    /// Whether the message was delivered to this group.
    pub fn is_of(&self, group: &ConsumerGroup) -> bool {
        self.group_hash == group_hash(group)
    }
}

impl fmt::Display for ReceiptHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (broker, topic) = (self.broker.as_str(), self.topic.as_str());
        let broker_length = u8::try_from(broker.len()).expect("broker names are under 128 bytes");
        let mut bytes =
            Vec::with_capacity(FIXED_BYTES + broker.len() + topic.len() + CHECKSUM_BYTES);
        bytes.push(VERSION);
        bytes.extend(self.queue.0.to_be_bytes());
        bytes.extend(self.offset.0.to_be_bytes());
        bytes.extend(self.delivery.to_be_bytes());
        bytes.extend(self.group_hash.to_be_bytes());
        bytes.push(broker_length);
        bytes.extend(broker.as_bytes());
        bytes.extend(topic.as_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for ReceiptHandle {
    type Err = InvalidReceiptHandle;

    fn from_str(text: &str) -> Result<Self, InvalidReceiptHandle> {
        let (found, max) = (text.len(), limits::RECEIPT_HANDLE_BYTES);
        if found > max {
            return Err(InvalidReceiptHandle::TooLong { found, max });
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidReceiptHandle::Base64)?;
        // Before the checksum, because another version may have another one.
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(InvalidReceiptHandle::Version(other)),
            None => return Err(InvalidReceiptHandle::Truncated),
        }
        let (content, checksum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InvalidReceiptHandle::Truncated)?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return Err(InvalidReceiptHandle::Checksum);
        }
        parse(&content[1..])
    }
}

/// Everything between version and checksum.
fn parse(mut rest: &[u8]) -> Result<ReceiptHandle, InvalidReceiptHandle> {
    let rest = &mut rest;
    let queue = QueueId(u32::from_be_bytes(take(rest)?));
    let offset = QueueOffset(u64::from_be_bytes(take(rest)?));
    let delivery = u64::from_be_bytes(take(rest)?);
    let group_hash = u32::from_be_bytes(take(rest)?);
    let [broker_length] = take(rest)?;
    let (broker, topic) =
        rest.split_at_checked(broker_length.into()).ok_or(InvalidReceiptHandle::Truncated)?;
    Ok(ReceiptHandle {
        broker: String::from_utf8_lossy(broker).parse()?,
        topic: String::from_utf8_lossy(topic).parse()?,
        queue,
        offset,
        delivery,
        group_hash,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], InvalidReceiptHandle> {
    let (head, tail) = rest.split_first_chunk().ok_or(InvalidReceiptHandle::Truncated)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handle() -> ReceiptHandle {
        ReceiptHandle {
            broker: "broker-a".parse().unwrap(),
            topic: "orders".parse().unwrap(),
            queue: QueueId(3),
            offset: QueueOffset(42),
            delivery: 4711,
            group_hash: group_hash(&"billing".parse().unwrap()),
        }
    }

    /// Consumers hold handles while brokers are upgraded.
    #[test]
    fn the_text_of_a_handle_never_changes() {
        let text = "AQAAAAMAAAAAAAAAKgAAAAAAABJn7CJMqghicm9rZXItYW9yZGVyc-bfZOg";
        assert_eq!(handle().to_string(), text);
        assert_eq!(text.parse::<ReceiptHandle>().unwrap(), handle());
    }

    #[test]
    fn a_handle_knows_its_group() {
        assert!(handle().is_of(&"billing".parse().unwrap()));
        assert!(!handle().is_of(&"audit".parse().unwrap()));
    }

    #[test]
    fn what_is_not_a_handle_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<ReceiptHandle>().unwrap_err();
        assert_eq!(refused(""), InvalidReceiptHandle::Truncated);
        assert_eq!(refused("1 2 3 4 broker 0 7 8"), InvalidReceiptHandle::Base64);
        assert_eq!(refused("AQAA"), InvalidReceiptHandle::Truncated);
        assert_eq!(refused("AgAAAAAAAAAA"), InvalidReceiptHandle::Version(2));
        assert_eq!(
            refused(&"A".repeat(1025)),
            InvalidReceiptHandle::TooLong { found: 1025, max: 1024 }
        );
    }

    #[test]
    fn the_longest_names_fit() {
        let longest = ReceiptHandle {
            broker: "b".repeat(limits::BROKER_NAME_CHARS).parse().unwrap(),
            topic: format!("%RETRY%{}", "t".repeat(248)).parse().unwrap(),
            queue: QueueId(u32::MAX),
            offset: QueueOffset(u64::MAX),
            delivery: u64::MAX,
            group_hash: u32::MAX,
        };
        let text = longest.to_string();
        assert!(text.len() <= limits::RECEIPT_HANDLE_BYTES);
        assert_eq!(text.parse::<ReceiptHandle>().unwrap(), longest);
    }

    proptest! {
        #[test]
        fn a_handle_survives_its_text(
            broker in "[a-zA-Z0-9._-]{1,127}",
            topic in "[a-z%|]{1,127}",
            queue in any::<u32>(),
            offset in any::<u64>(),
            delivery in any::<u64>(),
            group_hash in any::<u32>(),
        ) {
            let handle = ReceiptHandle {
                broker: broker.parse().unwrap(),
                topic: topic.parse().unwrap(),
                queue: QueueId(queue),
                offset: QueueOffset(offset),
                delivery,
                group_hash,
            };
            prop_assert_eq!(handle.to_string().parse::<ReceiptHandle>().unwrap(), handle);
        }

        #[test]
        fn one_changed_character_is_noticed(at in any::<prop::sample::Index>(), to in "[a-zA-Z0-9_-]") {
            let text = handle().to_string();
            let at = at.index(text.len());
            prop_assume!(text[at..=at] != to);
            let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed.parse::<ReceiptHandle>().is_err());
        }

        #[test]
        fn no_text_makes_parsing_panic(text in any::<String>()) {
            prop_assert!(text.parse::<ReceiptHandle>().is_err());
        }
    }
}
