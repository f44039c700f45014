//! The latest reset of a consumer group in a queue.
//!
//! ```text
//! key    28 | consumer group id 4 | topic id 4 | queue 4
//! value  reset 8 | to 8 | pending 1
//! ```
//! Written by ResetOffsets, rewritten when a pull has followed it.

use std::ops::ControlFlow;

use bytes::Buf;
use proto::{QueueId, QueueOffset};

use super::progress::Place;
use super::{Batch, ConsumerGroupId, Error, Family, Kv, TopicId, corrupt, prefix};

/// A reset of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Names the reset; higher than every delivery made before it.
    pub id: u64,
    /// Where the group was put.
    pub to: QueueOffset,
    /// No pull has followed it yet.
    pub pending: bool,
}

pub fn put(batch: &mut Batch, place: Place, reset: &Reset) {
    batch.put(Family::State, &key(place), &value(reset));
}

/// Shows the resets of every consumer group, by group, topic and queue.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or `visit` failed.
pub fn load(
    kv: &dyn Kv,
    mut visit: impl FnMut(Place, Reset) -> Result<(), &'static str>,
) -> Result<(), Error> {
    let range = ([prefix::RESET], [prefix::RESET + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, bytes| {
        let damaged = |problem| corrupt("reset", problem, key);
        let place = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let reset = parse_value(bytes).ok_or_else(|| damaged("value has a wrong length"))?;
        visit(place, reset).map_err(damaged)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn key((group, topic, queue): Place) -> [u8; 13] {
    let mut key = [prefix::RESET; 13];
    key[1..5].copy_from_slice(&group.0.to_be_bytes());
    key[5..9].copy_from_slice(&topic.0.to_be_bytes());
    key[9..].copy_from_slice(&queue.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<Place> {
    let key: &[u8; 13] = key.try_into().ok()?;
    let mut rest = &key[1..];
    Some((ConsumerGroupId(rest.get_u32()), TopicId(rest.get_u32()), QueueId(rest.get_u32())))
}

fn value(reset: &Reset) -> [u8; 17] {
    let mut value = [0; 17];
    value[..8].copy_from_slice(&reset.id.to_be_bytes());
    value[8..16].copy_from_slice(&reset.to.0.to_be_bytes());
    value[16] = reset.pending.into();
    value
}

fn parse_value(value: &[u8]) -> Option<Reset> {
    let value: &[u8; 17] = value.try_into().ok()?;
    let mut rest = &value[..];
    let (id, to) = (rest.get_u64(), QueueOffset(rest.get_u64()));
    Some(Reset { id, to, pending: rest.get_u8() != 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_reset_survives_the_store(
            group: u32, topic: u32, queue: u32, id: u64, to: u64, pending: bool,
        ) {
            let place = (ConsumerGroupId(group), TopicId(topic), QueueId(queue));
            let reset = Reset { id, to: QueueOffset(to), pending };
            prop_assert_eq!(parse_key(&key(place)), Some(place));
            prop_assert_eq!(parse_value(&value(&reset)), Some(reset));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        let place = (ConsumerGroupId(1), TopicId(2), QueueId(3));
        assert_eq!(key(place), [0x28, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        let reset = Reset { id: 4, to: QueueOffset(5), pending: true };
        assert_eq!(value(&reset), [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 1]);
    }
}
