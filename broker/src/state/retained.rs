//! What still refers into each segment of the log: what decides how much of the log is kept.
//!
//! Counted as references come and go, by topic, so that a topic goes without looking at its
//! messages. A message that changes from half to queued, or from delayed to queued, stays in the
//! same row: only what begins or ends to be kept, or moves, is counted.
//!
//! Invariants: `segments` is the sum of `rows` over topics; a row and a sum without references is
//! not there; no reference lies behind the segment at `end`; the floor never goes back, because
//! what is new refers to the log's end or to where something else refers already.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp};

use super::QueueEntry;
use super::digest::Fold;
use super::topics::Topics;
use crate::command::TimerId;
use crate::kv::retained::{Live, Mark};
use crate::kv::{self, Batch, Kv, TopicId, consume_queue};

#[derive(Debug)]
pub(super) struct Retained {
    mark: Mark,
    rows: BTreeMap<(TopicId, LogOffset), Live>,
    segments: BTreeMap<LogOffset, Live>,
    /// When segments began, from that of the floor on.
    starts: BTreeMap<LogOffset, Timestamp>,
    touched: BTreeSet<(TopicId, LogOffset)>,
    /// What the store knows of `mark` and `starts`.
    written: Mark,
}

impl Retained {
    /// # Panics
    /// A segment has no bytes.
    pub(super) fn load(kv: &dyn Kv, topics: &Topics, segment: u64) -> Result<Self, kv::Error> {
        assert!(segment > 0, "a segment has bytes");
        let found = kv::retained::mark(kv)?.filter(|mark| mark.segment == segment);
        let empty = Mark { segment, ..Mark::default() };
        let mut all = Self {
            mark: found.unwrap_or(empty),
            rows: BTreeMap::new(),
            segments: BTreeMap::new(),
            starts: BTreeMap::new(),
            touched: BTreeSet::new(),
            written: found.unwrap_or_default(),
        };
        if found.is_none() {
            all.count(kv, topics)?;
            return Ok(all);
        }
        kv::retained::load(kv, |topic, base, live| {
            all.rows.insert((topic, base), live);
            all.sum(base, |sum| {
                sum.references += live.references;
                sum.bytes += live.bytes;
            });
        })?;
        kv::retained::load_starts(kv, |base, stamp| {
            all.starts.insert(base, stamp);
        })?;
        Ok(all)
    }

    /// Counts everything: for a store that was never counted, or by other segments.
    fn count(&mut self, kv: &dyn Kv, topics: &Topics) -> Result<(), kv::Error> {
        for id in topics.ids() {
            for (queue, head) in (0..).map(QueueId).zip(topics.get(id).heads()) {
                consume_queue::scan(kv, id, queue, head.min, |run| {
                    for (offset, entry) in run.entries_from(head.min) {
                        if offset < head.max {
                            self.add(id, entry.position, 1, entry.len.into());
                        }
                    }
                    ControlFlow::Continue(())
                })?;
            }
        }
        let first = TimerId { due: Timestamp(0), number: 0 };
        kv::timer::scan(kv, first, |_, timer| {
            if topics.find_id(timer.topic).is_some() {
                self.add(timer.topic, timer.position, 1, timer.len.into());
            }
            ControlFlow::Continue(())
        })?;
        kv::half::load(kv, |_, half| {
            self.add(half.topic, half.position, 1, half.len.into());
            Ok(())
        })?;
        let last = self.segments.keys().next_back().copied();
        self.mark.end = self.mark.end.max(last.unwrap_or_default());
        Ok(())
    }

    fn base(&self, position: LogOffset) -> LogOffset {
        LogOffset(position.0 - position.0 % self.mark.segment)
    }

    /// Bytes of a segment.
    pub(super) fn segment(&self) -> u64 {
        self.mark.segment
    }

    /// References of a topic to messages that begin in the segment at `position`.
    pub(super) fn add(&mut self, topic: TopicId, position: LogOffset, references: u64, bytes: u64) {
        let base = self.base(position);
        let row = self.rows.entry((topic, base)).or_default();
        row.references += references;
        row.bytes += bytes;
        self.sum(base, |sum| {
            sum.references += references;
            sum.bytes += bytes;
        });
        self.touched.insert((topic, base));
    }

    /// A reference of a topic ends.
    pub(super) fn release(&mut self, topic: TopicId, position: LogOffset, bytes: u64) {
        self.release_all(topic, position, Live { references: 1, bytes });
    }

    /// References of a topic to messages in the segment at `position` end.
    fn release_all(&mut self, topic: TopicId, position: LogOffset, gone: Live) {
        let base = self.base(position);
        let row = self.rows.get_mut(&(topic, base)).expect("what is released was counted");
        row.references -= gone.references;
        row.bytes -= gone.bytes;
        if row.references == 0 {
            assert_eq!(row.bytes, 0, "the bytes of {topic} at {base} are counted like references");
            self.rows.remove(&(topic, base));
        }
        self.sum(base, |sum| {
            sum.references -= gone.references;
            sum.bytes -= gone.bytes;
        });
        self.touched.insert((topic, base));
    }

