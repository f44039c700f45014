//! Consume queues: what a queue's offsets refer to.
//!
//! ```text
//! key    topic id 4 | queue 4 | last offset of the run 8
//! value  entry 28 * n:  position 8 | length 4 | tag hash 8 | visible time 8
//! ```
//! Entries that were appended together share a record, a run of up to [`RUN_MAX`]. A run's key is
//! its last offset, so that the first key at or after an offset is the run that holds it. Runs of
//! a queue follow each other without a gap. How entries are grouped into runs depends on how
//! commands were batched, and nobody can observe it.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut};
use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp};

use super::{Batch, Error, Family, Kv, TopicId, corrupt};

/// Entries in one record: 3.5 KiB, a block of the store.
pub const RUN_MAX: usize = 128;

const ENTRY: usize = 28;
const RECORD: &str = "consume queue";

/// What a queue offset refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where the message lies in the log.
    pub position: LogOffset,
    pub len: u32,
    /// 0 for a message without a tag.
    pub tag_hash: u64,
    /// When the message entered the queue, in log time. Never decreases along a queue.
    pub visible: Timestamp,
}

/// Entries with consecutive offsets, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    first: QueueOffset,
    bytes: &'a [u8],
}

impl Run<'_> {
    /// The entries at `offset` and after.
    pub fn entries_from(
        &self,
        offset: QueueOffset,
    ) -> impl Iterator<Item = (QueueOffset, Entry)> + '_ {
        let skipped = offset.0.saturating_sub(self.first.0);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let offsets = (self.first.0..).map(QueueOffset);
        offsets.zip(self.bytes.chunks_exact(ENTRY).map(parse_entry)).skip(skipped)
    }
}

/// Writes entries that follow each other from `first` on.
pub fn put<'a>(
    batch: &mut Batch,
    topic: TopicId,
    queue: QueueId,
    first: QueueOffset,
    entries: impl Iterator<Item = &'a Entry>,
) {
    let mut next = first;
    let mut value = Vec::new();
    for entry in entries {
        put_entry(&mut value, entry);
        if value.len() == RUN_MAX * ENTRY {
            batch.put(Family::Queue, &key(topic, queue, next), &value);
            value.clear();
        }
        next = next.next();
    }
    if !value.is_empty() {
        batch.put(Family::Queue, &key(topic, queue, QueueOffset(next.0 - 1)), &value);
    }
}

/// Shows the runs of a queue from the one that holds `from` on, until `visit` breaks.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn scan(
    kv: &dyn Kv,
    topic: TopicId,
    queue: QueueId,
    from: QueueOffset,
    mut visit: impl FnMut(Run<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let below = key(topic, queue, QueueOffset(u64::MAX));
    kv.scan(Family::Queue, &key(topic, queue, from), &below, &mut |key, value| {
        let run = parse(key, value).map_err(|problem| corrupt(RECORD, problem, key))?;
        Ok(visit(run))
    })
}

/// Writes the run that holds the first of `offsets` anew, with the positions that entries in it
/// have now, and says how many of `offsets` lie in it. They ascend.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or no run holds the offset.
pub fn carry(
    kv: &dyn Kv,
    batch: &mut Batch,
    (topic, queue): (TopicId, QueueId),
    offsets: &[(QueueOffset, LogOffset)],
) -> Result<usize, Error> {
    let Some((from, _)) = offsets.first() else { return Ok(0) };
    let (mut done, mut new) = (0, None);
    let below = key(topic, queue, QueueOffset(u64::MAX));
    kv.scan(Family::Queue, &key(topic, queue, *from), &below, &mut |key, value| {
        let run = parse(key, value).map_err(|problem| corrupt(RECORD, problem, key))?;
        let mut changed = value.to_vec();
        for (offset, position) in offsets {
            let at = offset.0.checked_sub(run.first.0).and_then(|n| usize::try_from(n).ok());
            let place = at.map(|at| at * ENTRY).filter(|place| *place < changed.len());
            let Some(place) = place else { break };
            changed[place..place + 8].copy_from_slice(&position.0.to_be_bytes());
            done += 1;
        }
        new = Some((key.to_vec(), changed));
        Ok(ControlFlow::Break(()))
    })?;
    match new {
        Some((key, value)) if done > 0 => batch.put(Family::Queue, &key, &value),
        Some(_) | None => {
            return Err(corrupt(RECORD, "an entry is missing", &key(topic, queue, *from)));
        }
    }
    Ok(done)
}

/// Where the run lies that ends with this offset.
pub(super) fn key(topic: TopicId, queue: QueueId, last: QueueOffset) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&topic.0.to_be_bytes());
    key[4..8].copy_from_slice(&queue.0.to_be_bytes());
    key[8..].copy_from_slice(&last.0.to_be_bytes());
    key
}

