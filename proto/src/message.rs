//! What a message must be like to be taken in.
//!
//! The rules are those of RocketMQ, in its order of checks. Each has its own variant of
//! [`InvalidMessage`], because clients tell them apart by their codes.

use std::time::Duration;

use prost::Message as _;
use thiserror::Error;

use crate::{
    InvalidName, MessageGroup, MessageId, SendMessageRequest, Timestamp, Topic, clock, limits,
    text::{self, Flaw},
    v2,
};

mod reserved;
#[cfg(test)]
mod tests;

/// Why messages were refused. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidMessage {
    /// MESSAGE_CORRUPTED
    #[error("the request holds no message")]
    NoMessage,
    /// MESSAGE_CORRUPTED
    #[error("message {at} of the request cannot be decoded")]
    Undecodable { at: usize },
    /// MESSAGE_CORRUPTED
    #[error("the messages of one request are for {one} and {other}: one topic is allowed")]
    MixedTopics { one: Topic, other: Topic },
    /// MESSAGE_CORRUPTED
    #[error("a transactional message must be alone in its request")]
    TransactionNotAlone,
    /// PAYLOAD_TOO_LARGE
    #[error("the request holds {found} messages, over the limit of {max}")]
    TooManyMessages { found: usize, max: usize },
    /// PAYLOAD_TOO_LARGE
    #[error("the request's messages have {found} bytes, over the limit of {max}")]
    RequestTooLarge { found: usize, max: usize },
    /// MESSAGE_CORRUPTED
    #[error("the message has no system properties")]
    NoSystemProperties,
    /// ILLEGAL_TOPIC
    #[error("{0}")]
    Topic(InvalidName),
    /// MESSAGE_BODY_EMPTY
    #[error("the message body is empty")]
    BodyEmpty,
    /// MESSAGE_BODY_TOO_LARGE
    #[error("the message body has {found} bytes, over the limit of {max}")]
    BodyTooLarge { found: usize, max: usize },
    /// MESSAGE_PROPERTIES_TOO_LARGE
    #[error("the message has {found} user properties, over the limit of {max}")]
    TooManyProperties { found: usize, max: usize },
    /// MESSAGE_PROPERTIES_TOO_LARGE
    #[error("user properties, tag and keys have {found} bytes, over the limit of {max}")]
    PropertiesTooLarge { found: usize, max: usize },
    /// ILLEGAL_MESSAGE_PROPERTY_KEY
    #[error("the user property key {key:?} is reserved by the system")]
    ReservedKey { key: String },
    /// ILLEGAL_MESSAGE_PROPERTY_KEY
    #[error("the user property {key:?} has a key that {flaw}")]
    PropertyKey { key: String, flaw: Flaw },
    /// ILLEGAL_MESSAGE_PROPERTY_KEY: there is no code for values.
    #[error("the user property {key:?} has a value that {flaw}")]
    PropertyValue { key: String, flaw: Flaw },
    /// ILLEGAL_MESSAGE_TAG
    #[error("the tag {0}")]
    Tag(Flaw),
    /// ILLEGAL_MESSAGE_KEY
    #[error("a message key {0}")]
    Key(Flaw),
    /// ILLEGAL_MESSAGE_GROUP
    #[error("{0}")]
    MessageGroup(InvalidName),
    /// ILLEGAL_MESSAGE_ID
    #[error("{0}")]
    MessageId(InvalidName),
    /// ILLEGAL_LITE_TOPIC
    #[error("the lite topic {0}")]
    LiteTopic(Flaw),
    /// ILLEGAL_DELIVERY_TIME
    #[error("the delivery time is {} s ahead, over the limit of {} s", ahead.as_secs(), max.as_secs())]
    DeliveryTime { ahead: Duration, max: Duration },
    /// BAD_REQUEST
    #[error("the transaction recovery duration is negative or over {} s", max.as_secs())]
    TransactionRecovery { max: Duration },
    /// MESSAGE_PROPERTY_CONFLICT_WITH_TYPE
    #[error("the message is of type {}, which the topic does not accept", found.as_str_name())]
    Type { found: v2::MessageType },
}

