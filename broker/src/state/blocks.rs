//! Which messages hold which others back: the deliveries of one consumer group on one topic, by
//! queue and message group.
//!
//! A block is *ready* when none of its deliveries lasts: then it can be delivered again, from its
//! first message on. Messages that wait were never delivered, and last no time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use proto::{QueueId, QueueOffset, Timestamp};

use crate::kv::in_flight::Delivery;

/// Messages of one message group in one queue that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Block {
    messages: BTreeSet<QueueOffset>,
    /// The delivered ones, by the end of their delivery.
    ends: BTreeSet<(Timestamp, QueueOffset)>,
}

impl Block {
    /// The first message, and since when it can be delivered.
    fn head(&self) -> Option<(Timestamp, QueueOffset)> {
        let first = self.messages.first()?;
        Some((self.ready_at(), *first))
    }

    /// When the last delivery ends; the beginning of time when all messages wait.
    pub(super) fn ready_at(&self) -> Timestamp {
        self.ends.last().map_or(Timestamp(0), |(end, _)| *end)
    }

    pub(super) fn first(&self) -> Option<QueueOffset> {
        self.messages.first().copied()
    }

    /// The next message behind one.
    pub(super) fn after(&self, offset: QueueOffset) -> Option<QueueOffset> {
        self.messages.range((Bound::Excluded(offset), Bound::Unbounded)).next().copied()
    }

    /// In order.
    pub(super) fn messages(&self) -> impl Iterator<Item = QueueOffset> {
        self.messages.iter().copied()
    }
}

/// All blocks. The order by readiness always holds every block once.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    map: BTreeMap<(QueueId, u64), Block>,
    ready: BTreeSet<(Timestamp, QueueId, QueueOffset)>,
}

impl Blocks {
    pub(super) fn get(&self, queue: QueueId, block: u64) -> Option<&Block> {
        self.map.get(&(queue, block))
    }

    pub(super) fn put(&mut self, queue: QueueId, offset: QueueOffset, of: &Delivery, block: u64) {
        self.change(queue, block, |b| {
            b.messages.insert(offset);
            if of.attempt > 0 {
                b.ends.insert((of.due, offset));
            }
        });
    }

    pub(super) fn remove(
        &mut self,
        queue: QueueId,
        offset: QueueOffset,
        of: &Delivery,
        block: u64,
    ) {
        self.change(queue, block, |b| {
            b.messages.remove(&offset);
            b.ends.remove(&(of.due, offset));
        });
    }

    /// When the first block is ready.
    pub(super) fn next_ready(&self) -> Option<Timestamp> {
        self.ready.first().map(|(at, ..)| *at)
    }

    /// The first messages of the blocks that are ready at `until`, the longest ago first.
    pub(super) fn ready(
        &self,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, QueueId, QueueOffset)> {
        self.ready.range(..=(until, QueueId(u32::MAX), QueueOffset(u64::MAX))).copied()
    }

    fn change(&mut self, queue: QueueId, block: u64, f: impl FnOnce(&mut Block)) {
        let entry = self.map.entry((queue, block)).or_default();
        let before = entry.head();
        f(entry);
        let after = entry.head();
        if before != after {
            before.map(|(at, first)| self.ready.remove(&(at, queue, first)));
            after.map(|(at, first)| self.ready.insert((at, queue, first)));
        }
        if after.is_none() {
            self.map.remove(&(queue, block));
        }
    }
}
