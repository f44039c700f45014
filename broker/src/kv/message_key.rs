//! The index by message key: sorted blocks.
//!
//! ```text
//! key    block 8 | topic id 4 | highest hash 8 | chunk 4
//! value  20 * n:  key hash 8 | queue 4 | offset 8
//! ```
//! A block holds the keys of a stretch of the log, sorted by topic and hash, in chunks of up to
//! [`CHUNK_MAX`]. Blocks are written with ascending keys, so that the store never has to merge
//! them; one is written again, or deleted, when most of its messages are kept no longer. A query
//! looks into each block.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::{Buf, BufMut};
use proto::{QueueId, QueueOffset};

use super::key_log::Keyed;
use super::{Batch, Error, Family, Kv, TopicId, corrupt};

/// Keys in one record: 2.5 KiB.
pub const CHUNK_MAX: usize = 128;

const ENTRY: usize = 20;
const RECORD: &str = "message key";

/// Writes a block. `keys` are sorted.
///
/// # Panics
/// `keys` are not sorted.
pub fn put(batch: &mut Batch, block: u64, keys: &[Keyed]) {
    assert!(keys.is_sorted(), "a block of keys is sorted");
    let chunks = keys.chunk_by(|a, b| a.topic == b.topic).flat_map(|t| t.chunks(CHUNK_MAX));
    for (number, chunk) in chunks.enumerate() {
        let last = chunk.last().expect("chunks are not empty");
        let number = u32::try_from(number).expect("a block has few chunks");
        let mut value = Vec::with_capacity(chunk.len() * ENTRY);
        for key in chunk {
            value.put_u64(key.hash);
            value.put_u32(key.queue.0);
            value.put_u64(key.offset.0);
        }
        batch.put(Family::Keys, &key(block, last.topic, last.hash, number), &value);
    }
}

/// Deletes a block.
pub fn delete(batch: &mut Batch, block: u64) {
    let lowest = |block| key(block, TopicId(0), 0, 0);
    batch.delete_range(Family::Keys, &lowest(block), &lowest(block + 1));
}

/// The blocks that are there. Costs a look-up each.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn blocks(kv: &dyn Kv) -> Result<BTreeSet<u64>, Error> {
    let mut found = BTreeSet::new();
    let mut next = Some(0);
    while let Some(block) = next.take() {
        let from = key(block, TopicId(0), 0, 0);
        kv.scan(Family::Keys, &from, &[u8::MAX; 25], &mut |key, _| {
            let (block, _) = parse_key(key)?;
            found.insert(block);
            next = Some(block + 1);
            Ok(ControlFlow::Break(()))
        })?;
    }
    Ok(found)
}

/// The keys of a block, sorted.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv, block: u64) -> Result<Vec<Keyed>, Error> {
    let (from, below) = (key(block, TopicId(0), 0, 0), key(block + 1, TopicId(0), 0, 0));
    let mut keys = Vec::new();
    kv.scan(Family::Keys, &from, &below, &mut |key, value| {
        let (_, topic) = parse_key(key)?;
        if !value.len().is_multiple_of(ENTRY) {
            return Err(corrupt(RECORD, "value has a wrong length", key));
        }
        keys.extend(value.chunks_exact(ENTRY).map(|mut entry| Keyed {
            topic,
            hash: entry.get_u64(),
            queue: QueueId(entry.get_u32()),
            offset: QueueOffset(entry.get_u64()),
        }));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

fn parse_key(key: &[u8]) -> Result<(u64, TopicId), Error> {
    let mut rest: &[u8] =
        <&[u8; 24]>::try_from(key).map_err(|_| corrupt(RECORD, "key has a wrong length", key))?;
    Ok((rest.get_u64(), TopicId(rest.get_u32())))
}

/// Appends to `found` the messages that one block has under a key and that are wanted, until it
/// holds `limit`.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn find(
    kv: &dyn Kv,
    block: u64,
    topic: TopicId,
    hash: u64,
    limit: usize,
    wanted: &dyn Fn(QueueId, QueueOffset) -> bool,
    found: &mut Vec<(QueueId, QueueOffset)>,
) -> Result<(), Error> {
    let from = key(block, topic, hash, 0);
    let below = key(block, topic, u64::MAX, u32::MAX);
    kv.scan(Family::Keys, &from, &below, &mut |key, value| {
        if !value.len().is_multiple_of(ENTRY) {
            return Err(corrupt(RECORD, "value has a wrong length", key));
        }
        for mut entry in value.chunks_exact(ENTRY) {
            let entry_hash = entry.get_u64();
            if entry_hash > hash || found.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            let place = (QueueId(entry.get_u32()), QueueOffset(entry.get_u64()));
            if entry_hash == hash && wanted(place.0, place.1) {
                found.push(place);
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn key(block: u64, topic: TopicId, highest: u64, chunk: u32) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&block.to_be_bytes());
    key[8..12].copy_from_slice(&topic.0.to_be_bytes());
    key[12..20].copy_from_slice(&highest.to_be_bytes());
    key[20..].copy_from_slice(&chunk.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kv::Memory;

    proptest! {
        /// Few different hashes, so that equal ones spread over chunks.
        #[test]
        fn every_message_under_a_key_is_found(
            keys in prop::collection::vec((0..3_u32, 0..4_u64), 0..900),
        ) {
            let mut keys: Vec<_> = keys
                .into_iter()
                .zip(0..)
                .map(|((topic, hash), offset)| Keyed {
                    topic: TopicId(topic),
                    hash: hash.wrapping_sub(1),
                    queue: QueueId(1),
                    offset: QueueOffset(offset),
                })
                .collect();
            keys.sort();
            let kv = Memory::new();
            let mut batch = Batch::default();
            put(&mut batch, 7, &keys);
            put(&mut batch, 9, &keys);
            kv.write(&batch).unwrap();
            prop_assert_eq!(load(&kv, 7).unwrap(), keys.clone());
            let expected = if keys.is_empty() { vec![] } else { vec![7, 9] };
            prop_assert_eq!(blocks(&kv).unwrap(), BTreeSet::from_iter(expected));

            for topic in (0..4).map(TopicId) {
                for hash in (0..5_u64).map(|h| h.wrapping_sub(1)) {
                    let mut found = vec![];
                    find(&kv, 7, topic, hash, usize::MAX, &|_, _| true, &mut found).unwrap();
                    let expected = keys.iter().filter(|k| k.topic == topic && k.hash == hash);
                    let expected: Vec<_> = expected.map(|k| (k.queue, k.offset)).collect();
                    prop_assert_eq!(found, expected);
                }
            }
            let mut batch = Batch::default();
            delete(&mut batch, 7);
            kv.write(&batch).unwrap();
            prop_assert_eq!(load(&kv, 7).unwrap(), []);
            prop_assert_eq!(load(&kv, 9).unwrap(), keys);
        }
    }

    #[test]
    fn golden() {
        let mut batch = Batch::default();
        let keyed = Keyed { topic: TopicId(2), hash: 3, queue: QueueId(4), offset: QueueOffset(5) };
        put(&mut batch, 1, &[keyed]);
        let (family, edit) = batch.changes().next().unwrap();
        let crate::kv::Edit::Put { key, value } = edit else { panic!("{edit:?}") };
        assert_eq!(family, Family::Keys);
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(key, expected);
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(value, expected);
    }
}
