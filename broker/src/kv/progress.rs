//! How far each consumer group has been given each queue.
//!
//! ```text
//! key    05 | consumer group id 4 | topic id 4 | queue 4
//! value  next offset 8
//! ```
//! Every offset below `next` was delivered or filtered out; the in-flight records say which of
//! them are not acknowledged yet. No record means 0.

use std::ops::ControlFlow;

use bytes::Buf;
use proto::{QueueId, QueueOffset};

use super::{Batch, ConsumerGroupId, Error, Family, Kv, TopicId, corrupt, prefix};

/// The queue of a consumer group.
pub type Place = (ConsumerGroupId, TopicId, QueueId);

pub fn put(batch: &mut Batch, place: Place, next: QueueOffset) {
    batch.put(Family::State, &key(place), &next.0.to_be_bytes());
}

/// Shows the progress of every consumer group, by group, topic and queue.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or `visit` failed.
pub fn load(
    kv: &dyn Kv,
    mut visit: impl FnMut(Place, QueueOffset) -> Result<(), &'static str>,
) -> Result<(), Error> {
    let range = ([prefix::PROGRESS], [prefix::PROGRESS + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("progress", problem, key);
        let place = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let next = value.try_into().map_err(|_| damaged("value has a wrong length"))?;
        visit(place, QueueOffset(u64::from_be_bytes(next))).map_err(damaged)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn key((group, topic, queue): Place) -> [u8; 13] {
    let mut key = [prefix::PROGRESS; 13];
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_survives_the_store(group: u32, topic: u32, queue: u32) {
            let place = (ConsumerGroupId(group), TopicId(topic), QueueId(queue));
            prop_assert_eq!(parse_key(&key(place)), Some(place));
        }

        #[test]
        fn arbitrary_keys_do_no_harm(bytes: Vec<u8>) {
            prop_assert_eq!(parse_key(&bytes).is_some(), bytes.len() == 13);
        }
    }

    #[test]
    fn golden() {
        let place = (ConsumerGroupId(1), TopicId(2), QueueId(3));
        assert_eq!(key(place), [5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
    }
}