    /// A topic goes with everything that refers to it. Its records are deleted elsewhere.
    pub(super) fn forget(&mut self, topic: TopicId) {
        let all = (topic, LogOffset(0))..=(topic, LogOffset(u64::MAX));
        let gone: Vec<_> = self.rows.range(all).map(|((_, base), live)| (*base, *live)).collect();
        for (base, live) in gone {
            self.rows.remove(&(topic, base));
            self.sum(base, |sum| {
                sum.references -= live.references;
                sum.bytes -= live.bytes;
            });
        }
        self.touched.retain(|(of, _)| *of != topic);
    }

    fn sum(&mut self, base: LogOffset, change: impl FnOnce(&mut Live)) {
        let sum = self.segments.entry(base).or_default();
        change(sum);
        if sum.references == 0 {
            self.segments.remove(&base);
        }
    }

    /// A command ends here.
    pub(super) fn reached(&mut self, end: LogOffset, stamp: Timestamp) {
        let base = self.base(end);
        if base > self.mark.end || self.starts.is_empty() {
            self.mark.end = self.mark.end.max(base);
            self.starts.entry(self.mark.end).or_insert(stamp);
        }
    }

    pub(super) fn carried(&mut self, bytes: u64) {
        self.mark.carried += bytes;
    }

    /// Nothing that is kept lies below. The beginning of a segment.
    pub(super) fn floor(&self) -> LogOffset {
        self.segments.keys().next().copied().unwrap_or(self.mark.end).min(self.mark.end)
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Segments that are referred to, oldest first.
    pub(super) fn segments(&self) -> impl Iterator<Item = (LogOffset, Live)> {
        self.segments.iter().map(|(base, live)| (*base, *live))
    }

    /// Topics that refer into a segment.
    pub(super) fn topics_of(&self, base: LogOffset) -> impl Iterator<Item = (TopicId, Live)> {
        let rows = self.rows.iter().filter(move |((_, of), _)| *of == base);
        rows.map(|((topic, _), live)| (*topic, *live))
    }

    /// What a topic keeps, in all.
    pub(super) fn of_topic(&self, topic: TopicId) -> Live {
        let all = (topic, LogOffset(0))..=(topic, LogOffset(u64::MAX));
        self.rows.range(all).fold(Live::default(), |sum, (_, live)| Live {
            references: sum.references + live.references,
            bytes: sum.bytes + live.bytes,
        })
    }

    /// When the segment at `base` began, or the first one after it.
    pub(super) fn started(&self, base: LogOffset) -> Option<Timestamp> {
        self.starts.range(base..).next().map(|(_, stamp)| *stamp)
    }

    /// Adds what changed to the batch.
    pub(super) fn write(&mut self, batch: &mut Batch) {
        for (topic, base) in std::mem::take(&mut self.touched) {
            let live = self.rows.get(&(topic, base)).copied().unwrap_or_default();
            kv::retained::put(batch, topic, base, live);
        }
        let floor = self.floor();
        while let Some((&base, _)) = self.starts.first_key_value()
            && base < floor
        {
            self.starts.remove(&base);
            kv::retained::delete_start(batch, base);
        }
        if self.mark == self.written {
            return;
        }
        if self.written.segment != self.mark.segment {
            // Counted anew: all of it.
            for ((topic, base), live) in &self.rows {
                kv::retained::put(batch, *topic, *base, *live);
            }
        }
        if let Some(stamp) = self.starts.get(&self.mark.end) {
            kv::retained::put_start(batch, self.mark.end, *stamp);
        }
        kv::retained::put_mark(batch, &self.mark);
        self.written = self.mark;
    }

    /// What refers where. How far the log has come is no more part of it than the last index is.
    pub(super) fn fold(&self, fold: Fold) -> Fold {
        let fold = fold.word(self.mark.carried);
        self.rows.iter().fold(fold, |fold, ((topic, base), live)| {
            fold.word(topic.0.into()).word(base.0).word(live.references).word(live.bytes)
        })
    }
}

impl super::State {
    /// Entries of a queue that are kept at `from..to` are kept no longer. While the head of the
    /// queue still holds them.
    pub(super) fn release_entries(
        &mut self,
        topic: TopicId,
        queue: QueueId,
        from: QueueOffset,
        to: QueueOffset,
    ) -> Result<(), kv::Error> {
        /// Entries in memory at a time.
        const PAGE: u64 = 4096;
        let mut next = from;
        while next < to {
            let page = usize::try_from((to.0 - next.0).min(PAGE)).expect("a page is small");
            let entries = self.entries(topic, queue, next, page)?;
            let base = |entry: &QueueEntry| self.retained.base(entry.position);
            let runs = entries.chunk_by(|a, b| base(a) == base(b));
            let runs = runs.map(|run| {
                let bytes = run.iter().map(|entry| u64::from(entry.len)).sum();
                (run[0].position, Live { references: run.len() as u64, bytes })
            });
            for (position, gone) in runs.collect::<Vec<_>>() {
                self.retained.release_all(topic, position, gone);
            }
            next = QueueOffset(next.0 + page as u64);
        }
        Ok(())
    }
}