/// The limits that an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Bytes of one body. Default: [`limits::BODY_BYTES`].
    pub max_body: usize,
    /// Default: [`limits::DELAY`].
    pub max_delay: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_body: limits::BODY_BYTES, max_delay: limits::DELAY }
    }
}

/// Decodes the messages of a request. Their bodies are slices of the request, not copies.
pub fn decode(request: &SendMessageRequest) -> Result<Vec<v2::Message>, InvalidMessage> {
    let (found, max) = (request.messages.len(), limits::MESSAGES_PER_SEND);
    if found == 0 {
        return Err(InvalidMessage::NoMessage);
    }
    if found > max {
        return Err(InvalidMessage::TooManyMessages { found, max });
    }
    let decode = |(at, bytes): (usize, &bytes::Bytes)| {
        v2::Message::decode(bytes.clone()).map_err(|_| InvalidMessage::Undecodable { at })
    };
    request.messages.iter().enumerate().map(decode).collect()
}

/// Checks what must hold for the messages of one request together and for each of them, and
/// returns their topic. Whether the topic exists and accepts them is for [`check_type`] and those
/// who know the topic.
pub fn check_all(
    messages: &[v2::Message],
    rules: &Rules,
    now: Timestamp,
) -> Result<Topic, InvalidMessage> {
    let first = messages.first().ok_or(InvalidMessage::NoMessage)?;
    let topic = topic(first)?;
    for message in messages {
        if message.topic != first.topic {
            let other = self::topic(message)?;
            return Err(InvalidMessage::MixedTopics { one: topic, other });
        }
        check(message, rules, now)?;
        if messages.len() > 1 && message_type(message) == v2::MessageType::Transaction {
            return Err(InvalidMessage::TransactionNotAlone);
        }
    }
    // After the single messages, whose own limits name the culprit.
    let found: usize = messages.iter().map(prost::Message::encoded_len).sum();
    let max = limits::SEND_BYTES;
    if found > max {
        return Err(InvalidMessage::RequestTooLarge { found, max });
    }
    Ok(topic)
}

/// Checks one message by itself.
pub fn check(message: &v2::Message, rules: &Rules, now: Timestamp) -> Result<(), InvalidMessage> {
    topic(message)?;
    let system = message.system_properties.as_ref().ok_or(InvalidMessage::NoSystemProperties)?;
    check_body(&message.body, rules.max_body)?;
    check_properties(message, system)?;
    check_tag_and_keys(system)?;
    if let Some(group) = present(system.message_group.as_ref()) {
        group.parse::<MessageGroup>().map_err(InvalidMessage::MessageGroup)?;
    }
    system.message_id.parse::<MessageId>().map_err(InvalidMessage::MessageId)?;
    if let Some(lite_topic) = present(system.lite_topic.as_ref()) {
        check_lite_topic(lite_topic).map_err(InvalidMessage::LiteTopic)?;
    }
    check_times(system, rules.max_delay, now)
}

/// What kind of message its content makes it; the type that its sender names counts only for
/// transactions.
pub fn message_type(message: &v2::Message) -> v2::MessageType {
    let Some(system) = &message.system_properties else { return v2::MessageType::Normal };
    if system.message_type == v2::MessageType::Transaction as i32 {
        v2::MessageType::Transaction
    } else if system.delivery_timestamp.is_some() {
        v2::MessageType::Delay
    } else if present(system.message_group.as_ref()).is_some() {
        v2::MessageType::Fifo
    } else if present(system.lite_topic.as_ref()).is_some() {
        v2::MessageType::Lite
    } else if system.priority.is_some() {
        v2::MessageType::Priority
    } else {
        v2::MessageType::Normal
    }
}

