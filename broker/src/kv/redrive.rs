//! How far the dead letters of a queue were put back.
//!
//! ```text
//! key    11 | topic id 4 | queue 4
//! value  next offset 8
//! ```
//! No record means 0.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Buf;
use proto::{QueueId, QueueOffset};

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};

pub fn put(batch: &mut Batch, topic: TopicId, queue: QueueId, next: QueueOffset) {
    batch.put(Family::State, &key(topic, queue), &next.0.to_be_bytes());
}

/// Every queue of which something was put back.
///
/// # Errors
/// The store cannot be read, or holds a damaged record.
pub fn load(kv: &dyn Kv) -> Result<BTreeMap<(TopicId, QueueId), QueueOffset>, Error> {
    let range = ([prefix::REDRIVE], [prefix::REDRIVE + 1]);
    let mut all = BTreeMap::new();
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("redrive", problem, key);
        let place = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let next = value.try_into().map_err(|_| damaged("value has a wrong length"))?;
        all.insert(place, QueueOffset(u64::from_be_bytes(next)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

fn key(topic: TopicId, queue: QueueId) -> [u8; 9] {
    let mut key = [prefix::REDRIVE; 9];
    key[1..5].copy_from_slice(&topic.0.to_be_bytes());
    key[5..].copy_from_slice(&queue.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(TopicId, QueueId)> {
    let key: &[u8; 9] = key.try_into().ok()?;
    let mut rest = &key[1..];
    Some((TopicId(rest.get_u32()), QueueId(rest.get_u32())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let key = key(TopicId(1), QueueId(2));
        assert_eq!(key, [0x11, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(parse_key(&key), Some((TopicId(1), QueueId(2))));
        assert_eq!(parse_key(&key[1..]), None);
    }
}
