//! The index by message key: the latest keys in memory and in the key log, the rest in blocks.

use std::collections::BTreeSet;

use proto::{QueueId, QueueOffset};

use crate::kv::key_log::Keyed;
use crate::kv::{self, Batch, Frontier, Kv, TopicId};

/// Keys that are not in a block at most; then they become one. 1.5 MiB, and a query looks at each.
const OPEN_MAX: usize = 65_536;
/// Keys looked at for each block that is written: more than one has, so that blocks cannot pile up.
const TIDIED_KEYS: usize = 2 * OPEN_MAX;
/// What looking at a block costs at least, in keys.
const LOOK: usize = 256;
/// Blocks with so many keys together become one.
const MERGED_MAX: usize = OPEN_MAX / 2;

#[derive(Debug)]
pub(super) struct MessageKeys {
    /// Keys that are not in a block, in the order in which they came.
    open: Vec<Keyed>,
    /// How many of them are in the key log.
    written: usize,
    counters: KeyCounters,
    /// Those that are there.
    blocks: BTreeSet<u64>,
    /// Where tidying goes on.
    tidied: u64,
}

/// A block that was looked at.
struct Tidied {
    block: u64,
    /// To be written anew.
    changed: bool,
    /// What is left of it.
    keys: Vec<Keyed>,
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
        let blocks = kv::message_key::blocks(kv)?;
        Ok(Self { written: open.len(), open, counters, blocks, tidied: 0 })
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
            self.blocks.insert(self.counters.blocks);
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

    /// After a block was written: looks at some others, in turn, and writes those anew of which
    /// less than half is kept, several as one where they are small. What is in which block makes
    /// no difference to what is found.
    pub(super) fn tidy(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        kept: impl Fn(&Keyed) -> bool,
    ) -> Result<(), kv::Error> {
        // The newest is in the batch, and young.
        let end = self.counters.blocks.saturating_sub(1);
        let mut before: Option<Tidied> = None;
        let mut looked_at = 0;
        while looked_at < TIDIED_KEYS {
            let Some(block) = self.blocks.range(self.tidied..end).next().copied() else {
                self.tidied = 0;
                break;
            };
            self.tidied = block + 1;
            let all = kv::message_key::load(kv, block)?;
            looked_at += all.len().max(LOOK);
            let mut here = Tidied { block, changed: false, keys: all };
            let had = here.keys.len();
            here.keys.retain(&kept);
            here.changed = 2 * here.keys.len() < had;
            if let Some(earlier) = before.take() {
                if earlier.keys.len() + here.keys.len() <= MERGED_MAX {
                    kv::message_key::delete(batch, earlier.block);
                    self.blocks.remove(&earlier.block);
                    here.keys.extend(earlier.keys);
                    here.keys.sort_unstable();
                    here.changed = true;
                } else {
                    self.put_tidied(batch, &earlier);
                }
            }
            before = Some(here);
        }
        if let Some(last) = before {
            self.put_tidied(batch, &last);
        }
        Ok(())
    }

    fn put_tidied(&mut self, batch: &mut Batch, tidied: &Tidied) {
        if tidied.changed {
            kv::message_key::delete(batch, tidied.block);
            kv::message_key::put(batch, tidied.block, &tidied.keys);
        }
        if tidied.keys.is_empty() {
            self.blocks.remove(&tidied.block);
        }
    }

    /// Messages under a key that are wanted, newest block first, at most `limit`.
    pub(super) fn find(
        &self,
        kv: &dyn Kv,
        topic: TopicId,
        hash: u64,
        limit: usize,
        wanted: &dyn Fn(QueueId, QueueOffset) -> bool,
    ) -> Result<Vec<(QueueId, QueueOffset)>, kv::Error> {
        let open = self.open.iter().rev().filter(|k| k.topic == topic && k.hash == hash);
        let open = open.filter(|k| wanted(k.queue, k.offset));
        let mut found: Vec<_> = open.map(|k| (k.queue, k.offset)).take(limit).collect();
        for block in self.blocks.iter().rev().copied() {
            if found.len() >= limit {
                break;
            }
            kv::message_key::find(kv, block, topic, hash, limit, wanted, &mut found)?;
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

    const ALL: fn(QueueId, QueueOffset) -> bool = |_, _| true;

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
            let mut found = keys.find(&kv, TopicId(1), hash, 100, &ALL).unwrap();
            found.sort();
            found.into_iter().map(|(_, offset)| offset.0).collect::<Vec<_>>()
        };
        assert_eq!(keys.counters(), KeyCounters { next: 10, sealed: 7, blocks: 2 });
        let again = MessageKeys::load(&kv, &frontier(&keys)).unwrap();
        for keys in [&keys, &again] {
            assert_eq!(find(keys, 0), [0, 2, 4, 6, 8]);
            assert_eq!(find(keys, 1), [1, 3, 5, 7, 9]);
            assert!(find(keys, 2).is_empty());
            assert_eq!(keys.find(&kv, TopicId(1), 0, 2, &ALL).unwrap().len(), 2);
            assert_eq!(keys.find(&kv, TopicId(2), 0, 2, &ALL).unwrap(), []);
            let later = |_, offset| offset > QueueOffset(6);
            let found = keys.find(&kv, TopicId(1), 0, 2, &later).unwrap();
            assert_eq!(found, [(QueueId(0), QueueOffset(8))]);
        }
    }

    /// One in a hundred is kept for ever, the others while they are in the latest 10 blocks.
    #[test]
    fn blocks_do_not_pile_up() {
        const BLOCK: u64 = 20_000;
        let kv = Memory::new();
        let mut keys = MessageKeys::load(&kv, &Frontier::default()).unwrap();
        for block in 0..60 {
            (0..BLOCK).for_each(|n| keys.add(keyed(n % 100, block * BLOCK + n)));
            let mut batch = Batch::default();
            assert!(keys.write(&mut batch, true));
            let kept = |key: &Keyed| key.hash == 7 || key.offset.0 + 10 * BLOCK > block * BLOCK;
            keys.tidy(&kv, &mut batch, kept).unwrap();
            kv.write(&batch).unwrap();
            if block == 40 {
                keys = MessageKeys::load(&kv, &frontier(&keys)).unwrap();
            }
        }
        let all = || keys.blocks.iter().map(|b| kv::message_key::load(&kv, *b).unwrap().len());
        let count = all().sum::<usize>() as u64;
        assert!(count < 25 * BLOCK, "{:?}", all().collect::<Vec<_>>());
        assert!(keys.blocks.len() < 30, "{:?}", keys.blocks);
        let found = keys.find(&kv, TopicId(1), 7, usize::MAX, &ALL).unwrap();
        assert_eq!(found.len() as u64, 60 * BLOCK / 100);

        for _ in 0..10 {
            let mut batch = Batch::default();
            keys.add(keyed(1, 1));
            keys.write(&mut batch, true);
            keys.tidy(&kv, &mut batch, |_| false).unwrap();
            kv.write(&batch).unwrap();
        }
        assert!(keys.blocks.len() <= 2, "{:?}", keys.blocks);
        let again = MessageKeys::load(&kv, &frontier(&keys)).unwrap();
        assert_eq!(again.blocks, keys.blocks);
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
        let found = keys.find(&kv, TopicId(1), 77, 9, &ALL).unwrap();
        assert_eq!(found, [(QueueId(0), QueueOffset(77))]);
    }
}
