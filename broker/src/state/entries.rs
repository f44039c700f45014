//! Reading consume queues: from the tails in memory, and from the store before them.

use std::ops::ControlFlow;

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp};

use super::State;
use crate::kv::consume_queue::{self, Entry};
use crate::kv::{self, TopicId};

/// A message of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueEntry {
    pub offset: QueueOffset,
    /// Where the `v2.Message` lies in the log.
    pub position: LogOffset,
    pub len: u32,
    /// `proto::TagFilter::tag_hash` of its tag; 0 when it has none.
    pub tag_hash: u64,
    /// When it entered the queue, in log time.
    pub visible: Timestamp,
}

impl QueueEntry {
    fn new(offset: QueueOffset, entry: &Entry) -> Self {
        let Entry { position, len, tag_hash, visible } = *entry;
        Self { offset, position, len, tag_hash, visible }
    }
}

impl State {
    /// Entries of a queue from `from` on, at most `limit`.
    pub(super) fn entries(
        &self,
        topic: TopicId,
        queue: QueueId,
        from: QueueOffset,
        limit: usize,
    ) -> Result<Vec<QueueEntry>, kv::Error> {
        let Some(head) = self.topics.get(topic).head(queue) else {
            return Ok(vec![]);
        };
        let from = from.max(head.min);
        let limit = limit.min(usize::try_from(head.max.0.saturating_sub(from.0)).unwrap_or(limit));
        let mut found = Vec::with_capacity(limit);
        let tail_from = self.tail_from(topic, queue);
        if from < tail_from {
            self.stored_entries(topic, queue, from, tail_from, limit, &mut found)?;
        }
        if found.len() < limit {
            let next = QueueOffset(from.0 + found.len() as u64);
            let tail = self.tails.of(topic, queue).into_iter().flatten();
            let skipped = usize::try_from(next.0 - tail_from.0).expect("tails are short");
            let offsets = (next.0..).map(QueueOffset);
            let rest = offsets.zip(tail.skip(skipped)).take(limit - found.len());
            found.extend(rest.map(|(offset, entry)| QueueEntry::new(offset, entry)));
        }
        assert_eq!(found.len(), limit, "queue {topic}/{queue} has holes after {from}");
        self.follow_carried(topic, queue, &mut found);
        Ok(found)
    }

    fn stored_entries(
        &self,
        topic: TopicId,
        queue: QueueId,
        from: QueueOffset,
        below: QueueOffset,
        limit: usize,
        found: &mut Vec<QueueEntry>,
    ) -> Result<(), kv::Error> {
        consume_queue::scan(&*self.kv, topic, queue, from, |run| {
            for (offset, entry) in run.entries_from(from) {
                if found.len() == limit || offset == below {
                    return ControlFlow::Break(());
                }
                found.push(QueueEntry::new(offset, &entry));
            }
            match found.len() == limit {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
    }

    /// The entries at offsets that the queue holds, in the order of `offsets`. Quick when they
    /// ascend and are close to each other.
    pub(super) fn entries_at(
        &self,
        topic: TopicId,
        queue: QueueId,
        offsets: &[QueueOffset],
    ) -> Result<Vec<QueueEntry>, kv::Error> {
        let mut found = Vec::with_capacity(offsets.len());
        let mut rest = offsets;
        while let Some(first) = rest.first() {
            let (close, further) = rest.split_at(close_ones(rest));
            let span = close[close.len() - 1].0 - first.0 + 1;
            let span = usize::try_from(span).expect("they are close");
            let entries = self.entries(topic, queue, *first, span)?;
            assert_eq!(entries.len(), span, "queue {topic}/{queue} holds less than was asked for");
            let places = close.iter().map(|offset| offset.0 - first.0);
            found.extend(places.map(|at| entries[usize::try_from(at).expect("they are close")]));
            rest = further;
        }
        Ok(found)
    }

    /// The first offset that is in memory; the queue's end when none is.
    fn tail_from(&self, topic: TopicId, queue: QueueId) -> QueueOffset {
        let max = self.topics.get(topic).head(queue).map_or(0, |head| head.max.0);
        let held = self.tails.of(topic, queue).map_or(0, std::collections::VecDeque::len);
        QueueOffset(max - held as u64)
    }
}

/// How many of the offsets can be read in one go: as long as they ascend and stay close.
fn close_ones(offsets: &[QueueOffset]) -> usize {
    /// Reading on costs 30 ns an entry, and starting anew about 5 us.
    const CLOSE: u64 = 128;
    /// Entries in memory at a time.
    const FAR: u64 = 4096;
    let go_on = |pair: &[QueueOffset]| {
        pair[0] < pair[1] && pair[1].0 - pair[0].0 <= CLOSE && pair[1].0 - offsets[0].0 <= FAR
    };
    1 + offsets.windows(2).take_while(|pair| go_on(pair)).count()
}
