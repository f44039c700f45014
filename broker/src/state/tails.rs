//! The latest consume-queue entries of all queues, in memory.
//!
//! Consumers that keep up read from here, and never from the store. Until a batch is written its
//! entries exist only here.

use std::collections::{HashMap, VecDeque};

use commitlog::position::LogOffset;
use proto::QueueId;

use crate::kv::TopicId;
use crate::kv::consume_queue::Entry;

/// Entries kept once they are in the store: 1 MiB, and several times that when each is in a queue
/// of its own.
const KEPT: usize = 32_768;

#[derive(Debug, Default)]
pub(super) struct Tails {
    queues: HashMap<(TopicId, QueueId), VecDeque<Entry>>,
    /// Which queues the entries were appended to, oldest first, with how many at a time.
    order: VecDeque<(TopicId, QueueId, usize)>,
    len: usize,
}

impl Tails {
    /// Adds the next entry of a queue.
    pub(super) fn push(&mut self, topic: TopicId, queue: QueueId, entry: Entry) {
        self.queues.entry((topic, queue)).or_default().push_back(entry);
        self.len += 1;
        match self.order.back_mut() {
            Some((t, q, count)) if (*t, *q) == (topic, queue) => *count += 1,
            Some(_) | None => self.order.push_back((topic, queue, 1)),
        }
    }

    /// The last entries of a queue, oldest first. They end where the queue ends.
    pub(super) fn of(&self, topic: TopicId, queue: QueueId) -> Option<&VecDeque<Entry>> {
        self.queues.get(&(topic, queue))
    }

    /// Moves an entry to another position: the one that so many come after, if it is here.
    pub(super) fn carry(
        &mut self,
        topic: TopicId,
        queue: QueueId,
        after: u64,
        position: LogOffset,
    ) {
        let Some(tail) = self.queues.get_mut(&(topic, queue)) else { return };
        let place = usize::try_from(after).ok().and_then(|after| tail.len().checked_sub(after + 1));
        if let Some(place) = place {
            tail[place].position = position;
        }
    }

    /// Forgets the oldest entries beyond the bound. All entries must be in the store.
    pub(super) fn shrink(&mut self) {
        while self.len > KEPT {
            let (topic, queue, count) = self.order.pop_front().expect("entries have an order");
            let tail = self.queues.get_mut(&(topic, queue)).expect("its entries are here");
            // A long stretch gives way piece by piece.
            let gone = count.min(self.len - KEPT);
            tail.drain(..gone);
            self.len -= gone;
            if tail.is_empty() {
                self.queues.remove(&(topic, queue));
            }
            if gone < count {
                self.order.push_front((topic, queue, count - gone));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use commitlog::position::LogOffset;
    use proto::Timestamp;

    use super::*;

    fn entry(n: usize) -> Entry {
        Entry { position: LogOffset(n as u64), len: 1, tag_hash: 0, visible: Timestamp(0) }
    }

    #[test]
    fn the_oldest_entries_give_way_wherever_they_are() {
        let mut tails = Tails::default();
        let (topic, busy, quiet) = (TopicId(0), QueueId(0), QueueId(1));
        tails.push(topic, quiet, entry(0));
        (0..KEPT + 10).for_each(|n| tails.push(topic, busy, entry(n)));
        tails.shrink();
        assert!(tails.of(topic, quiet).is_none());
        let kept = tails.of(topic, busy).unwrap();
        assert_eq!(
            (kept.len(), kept.front(), kept.back()),
            (KEPT, Some(&entry(10)), Some(&entry(KEPT + 9)))
        );

        tails.push(topic, quiet, entry(1));
        tails.shrink();
        assert_eq!(tails.of(topic, quiet).unwrap().front(), Some(&entry(1)));
        assert_eq!(tails.of(topic, busy).unwrap().len(), KEPT - 1);
    }
}
