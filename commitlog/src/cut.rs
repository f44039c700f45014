//! Cuts the log's end off, when a new leader's log differs there.
//!
//! The cut is recorded in the hard state before anything is touched and taken back when all of it
//! is durable. A crash on the way is finished by the next start, so a log is never seen half cut.

use std::sync::Arc;

use crate::error::Error;
use crate::hard_state::{Cutting, HardState};
use crate::header::segment_name;
use crate::open::clear;
use crate::position::{LogId, LogOffset};
use crate::segment::Segment;
use crate::spares::Active;
use crate::tail::Tail;
use crate::writer::Writer;

impl Writer {
    /// Cuts everything after the entry `after`. Durable when this returns.
    pub(crate) fn truncate(&mut self, after: Option<LogId>) -> Result<(), Error> {
        if self.shared.inner().last == after {
            return Ok(());
        }
        let tail = self.tail_after(after)?;
        let dirty_end = self.shared.inner().written;
        let marked = self.marked();
        let synced = marked.synced.min(tail.end);
        let cutting = Some(Cutting { at: tail.end, dirty_end });
        self.hard.save(HardState { synced, cutting, ..marked })?;
        let behind = self.forget_behind(tail);
        self.remove_segments(&behind)?;
        self.clear_behind(tail, dirty_end)?;
        self.hard.save(HardState { cutting: None, ..self.hard.state() })?;
        let mut inner = self.shared.inner();
        inner.synced = tail.end;
        inner.assert_marks();
        Ok(())
    }

    /// The tail of a log that ends with the entry `after`.
    fn tail_after(&self, after: Option<LogId>) -> Result<Tail, Error> {
        let Some(wanted) = after else { return Ok(Tail::EMPTY) };
        let (segment, successor, written) = {
            let inner = self.shared.inner();
            let segment = inner.segment_of(wanted.index).map(|(segment, _)| segment);
            // Begins right behind the entry, which may be gone, or never have been here.
            let successor = inner.segments.values().find(|s| s.header.prev == after).cloned();
            (segment, successor, inner.written)
        };
        let found = match &segment {
            Some(segment) => find(segment, wanted, written)?,
            None => Found::Nothing,
        };
        match (found, successor) {
            (Found::Wanted(tail), _) => Ok(tail),
            (Found::Nothing, Some(successor)) => Ok(Tail::at_start_of(&successor.header)),
            (Found::Nothing, None) => Err(Error::UnknownEntry { wanted, found: None }),
            (Found::Other(other), _) => Err(Error::UnknownEntry { wanted, found: Some(other) }),
        }
    }

    /// Ends the log at `tail` for everybody who reads, before its bytes go. Answers the bases of
    /// the segments that are wholly behind, the oldest first.
    fn forget_behind(&self, tail: Tail) -> Vec<u64> {
        let mut inner = self.shared.inner();
        inner.changes += 1;
        inner.cache.truncate(tail.end);
        inner.last = tail.last.max(inner.purged);
        inner.tail = tail;
        inner.written = tail.end;
        inner.synced = inner.synced.min(tail.end);
        // A tail that ends in a segment ends behind that segment's header.
        let behind = inner.segments.split_off(&tail.end.0);
        if let Some((_, segment)) = inner.segments.range(..=tail.end.0).next_back() {
            segment.truncate(tail.end);
        }
        inner.assert_marks();
        behind.into_keys().collect()
    }

    /// The newest first: at no time may a segment be missing between others.
    fn remove_segments(&mut self, behind: &[u64]) -> Result<(), Error> {
        for &base in behind.iter().rev() {
            self.remove_file(LogOffset(base))?;
            self.active = None;
        }
        let newest = self.shared.inner().segments.values().next_back().cloned();
        if let Some(segment) = newest.filter(|_| self.active.is_none()) {
            let name = segment_name(segment.base());
            let file = self.shared.disk.open(&name).map_err(|e| Error::io("open", &name, e))?;
            segment.set_file(Some(file.clone()));
            self.active = Some(Active { base: segment.base(), file, recycled: true });
        }
        Ok(())
    }

    fn clear_behind(&self, tail: Tail, dirty_end: LogOffset) -> Result<(), Error> {
        let Some(active) = &self.active else { return Ok(()) };
        let io = |action| move |e| Error::io(action, &segment_name(active.base), e);
        let limit = active.base + self.shared.config.segment_size;
        clear(active, tail.end, limit.min(dirty_end)).map_err(io("clear"))?;
        active.file.sync_data().map_err(io("sync"))
    }
}

/// What a segment holds under an index.
pub(crate) enum Found {
    /// The log, were it to end with the entry.
    Wanted(Tail),
    Other(LogId),
    Nothing,
}

pub(crate) fn find(
    segment: &Arc<Segment>,
    wanted: LogId,
    written: LogOffset,
) -> Result<Found, Error> {
    let end = segment.limit().min(written);
    let mut cursor = segment.cursor(wanted.index, end, false)?;
    loop {
        let at = cursor.at();
        let Some(entry) = cursor.next_sound()? else { return Ok(Found::Nothing) };
        if entry.header.log_id.index < wanted.index {
            continue;
        }
        if entry.header.log_id != wanted {
            return Ok(Found::Other(entry.header.log_id));
        }
        let before = Tail { end: at, ..Tail::at_start_of(&segment.header) };
        return Ok(Found::Wanted(before.behind(&entry.header, entry.chain)));
    }
}
