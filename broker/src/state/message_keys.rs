//! The index by message key: the latest keys in memory and in the key log, the rest in blocks.

use proto::{QueueId, QueueOffset};

use crate::kv::key_log::Keyed;
use crate::kv::{self, Batch, Frontier, Kv, TopicId};

/// Keys that are not in a block at most; then they become one. 1.5 MiB, and a query looks at each.
const OPEN_MAX: usize = 65_536;

#[derive(Debug)]
pub(super) struct MessageKeys {
    /// Keys that are not in a block, in the order in which they came.
    open: Vec<Keyed>,
    /// How many of them are in the key log.
    written: usize,
    counters: KeyCounters,
}

/// Counts over the life of the broker group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyCounters {
    /// Keys so far.
    pub(super) next: u64,
    /// Keys in blocks.
    pub(super) sealed: u64,
    pub(super) blocks: u64,
}

impl MessageKeys {
    pub(super) fn load(kv: &dyn Kv, frontier: &Frontier) -> Result<Self, kv::Error> {
        let open = kv::key_log::load(kv, frontier.keys_sealed)?;
        let counters = KeyCounters {
            next: frontier.keys_next,
            sealed: frontier.keys_sealed,
            blocks: frontier.key_blocks,
        };
        assert_eq!(counters.sealed + open.len() as u64, counters.next, "the key log is complete");
        Ok(Self { written: open.len(), open, counters })
    }

    pub(super) fn counters(&self) -> KeyCounters {
        self.counters
    }

    pub(super) fn add(&mut self, keyed: Keyed) {
        self.open.push(keyed);
        self.counters.next += 1;
    }

    /// Adds the keys since the last call to the batch: to the key log, or as a block together with
    /// those that wait there when there are many, or when `seal` asks for it because the store is
    /// about to be flushed: then they are written to files once, as a block, and not twice.
    /// Whether the key log is superfluous up to what is sealed.
    pub(super) fn write(&mut self, batch: &mut Batch, seal: bool) -> bool {
        if self.open.len() >= OPEN_MAX || (seal && !self.open.is_empty()) {
            self.open.sort_unstable();
            kv::message_key::put(batch, self.counters.blocks, &self.open);
            self.counters.blocks += 1;
            self.counters.sealed = self.counters.next;
            self.open.clear();
            self.written = 0;
            return true;
        }
        if self.written < self.open.len() {
            let first = self.counters.sealed + self.written as u64;
            kv::key_log::put(batch, first, &self.open[self.written..]);
            self.written = self.open.len();
        }
        false
    }

    /// Messages under a key, newest block first, at most `limit`.
    pub(super) fn find(
        &self,
        kv: &dyn Kv,
        topic: TopicId,
        hash: u64,
        limit: usize,
    ) -> Result<Vec<(QueueId, QueueOffset)>, kv::Error> {
        let open = self.open.iter().rev().filter(|k| k.topic == topic && k.hash == hash);
        let mut found: Vec<_> = open.map(|k| (k.queue, k.offset)).take(limit).collect();
        for block in (0..self.counters.blocks).rev() {
            if found.len() >= limit {
                break;
            }
            kv::message_key::find(kv, block, topic, hash, limit, &mut found)?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Memory;

    fn keyed(hash: u64, offset: u64) -> Keyed {
        Keyed { topic: TopicId(1), hash, queue: QueueId(0), offset: QueueOffset(offset) }
    }

    fn frontier(keys: &MessageKeys) -> Frontier {
        let KeyCounters { next, sealed, blocks } = keys.counters();
        Frontier { keys_next: next, keys_sealed: sealed, key_blocks: blocks, ..Frontier::default() }
    }

    #[test]
    fn a_key_is_found_in_blocks_and_out_of_them_and_after_a_restart() {
        let kv = Memory::new();
        let mut keys = MessageKeys::load(&kv, &Frontier::default()).unwrap();
        for offset in 0..10 {
            keys.add(keyed(offset % 2, offset));
            let mut batch = Batch::default();
            let sealed = keys.write(&mut batch, offset == 3 || offset == 6);
            kv.write(&batch).unwrap();
            if sealed {
                kv::key_log::trim(&kv, keys.counters().sealed).unwrap();
            }
        }
        let find = |keys: &MessageKeys, hash| {
            let mut found = keys.find(&kv, TopicId(1), hash, 100).unwrap();
            found.sort();
            found.into_iter().map(|(_, offset)| offset.0).collect::<Vec<_>>()
        };
        assert_eq!(keys.counters(), KeyCounters { next: 10, sealed: 7, blocks: 2 });
        let again = MessageKeys::load(&kv, &frontier(&keys)).unwrap();
        for keys in [&keys, &again] {
            assert_eq!(find(keys, 0), [0, 2, 4, 6, 8]);
            assert_eq!(find(keys, 1), [1, 3, 5, 7, 9]);
            assert!(find(keys, 2).is_empty());
            assert_eq!(keys.find(&kv, TopicId(1), 0, 2).unwrap().len(), 2);
            assert_eq!(keys.find(&kv, TopicId(2), 0, 2).unwrap(), []);
        }
    }

    #[test]
    fn many_keys_become_a_block_by_themselves() {
        let kv = Memory::new();
        let mut keys = MessageKeys::load(&kv, &Frontier::default()).unwrap();
        (0..OPEN_MAX as u64).for_each(|n| keys.add(keyed(n, n)));
        let mut batch = Batch::default();
        assert!(keys.write(&mut batch, false));
        kv.write(&batch).unwrap();
        assert_eq!(keys.counters().blocks, 1);
        let found = keys.find(&kv, TopicId(1), 77, 9).unwrap();
        assert_eq!(found, [(QueueId(0), QueueOffset(77))]);
    }
}
