//! Reading consume queues: from the tails in memory, and from the store before them.

use std::ops::ControlFlow;

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp};

use super::State;
use crate::kv::consume_queue::{self, Entry, Run};
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
            let offsets = (run.first.0..).map(QueueOffset);
            for (offset, entry) in offsets.zip(&run.entries).skip_while(|(o, _)| *o < from) {
                if found.len() == limit || offset == below {
                    return ControlFlow::Break(());
                }
                found.push(QueueEntry::new(offset, entry));
            }
            ControlFlow::Continue(())
        })
    }

    /// The entries at offsets that the queue holds, in the order of `offsets`.
    pub(super) fn entries_at(
        &self,
        topic: TopicId,
        queue: QueueId,
        offsets: impl Iterator<Item = QueueOffset>,
    ) -> Result<Vec<Entry>, kv::Error> {
        let tail_from = self.tail_from(topic, queue);
        let tail = self.tails.of(topic, queue);
        let mut run: Option<Run> = None;
        let mut found = Vec::with_capacity(offsets.size_hint().0);
        for offset in offsets {
            if let Some(place) = offset.0.checked_sub(tail_from.0) {
                let place = usize::try_from(place).expect("tails are short");
                found.push(tail.expect("the offset is in the tail")[place]);
                continue;
            }
            if run.as_ref().is_none_or(|run| run.get(offset).is_none()) {
                run = consume_queue::find(&*self.kv, topic, queue, offset)?;
            }
            let entry = run.as_ref().and_then(|run| run.get(offset));
            found.push(*entry.expect("a queue holds every offset below its end"));
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
