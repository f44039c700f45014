//! What a producer hands back to take a delayed message back.
//!
//! Like a receipt handle it carries everything that finds the message, so that any node can route
//! it and any leader knows it. As text it is URL-safe Base64, without padding, of
//!
//! ```text
//! version 1 | due 8 | number 8 | broker length 1 | broker | topic length 1 | topic | message id | CRC-32 4
//! ```
//!
//! with big-endian numbers; the checksum covers everything before it.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use crate::{BrokerName, InvalidName, MessageId, Timestamp, Topic, limits};

/// A text that is not a recall handle of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRecallHandle {
    #[error("the recall handle is empty")]
    Empty,
    #[error("the recall handle has {found} bytes, over the limit of {max}")]
    TooLong { found: usize, max: usize },
    #[error("the recall handle is not Base64")]
    Base64,
    #[error("the recall handle has version {0}, which is unknown")]
    Version(u8),
    #[error("the recall handle is cut short")]
    Truncated,
    #[error("the recall handle's checksum does not match")]
    Checksum,
    #[error("the recall handle names no broker, topic or message: {0}")]
    Name(#[from] InvalidName),
}

/// One delayed message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecallHandle {
    /// The broker group that holds the message.
    pub broker: BrokerName,
    pub topic: Topic,
    /// When it is to be delivered.
    pub due: Timestamp,
    /// Names the message among the delayed ones of the broker group, for ever.
    pub number: u64,
    /// The sender's own id of it: the answer to a recall.
    pub message_id: MessageId,
}

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 1 + 8 + 8 + 1 + 1;
const CHECKSUM_BYTES: usize = 4;

impl fmt::Display for RecallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [self.broker.as_str(), self.topic.as_str()];
        let id = self.message_id.as_str();
        let len = FIXED_BYTES + texts[0].len() + texts[1].len() + id.len() + CHECKSUM_BYTES;
        let mut bytes = Vec::with_capacity(len);
        bytes.push(VERSION);
        bytes.extend(self.due.0.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        for text in texts {
            bytes.push(u8::try_from(text.len()).expect("names of brokers and topics are short"));
            bytes.extend(text.as_bytes());
        }
        bytes.extend(id.as_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for RecallHandle {
    type Err = InvalidRecallHandle;

    fn from_str(text: &str) -> Result<Self, InvalidRecallHandle> {
        let (found, max) = (text.len(), limits::RECALL_HANDLE_BYTES);
        if found == 0 {
            return Err(InvalidRecallHandle::Empty);
        }
        if found > max {
            return Err(InvalidRecallHandle::TooLong { found, max });
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidRecallHandle::Base64)?;
        // Before the checksum, because another version may have another one.
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(InvalidRecallHandle::Version(other)),
            None => return Err(InvalidRecallHandle::Truncated),
        }
        let (content, checksum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InvalidRecallHandle::Truncated)?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return Err(InvalidRecallHandle::Checksum);
        }
        parse(&content[1..])
    }
}

/// Everything between version and checksum.
fn parse(mut rest: &[u8]) -> Result<RecallHandle, InvalidRecallHandle> {
    let rest = &mut rest;
    let due = Timestamp(u64::from_be_bytes(take(rest)?));
    let number = u64::from_be_bytes(take(rest)?);
    let (broker, topic) = (text(rest)?, text(rest)?);
    Ok(RecallHandle {
        broker: broker.parse()?,
        topic: topic.parse()?,
        due,
        number,
        message_id: String::from_utf8_lossy(rest).parse()?,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], InvalidRecallHandle> {
    let (head, tail) = rest.split_first_chunk().ok_or(InvalidRecallHandle::Truncated)?;
    *rest = tail;
    Ok(*head)
}

fn text(rest: &mut &[u8]) -> Result<String, InvalidRecallHandle> {
    let [len] = take(rest)?;
    let (text, tail) = rest.split_at_checked(len.into()).ok_or(InvalidRecallHandle::Truncated)?;
    *rest = tail;
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handle() -> RecallHandle {
        RecallHandle {
            broker: "broker-a".parse().expect("a name"),
            topic: "later".parse().expect("a topic"),
            due: Timestamp(1),
            number: 2,
            message_id: "01ABC".parse().expect("an id"),
        }
    }

    proptest! {
        #[test]
        fn a_handle_survives_its_text(
            due: u64, number: u64, broker in "[a-z][a-z0-9-]{0,60}", topic in "[a-zA-Z0-9_-]{1,100}",
            id in "[0-9A-F]{1,34}",
        ) {
            let (broker, topic) = (broker.parse().unwrap(), topic.parse().unwrap());
            let due = Timestamp(due);
            let handle = RecallHandle { broker, topic, due, number, message_id: id.parse().unwrap() };
            prop_assert_eq!(handle.to_string().parse(), Ok(handle));
        }

        #[test]
        fn no_text_does_harm(text: String) {
            prop_assert!(text.parse::<RecallHandle>().is_err());
        }

        #[test]
        fn a_changed_letter_is_noticed(at in 0..60_usize) {
            let mut text = handle().to_string().into_bytes();
            let at = at % text.len();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            let text = String::from_utf8(text).unwrap();
            prop_assert_ne!(text.parse::<RecallHandle>(), Ok(handle()));
        }
    }

    #[test]
    fn what_is_no_handle_is_told_apart() {
        let parse = |text: &str| text.parse::<RecallHandle>();
        assert_eq!(parse(""), Err(InvalidRecallHandle::Empty));
        assert_eq!(parse("!"), Err(InvalidRecallHandle::Base64));
        assert_eq!(parse("AgAA"), Err(InvalidRecallHandle::Version(2)));
        assert_eq!(parse("AQ"), Err(InvalidRecallHandle::Truncated));
        let (found, max) = (2000, limits::RECALL_HANDLE_BYTES);
        assert_eq!(parse(&"A".repeat(2000)), Err(InvalidRecallHandle::TooLong { found, max }));
    }

    /// Clients keep handles for as long as a message may be delayed.
    #[test]
    fn golden() {
        let bytes = URL_SAFE_NO_PAD.decode(handle().to_string()).unwrap();
        let expected = b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\x08broker-a\x05later01ABC";
        assert_eq!(&bytes[..bytes.len() - CHECKSUM_BYTES], expected);
    }
}
