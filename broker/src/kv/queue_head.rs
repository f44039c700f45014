//! Where each queue begins and ends.
//!
//! ```text
//! key    04 | topic id 4 | queue 4
//! value  min offset 8 | max offset 8 | digest 8
//! ```
//! One per queue that ever held a message; rewritten when messages are appended. The digest covers
//! every consume-queue entry that the queue ever had, in order.

use std::ops::ControlFlow;

use bytes::Buf;
use proto::{QueueId, QueueOffset};

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};

/// The ends of a queue: it holds the offsets `min..max`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueHead {
    pub min: QueueOffset,
    /// The offset that the next message gets.
    pub max: QueueOffset,
    pub digest: u64,
}

pub fn put(batch: &mut Batch, topic: TopicId, queue: QueueId, head: &QueueHead) {
    batch.put(Family::State, &key(topic, queue), &value(head));
}

/// Shows every head, by topic and queue.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or `visit` failed.
pub fn load(
    kv: &dyn Kv,
    mut visit: impl FnMut(TopicId, QueueId, QueueHead) -> Result<(), &'static str>,
) -> Result<(), Error> {
    let range = ([prefix::QUEUE_HEAD], [prefix::QUEUE_HEAD + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, bytes| {
        let damaged = |problem| corrupt("queue head", problem, key);
        let (topic, queue) = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let head = parse_value(bytes).ok_or_else(|| damaged("value has a wrong length"))?;
        visit(topic, queue, head).map_err(damaged)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn key(topic: TopicId, queue: QueueId) -> [u8; 9] {
    let mut key = [prefix::QUEUE_HEAD; 9];
    key[1..5].copy_from_slice(&topic.0.to_be_bytes());
    key[5..].copy_from_slice(&queue.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(TopicId, QueueId)> {
    let key: &[u8; 9] = key.try_into().ok()?;
    let mut rest = &key[1..];
    Some((TopicId(rest.get_u32()), QueueId(rest.get_u32())))
}

fn value(head: &QueueHead) -> [u8; 24] {
    let mut value = [0; 24];
    value[..8].copy_from_slice(&head.min.0.to_be_bytes());
    value[8..16].copy_from_slice(&head.max.0.to_be_bytes());
    value[16..].copy_from_slice(&head.digest.to_be_bytes());
    value
}

fn parse_value(value: &[u8]) -> Option<QueueHead> {
    let value: &[u8; 24] = value.try_into().ok()?;
    let mut rest = &value[..];
    Some(QueueHead {
        min: QueueOffset(rest.get_u64()),
        max: QueueOffset(rest.get_u64()),
        digest: rest.get_u64(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_head_survives_the_store(topic: u32, queue: u32, min: u64, max: u64, digest: u64) {
            let head = QueueHead { min: QueueOffset(min), max: QueueOffset(max), digest };
            prop_assert_eq!(parse_value(&value(&head)), Some(head));
            let place = (TopicId(topic), QueueId(queue));
            prop_assert_eq!(parse_key(&key(place.0, place.1)), Some(place));
        }

        #[test]
        fn keys_sort_as_numbers(a: (u32, u32), b: (u32, u32)) {
            let (left, right) = (key(TopicId(a.0), QueueId(a.1)), key(TopicId(b.0), QueueId(b.1)));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        }
    }

    #[test]
    fn golden() {
        assert_eq!(key(TopicId(1), QueueId(258)), [4, 0, 0, 0, 1, 0, 0, 1, 2]);
        let head = QueueHead { min: QueueOffset(1), max: QueueOffset(2), digest: 3 };
        let expected = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(value(&head), expected);
    }
}
