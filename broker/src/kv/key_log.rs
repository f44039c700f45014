//! Message keys that are not in a sealed block yet, in the order in which they came.
//!
//! ```text
//! key    number of the first 8
//! value  24 * n:  topic id 4 | key hash 8 | queue 4 | offset 8
//! ```
//! Numbers count every key of the broker group. Sorting them into the store one by one would be
//! the most expensive part of an append, so they are collected here and sorted by the block, see
//! [`super::message_key`]. Records below the last block are trimmed.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut};
use proto::{QueueId, QueueOffset};

use super::{Batch, Error, Family, Kv, TopicId, corrupt};

const KEYED: usize = 24;

/// A message's place under one of its keys. Sorts by topic, then hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keyed {
    pub topic: TopicId,
    pub hash: u64,
    pub queue: QueueId,
    pub offset: QueueOffset,
}

/// Writes keys, the first of which has the number `first`.
pub fn put(batch: &mut Batch, first: u64, keys: &[Keyed]) {
    batch.put(Family::KeyLog, &first.to_be_bytes(), &value(keys));
}

/// Every key from number `from` on, in order.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv, from: u64) -> Result<Vec<Keyed>, Error> {
    let mut keys = Vec::new();
    kv.scan(Family::KeyLog, &from.to_be_bytes(), &u64::MAX.to_be_bytes(), &mut |key, bytes| {
        let more = parse_value(bytes)
            .ok_or_else(|| corrupt("key log", "value has a wrong length", key))?;
        keys.extend(more);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

/// Keys below `number` are not needed any more.
///
/// # Errors
/// The store cannot be written.
pub fn trim(kv: &dyn Kv, number: u64) -> Result<(), Error> {
    kv.trim(Family::KeyLog, &number.to_be_bytes())
}

fn value(keys: &[Keyed]) -> Vec<u8> {
    let mut out = Vec::with_capacity(keys.len() * KEYED);
    for key in keys {
        out.put_u32(key.topic.0);
        out.put_u64(key.hash);
        out.put_u32(key.queue.0);
        out.put_u64(key.offset.0);
    }
    out
}

fn parse_value(value: &[u8]) -> Option<impl Iterator<Item = Keyed>> {
    if !value.len().is_multiple_of(KEYED) {
        return None;
    }
    Some(value.chunks_exact(KEYED).map(|mut bytes| Keyed {
        topic: TopicId(bytes.get_u32()),
        hash: bytes.get_u64(),
        queue: QueueId(bytes.get_u32()),
        offset: QueueOffset(bytes.get_u64()),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keyed((topic, hash, queue, offset): (u32, u64, u32, u64)) -> Keyed {
        Keyed { topic: TopicId(topic), hash, queue: QueueId(queue), offset: QueueOffset(offset) }
    }

    proptest! {
        #[test]
        fn keys_survive_the_store(keys: Vec<(u32, u64, u32, u64)>) {
            let keys: Vec<_> = keys.into_iter().map(keyed).collect();
            prop_assert_eq!(parse_value(&value(&keys)).unwrap().collect::<Vec<_>>(), keys);
        }
    }

    #[test]
    fn golden() {
        let mut expected = vec![0, 0, 0, 1];
        expected.extend(2_u64.to_be_bytes());
        expected.extend([0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(value(&[keyed((1, 2, 3, 4))]), expected);
    }
}