/// Before when a delayed message must not be delivered; `None` for messages of other types. Parts
/// of a millisecond count as a whole one.
pub fn delivery_time(message: &v2::Message) -> Option<Timestamp> {
    const NANOS_PER_MILLI: i32 = 1_000_000;
    if message_type(message) != v2::MessageType::Delay {
        return None;
    }
    let wire = message.system_properties.as_ref()?.delivery_timestamp.as_ref()?;
    let part = Duration::from_millis(u64::from(wire.nanos % NANOS_PER_MILLI > 0));
    Some(Timestamp::from(wire).plus(part))
}

/// Whether a topic that accepts these types accepts the message.
pub fn check_type(
    message: &v2::Message,
    accepted: &[v2::MessageType],
) -> Result<(), InvalidMessage> {
    let found = message_type(message);
    if accepted.contains(&found) { Ok(()) } else { Err(InvalidMessage::Type { found }) }
}

fn topic(message: &v2::Message) -> Result<Topic, InvalidMessage> {
    Topic::from_resource(message.topic.as_ref()).map_err(InvalidMessage::Topic)
}

fn check_body(body: &[u8], max: usize) -> Result<(), InvalidMessage> {
    match body.len() {
        0 => Err(InvalidMessage::BodyEmpty),
        found if found > max => Err(InvalidMessage::BodyTooLarge { found, max }),
        _ => Ok(()),
    }
}

fn check_properties(
    message: &v2::Message,
    system: &v2::SystemProperties,
) -> Result<(), InvalidMessage> {
    let properties = &message.user_properties;
    let (found, max) = (properties.len(), limits::USER_PROPERTIES);
    if found > max {
        return Err(InvalidMessage::TooManyProperties { found, max });
    }
    let user: usize = properties.iter().map(|(key, value)| key.len() + value.len()).sum();
    let tag = system.tag.as_ref().map_or(0, String::len);
    let keys: usize = system.keys.iter().map(String::len).sum();
    let (found, max) = (user + tag + keys, limits::PROPERTIES_BYTES);
    if found > max {
        return Err(InvalidMessage::PropertiesTooLarge { found, max });
    }
    for (key, value) in properties {
        let key_of = || key.clone();
        if reserved::KEYS.contains(&key.as_str()) {
            return Err(InvalidMessage::ReservedKey { key: key_of() });
        }
        text::no_control(key)
            .map_err(|flaw| InvalidMessage::PropertyKey { key: key_of(), flaw })?;
        text::no_control(value)
            .map_err(|flaw| InvalidMessage::PropertyValue { key: key_of(), flaw })?;
    }
    Ok(())
}

fn check_tag_and_keys(system: &v2::SystemProperties) -> Result<(), InvalidMessage> {
    if let Some(tag) = present(system.tag.as_ref()) {
        text::not_blank(tag).map_err(InvalidMessage::Tag)?;
        text::only(tag, |c| c != '|' && !c.is_control()).map_err(InvalidMessage::Tag)?;
    }
    for key in &system.keys {
        text::not_blank(key).map_err(InvalidMessage::Key)?;
        text::no_control(key).map_err(InvalidMessage::Key)?;
    }
    Ok(())
}

fn check_lite_topic(lite_topic: &str) -> Result<(), Flaw> {
    text::not_blank(lite_topic)?;
    text::no_control(lite_topic)?;
    text::at_most_bytes(lite_topic, limits::LITE_TOPIC_BYTES)
}

fn check_times(
    system: &v2::SystemProperties,
    max_delay: Duration,
    now: Timestamp,
) -> Result<(), InvalidMessage> {
    if let Some(wire) = &system.delivery_timestamp {
        // A time that has passed is legal: the message is delivered at once.
        let ahead = Timestamp::from(wire).since(now);
        if ahead > max_delay {
            return Err(InvalidMessage::DeliveryTime { ahead, max: max_delay });
        }
    }
    if let Some(wire) = &system.orphaned_transaction_recovery_duration {
        let max = limits::TRANSACTION_RECOVERY;
        if clock::duration(wire).is_none_or(|wait| wait > max) {
            return Err(InvalidMessage::TransactionRecovery { max });
        }
    }
    Ok(())
}

/// Optional texts that are empty count as absent: some clients write them so.
fn present(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}
