//! Where dead letters come from.
//!
//! ```text
//! key    10 | topic id 4 | queue 4 | offset 8       of the dead-letter queue
//! value  topic id 4 | queue 4 | offset 8 | attempts 4
//! ```
//! Written when a message becomes a dead letter, read when it is put back, deleted when the dead
//! letter expires.

use bytes::{Buf, BufMut};
use proto::{QueueId, QueueOffset};

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};

/// A message of a queue.
pub type Place = (TopicId, QueueId, QueueOffset);

/// What a dead letter was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub topic: TopicId,
    pub queue: QueueId,
    pub offset: QueueOffset,
    /// Deliveries that it had.
    pub attempts: u32,
}

pub fn put(batch: &mut Batch, place: Place, origin: &Origin) {
    batch.put(Family::State, &key(place), &value(origin));
}

/// The origin of the message at `place`, if it is a dead letter.
///
/// # Errors
/// The store cannot be read, or the record is damaged.
pub fn get(kv: &dyn Kv, place: Place) -> Result<Option<Origin>, Error> {
    let key = key(place);
    let Some(value) = kv.get(Family::State, &key)? else { return Ok(None) };
    let damaged = || corrupt("dead letter", "value has a wrong length", &key);
    parse_value(&value).ok_or_else(damaged).map(Some)
}

pub(super) fn key((topic, queue, offset): Place) -> [u8; 17] {
    let mut key = [prefix::DEAD_LETTER; 17];
    key[1..5].copy_from_slice(&topic.0.to_be_bytes());
    key[5..9].copy_from_slice(&queue.0.to_be_bytes());
    key[9..].copy_from_slice(&offset.0.to_be_bytes());
    key
}

fn value(origin: &Origin) -> Vec<u8> {
    let mut out = Vec::with_capacity(20);
    out.put_u32(origin.topic.0);
    out.put_u32(origin.queue.0);
    out.put_u64(origin.offset.0);
    out.put_u32(origin.attempts);
    out
}

fn parse_value(value: &[u8]) -> Option<Origin> {
    let mut rest: &[u8] = <&[u8; 20]>::try_from(value).ok()?;
    Some(Origin {
        topic: TopicId(rest.get_u32()),
        queue: QueueId(rest.get_u32()),
        offset: QueueOffset(rest.get_u64()),
        attempts: rest.get_u32(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let place = (TopicId(1), QueueId(2), QueueOffset(3));
        assert_eq!(key(place), [0x10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        let origin =
            Origin { topic: TopicId(4), queue: QueueId(5), offset: QueueOffset(6), attempts: 7 };
        let bytes = [0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7];
        assert_eq!(value(&origin), bytes);
        assert_eq!(parse_value(&bytes), Some(origin));
        assert_eq!(parse_value(&bytes[1..]), None);
    }
}
