//! A stored message as a consumer gets it.

use md5::{Digest, Md5};
use proto::{
    QueueId, QueueOffset, ReceiptHandle, Timestamp, Topic, clock::to_wire, message::message_type,
    receipt_handle::group_hash, v2,
};

use super::{Broker, Poll};
use crate::{Error, command::Granted, state::QueueEntry};

/// Fills in what the server knows of the message and of this delivery. Everything else is as the
/// producer sent it.
pub(super) fn assemble(
    broker: &Broker,
    poll: &Poll,
    granted: &Granted,
    stamp: Option<Timestamp>,
    message: v2::Message,
) -> v2::Message {
    let handle = ReceiptHandle {
        broker: broker.settings.name.clone(),
        topic: poll.topic.clone(),
        queue: granted.queue,
        offset: granted.offset,
        delivery: granted.delivery,
        group_hash: group_hash(&poll.group),
    };
    let place = Place { topic: &poll.topic, queue: granted.queue, offset: granted.offset };
    let mut message = place_in(broker, &place, stamp, message);
    let system = message.system_properties.get_or_insert_default();
    system.receipt_handle = Some(handle.to_string());
    system.invisible_duration = Some(to_wire(poll.invisible));
    system.delivery_attempt = Some(i32::try_from(granted.attempt).unwrap_or(i32::MAX));
    message
}

/// Where a message is in its queue.
struct Place<'a> {
    topic: &'a Topic,
    queue: QueueId,
    offset: QueueOffset,
}

impl Broker {
    /// A message of a queue as it is for everybody, whoever has been given it; `None` when it is
    /// kept no longer.
    pub(super) fn stored(
        &self,
        topic: &Topic,
        queue: QueueId,
        entry: &QueueEntry,
    ) -> Result<Option<v2::Message>, Error> {
        let seen = (entry.position, entry.len);
        let message = self.view.message_of((topic, queue, entry.offset), seen)?;
        let place = Place { topic, queue, offset: entry.offset };
        Ok(message.map(|message| place_in(self, &place, Some(entry.visible), message)))
    }

    /// A half message, which is in no queue, as its producer is shown it.
    pub(super) fn half(
        &self,
        topic: &Topic,
        queue: QueueId,
        born: Timestamp,
        message: v2::Message,
    ) -> v2::Message {
        // Some clients insist on an offset.
        let place = Place { topic, queue, offset: QueueOffset(0) };
        place_in(self, &place, Some(born), message)
    }
}

/// What the server knows of a message, whoever gets it.
fn place_in(
    broker: &Broker,
    place: &Place<'_>,
    stamp: Option<Timestamp>,
    mut message: v2::Message,
) -> v2::Message {
    let kind = message_type(&message);
    let origin = message.topic.replace(place.topic.to_resource());
    let body_digest = v2::Digest {
        r#type: v2::DigestType::Md5.into(),
        checksum: upper_hex(&Md5::digest(&message.body)),
    };
    let system = message.system_properties.get_or_insert_default();
    system.body_digest = Some(body_digest);
    if system.body_encoding == i32::from(v2::Encoding::Unspecified) {
        system.body_encoding = v2::Encoding::Identity.into();
    }
    if place.topic.is_dead_letters() {
        let (topic, message_id) = (origin, system.message_id.clone());
        system.dead_letter_queue =
            topic.map(|topic| v2::DeadLetterQueue { topic: topic.name, message_id });
    }
    system.message_type = kind.into();
    system.store_timestamp = stamp.map(Into::into);
    system.born_timestamp = system.born_timestamp.or(system.store_timestamp);
    system.store_host = broker.settings.advertised.clone();
    system.queue_id = i32::try_from(place.queue.0).unwrap_or(i32::MAX);
    system.queue_offset = Some(i64::try_from(place.offset.0).unwrap_or(i64::MAX));
    message
}

fn upper_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_32_upper_case_digits() {
        let digest = upper_hex(&Md5::digest(b"hello"));
        assert_eq!(digest, "5D41402ABC4B2A76B9719D911017C592");
    }
}
