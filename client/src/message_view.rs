//! A message as a consumer receives it.

use std::{
    collections::HashMap,
    fmt,
    io::Read,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use proto::{Timestamp, limits, v2};

use crate::{Error, MessageQueue, address::Address};

/// Bytes of a body when it is uncompressed: what a small body may blow up to.
const UNCOMPRESSED_BYTES: u64 = 16 * limits::BODY_BYTES as u64;

/// A received message. Cheap to clone where its body is concerned.
#[derive(Clone, PartialEq)]
pub struct MessageView {
    topic: String,
    body: Bytes,
    properties: HashMap<String, String>,
    system: v2::SystemProperties,
    queue: MessageQueue,
    /// Where it was received: who acknowledges it first.
    pub(crate) address: Address,
}

impl MessageView {
    /// A body that is compressed is uncompressed here.
    pub(crate) fn from_wire(
        wire: v2::Message,
        broker_name: &str,
        address: &Address,
    ) -> Result<Self, Error> {
        let malformed =
            |missing| Error::Malformed { address: address.as_str().to_owned(), missing };
        let topic = wire.topic.ok_or_else(|| malformed("the topic of a message"))?.name;
        let system =
            wire.system_properties.ok_or_else(|| malformed("a message's system properties"))?;
        let body = match system.body_encoding() {
            v2::Encoding::Gzip => uncompress(&wire.body)
                .ok_or_else(|| Error::Corrupt { message_id: system.message_id.clone() })?,
            v2::Encoding::Identity | v2::Encoding::Unspecified => wire.body,
        };
        let queue = MessageQueue::new(&topic, broker_name, system.queue_id);
        let (properties, address) = (wire.user_properties, address.clone());
        Ok(Self { topic, body, properties, system, queue, address })
    }

    /// Where it was sent to, without a namespace.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Made by its producer; the same for every delivery.
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.system.message_id
    }

    /// What it carries, uncompressed.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Its tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.system.tag.as_deref()
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.system.keys
    }

    /// One of its properties.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// All of its properties.
    #[must_use]
    pub fn properties(&self) -> &HashMap<String, String> {
        &self.properties
    }

    /// Its message group, if it is an ordered message.
    #[must_use]
    pub fn message_group(&self) -> Option<&str> {
        self.system.message_group.as_deref().filter(|group| !group.is_empty())
    }

    /// How often it was delivered to this consumer group, this time included: 1 for the first.
    #[must_use]
    pub fn delivery_attempt(&self) -> u32 {
        u32::try_from(self.system.delivery_attempt()).unwrap_or(1).max(1)
    }

    /// When its producer made it, by the producer's clock.
    #[must_use]
    pub fn born_at(&self) -> Option<SystemTime> {
        self.system.born_timestamp.as_ref().map(system_time)
    }

    /// When it was due, if it is a delayed message.
    #[must_use]
    pub fn deliver_at(&self) -> Option<SystemTime> {
        self.system.delivery_timestamp.as_ref().map(system_time)
    }

    /// The queue that it was in.
    #[must_use]
    pub fn queue(&self) -> &MessageQueue {
        &self.queue
    }

    /// Its offset there.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.system.queue_offset()
    }

    /// What its producer wants traces continued from, a W3C `traceparent`.
    #[must_use]
    pub fn trace_context(&self) -> Option<&str> {
        self.system.trace_context.as_deref().filter(|context| !context.is_empty())
    }

    /// The topic and the message id that it had before it became a dead letter.
    #[must_use]
    pub fn dead_letter_of(&self) -> Option<(&str, &str)> {
        let origin = self.system.dead_letter_queue.as_ref()?;
        Some((&origin.topic, &origin.message_id))
    }

    pub(crate) fn receipt_handle(&self) -> &str {
        self.system.receipt_handle()
    }

    pub(crate) fn set_receipt_handle(&mut self, handle: String) {
        self.system.receipt_handle = Some(handle);
    }
}

fn system_time(wire: &prost_types::Timestamp) -> SystemTime {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(Timestamp::from(wire).0));
    time.unwrap_or(UNIX_EPOCH)
}

/// `None` when it is not compressed, or blows up beyond the bound.
fn uncompress(body: &[u8]) -> Option<Bytes> {
    let mut plain = Vec::with_capacity(body.len() * 2);
    let read = GzDecoder::new(body).take(UNCOMPRESSED_BYTES + 1).read_to_end(&mut plain).ok()?;
    (read as u64 <= UNCOMPRESSED_BYTES).then(|| plain.into())
}

impl fmt::Debug for MessageView {
    /// Without the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageView")
            .field("message_id", &self.system.message_id)
            .field("queue", &self.queue.to_string())
            .field("offset", &self.offset())
            .field("delivery_attempt", &self.delivery_attempt())
            .field("bytes", &self.body.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::compress;

    fn wire(body: Bytes, encoding: v2::Encoding) -> v2::Message {
        let system = v2::SystemProperties {
            message_id: "m".into(),
            body_encoding: encoding.into(),
            ..Default::default()
        };
        let topic = Some(v2::Resource { resource_namespace: "ns".into(), name: "t".into() });
        v2::Message { topic, body, system_properties: Some(system), ..Default::default() }
    }

    fn view(wire: v2::Message) -> Result<MessageView, Error> {
        MessageView::from_wire(wire, "a", &"h:1".parse().unwrap())
    }

    #[test]
    fn a_compressed_body_is_seen_plain() {
        let plain = Bytes::from("abc ".repeat(5000));
        let packed = compress(&plain);
        assert!(packed.len() < plain.len() / 4);
        assert_eq!(view(wire(packed, v2::Encoding::Gzip)).unwrap().body(), &plain);
    }

    #[test]
    fn a_body_that_only_claims_to_be_compressed_is_an_error() {
        let end = view(wire(Bytes::from_static(b"plain"), v2::Encoding::Gzip));
        assert!(matches!(end, Err(Error::Corrupt { message_id }) if message_id == "m"));
    }

    #[test]
    fn an_incomplete_message_is_an_error_and_not_a_panic() {
        assert!(view(v2::Message::default()).is_err());
        let bare = view(wire(Bytes::from_static(b"x"), v2::Encoding::Unspecified)).unwrap();
        assert_eq!((bare.delivery_attempt(), bare.offset(), bare.tag()), (1, 0, None));
    }
}