fn parse<'a>(key: &[u8], value: &'a [u8]) -> Result<Run<'a>, &'static str> {
    let last = key.get(8..).and_then(|k| k.try_into().ok()).ok_or("key has a wrong length")?;
    if value.is_empty() || !value.len().is_multiple_of(ENTRY) {
        return Err("value is no sequence of entries");
    }
    let before = (value.len() / ENTRY - 1) as u64;
    let first = u64::from_be_bytes(last).checked_sub(before).ok_or("more entries than offsets")?;
    Ok(Run { first: QueueOffset(first), bytes: value })
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.put_u64(entry.position.0);
    out.put_u32(entry.len);
    out.put_u64(entry.tag_hash);
    out.put_u64(entry.visible.0);
}

fn parse_entry(mut bytes: &[u8]) -> Entry {
    Entry {
        position: LogOffset(bytes.get_u64()),
        len: bytes.get_u32(),
        tag_hash: bytes.get_u64(),
        visible: Timestamp(bytes.get_u64()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kv::Memory;

    fn entry(n: u64) -> Entry {
        let len = u32::try_from(n % 1000).unwrap();
        Entry { position: LogOffset(n), len, tag_hash: n * 3, visible: Timestamp(n + 7) }
    }

    fn written(runs: &[u64]) -> Memory {
        let kv = Memory::new();
        let mut batch = Batch::default();
        let mut next = 0;
        for len in runs {
            let entries: Vec<_> = (next..next + len).map(entry).collect();
            put(&mut batch, TopicId(1), QueueId(2), QueueOffset(next), entries.iter());
            next += len;
        }
        kv.write(&batch).unwrap();
        kv
    }

    /// Entries of queue 2 from an offset on, and the longest run among them.
    fn read(kv: &Memory, from: u64) -> (Vec<(u64, Entry)>, usize) {
        let (mut found, mut longest) = (vec![], 0);
        scan(kv, TopicId(1), QueueId(2), QueueOffset(from), |run| {
            longest = longest.max(run.entries_from(run.first).count());
            found.extend(run.entries_from(QueueOffset(from)).map(|(offset, e)| (offset.0, e)));
            ControlFlow::Continue(())
        })
        .unwrap();
        (found, longest)
    }

    proptest! {
        #[test]
        fn every_offset_is_found_however_entries_are_grouped(
            runs in prop::collection::vec(1..200_u64, 1..5),
        ) {
            let kv = written(&runs);
            let max = runs.iter().sum::<u64>();
            for from in 0..=max {
                let (found, longest) = read(&kv, from);
                prop_assert_eq!(found, (from..max).map(|n| (n, entry(n))).collect::<Vec<_>>());
                prop_assert!(longest <= RUN_MAX);
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(key: Vec<u8>, value: Vec<u8>) {
            let _either_way = parse(&key, &value);
        }
    }

    #[test]
    fn carried_entries_change_their_position_and_nothing_else() {
        let kv = written(&[3, 200, 1]);
        let mut batch = Batch::default();
        let all = [2, 3, 4, 150, 203].map(|n| (QueueOffset(n), LogOffset(9000 + n)));
        let mut left = &all[..];
        while !left.is_empty() {
            let done = carry(&kv, &mut batch, (TopicId(1), QueueId(2)), left).unwrap();
            left = &left[done..];
        }
        kv.write(&batch).unwrap();
        let expected: Vec<_> = (0..204).map(|n| (n, entry(n))).collect();
        let moved = |(n, entry): (u64, Entry)| match all.iter().find(|(offset, _)| offset.0 == n) {
            Some((_, position)) => (n, Entry { position: *position, ..entry }),
            None => (n, entry),
        };
        let expected: Vec<_> = expected.into_iter().map(moved).collect();
        assert_eq!(read(&kv, 0).0, expected);
        let beyond = [(QueueOffset(204), LogOffset(1))];
        assert!(carry(&kv, &mut batch, (TopicId(1), QueueId(2)), &beyond).is_err());
    }

    #[test]
    fn a_scan_stays_in_its_queue() {
        let kv = written(&[3]);
        let mut batch = Batch::default();
        put(&mut batch, TopicId(1), QueueId(3), QueueOffset(0), [entry(9)].iter());
        kv.write(&batch).unwrap();
        assert_eq!(read(&kv, 1).0, [(1, entry(1)), (2, entry(2))]);
    }

    #[test]
    fn golden() {
        let expected = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(key(TopicId(1), QueueId(2), QueueOffset(3)), expected);
        let mut value = vec![];
        let entry = Entry { position: LogOffset(1), len: 2, tag_hash: 3, visible: Timestamp(4) };
        put_entry(&mut value, &entry);
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(value, expected);
    }
}
