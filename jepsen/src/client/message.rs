//! Messages as official clients build them.

use bytes::Bytes;
use proto::clock::wall_now;
use proto::v2;

use super::rpc::resource;
use crate::Message;

/// A normal message as an official client would build it.
#[must_use]
pub fn normal_message(topic: &str, number: Message, body: Bytes) -> v2::Message {
    let properties = v2::SystemProperties {
        message_id: id_of(number),
        message_type: v2::MessageType::Normal.into(),
        body_encoding: v2::Encoding::Identity.into(),
        born_timestamp: Some(timestamp(wall_now().0)),
        born_host: "localhost".into(),
        ..Default::default()
    };
    v2::Message {
        topic: Some(resource(topic)),
        system_properties: Some(properties),
        body,
        ..Default::default()
    }
}

/// A time in ms since the epoch, as the protocol has it.
///
/// # Panics
/// When it is no date of this era.
#[must_use]
pub fn timestamp(ms: u64) -> prost_types::Timestamp {
    let seconds = i64::try_from(ms / 1000).expect("a date of this era");
    let nanos = i32::try_from(ms % 1000).expect("below a thousand") * 1_000_000;
    prost_types::Timestamp { seconds, nanos }
}

/// An id as official clients make them: version 1, 34 upper-case hexadecimal digits.
#[must_use]
pub fn id_of(message: Message) -> String {
    format!("01{:016X}{:016X}", std::process::id(), message.0)
}

/// The message that [`id_of`] named so, in this process.
#[must_use]
pub fn message_of(id: &str) -> Option<Message> {
    let message = Message(u64::from_str_radix(id.get(18..)?, 16).ok()?);
    (id_of(message) == id).then_some(message)
}
