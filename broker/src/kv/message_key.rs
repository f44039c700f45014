//! The index by message key: sorted blocks.
//!
//! ```text
//! key    block 8 | topic id 4 | highest hash 8 | chunk 4
//! value  20 * n:  key hash 8 | queue 4 | offset 8
//! ```
//! A block holds the keys of a stretch of the log, sorted by topic and hash, in chunks of up to
//! [`CHUNK_MAX`]. Blocks are written once, with ascending keys: the store never has to merge them.
//! A query looks into each block.

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

/// Appends to `found` the messages that one block has under a key, until it holds `limit`.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn find(
    kv: &dyn Kv,
    block: u64,
    topic: TopicId,
    hash: u64,
    limit: usize,
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
            if entry_hash == hash {
                found.push((QueueId(entry.get_u32()), QueueOffset(entry.get_u64())));
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
            kv.write(&batch).unwrap();

            for topic in (0..4).map(TopicId) {
                for hash in (0..5_u64).map(|h| h.wrapping_sub(1)) {
                    let mut found = vec![];
                    find(&kv, 7, topic, hash, usize::MAX, &mut found).unwrap();
                    let expected = keys.iter().filter(|k| k.topic == topic && k.hash == hash);
                    let expected: Vec<_> = expected.map(|k| (k.queue, k.offset)).collect();
                    prop_assert_eq!(found, expected);
                }
            }
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
