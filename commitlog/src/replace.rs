//! Puts another replica's log in the place of this one, when this one has fallen so far behind that
//! what it lacks is gone everywhere.
//!
//! What is to happen is noted in the hard state before anything is touched, and taken back when all
//! of it is durable. A crash on the way is finished by the next start, so that the log is the old
//! one or the new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Check, Error};
use crate::frame::Mismatch;
use crate::hard_state::{HardState, HardStateFile, Replacing};
use crate::header::{
    SegmentHeader, incoming_base, incoming_name, is_mending, segment_base, segment_name,
};
use crate::open::segment_header;
use crate::position::{LogId, LogOffset};
use crate::segment::Segment;
use crate::shared::Done;
use crate::ship::{Extent, Sound, look_through};
use crate::spares::Active;
use crate::writer::Writer;

/// A log whose segments stand in the log's directory under [`incoming_name`](crate::incoming_name).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Base of the oldest segment.
    pub first: LogOffset,
    /// Where the last entry ends.
    pub end: LogOffset,
    pub last: LogId,
}

/// What comes, as it was found.
struct Incoming {
    headers: Vec<SegmentHeader>,
    newest: Sound,
}

impl Writer {
    pub(crate) fn replace(&mut self, with: Replacement, done: Done) {
        let incoming = match self.look_at(with) {
            Ok(incoming) => incoming,
            // Nothing was touched: what is wrong is wrong with what came.
            Err(error) => {
                self.shared.inner().truncating = false;
                return done(Err(error));
            }
        };
        {
            let mut inner = self.shared.inner();
            inner.replacing = true;
            inner.changes += 1;
        }
        let result = self.take_over(with, incoming);
        {
            let mut inner = self.shared.inner();
            inner.replacing = false;
            inner.truncating = false;
            inner.changes += 1;
        }
        self.shared.replaced.notify_all();
        self.answer(result, done);
    }

    fn look_at(&self, with: Replacement) -> Result<Incoming, Error> {
        let shared = &self.shared;
        let size = shared.config.segment_size;
        let group = shared.group_id.ok_or(Error::NoGroup)?;
        let newest = LogOffset((with.end.0.saturating_sub(1)) / size * size);
        let mut headers: Vec<SegmentHeader> = Vec::new();
        let mut base = with.first;
        while base <= newest {
            let name = incoming_name(base);
            let header = segment_header(size, &*shared.disk, &name, base, Some(group))?;
            if headers.last().is_some_and(|older| older.first_index >= header.first_index) {
                let found = header.first_index.0;
                let mismatch = Mismatch::new(Check::Index, found + 1, found);
                return Err(crate::cursor::corrupt(base, base, mismatch));
            }
            headers.push(header);
            base = base + size;
        }
        let extent = Extent { base: newest, len: with.end - newest, last: with.last };
        let newest = look_through(&shared.disk, &incoming_name(newest), group, size, extent)?;
        Ok(Incoming { headers, newest })
    }

    fn take_over(&mut self, with: Replacement, incoming: Incoming) -> Result<(), Error> {
        let Incoming { headers, newest } = incoming;
        let marked = self.marked();
        let state = HardState {
            purged: marked.purged.max(headers.first().and_then(|first| first.prev)),
            committed: marked.committed.max(Some(with.last.index)),
            synced: with.end,
            clean: false,
            cutting: None,
            replacing: Some(Replacing { first: with.first, end: with.end }),
            ..marked
        };
        self.hard.save(state)?;
        self.active = None;
        self.unsynced_bytes = 0;
        self.unsynced_since = None;
        finish_replacement(&*self.shared.disk, &mut self.hard)?;

        let disk = &self.shared.disk;
        let base = newest.segment.base();
        let name = segment_name(base);
        let file = disk.open(&name).map_err(|e| Error::io("open", &name, e))?;
        newest.segment.set_file(Some(file.clone()));
        let mut segments: BTreeMap<u64, Arc<Segment>> = headers
            .iter()
            .map(|header| (header.base.0, Arc::new(Segment::sealed(disk.clone(), *header))))
            .collect();
        segments.insert(base.0, Arc::new(newest.segment));
        // What is behind the end was never looked at: fillings are written out.
        self.active = Some(Active { base, file, recycled: true });
        let mut inner = self.shared.inner();
        inner.cache.truncate(LogOffset(0));
        inner.segments = segments;
        inner.tail = newest.tail;
        inner.last = Some(with.last);
        inner.purged = state.purged;
        inner.committed = state.committed;
        inner.written = with.end;
        inner.synced = with.end;
        inner.assert_marks();
        tracing::info!(start = %with.first, end = %with.end, last = %with.last, "log replaced");
        Ok(())
    }
}

/// Finishes a replacement that was begun; else removes what came for one that never was. Copies of
/// segments that were never put in place go too.
pub(crate) fn finish_replacement(disk: &dyn Disk, hard: &mut HardStateFile) -> Result<(), Error> {
    let list = || disk.list().map_err(|e| Error::io("list", ".", e));
    let sync = || disk.sync_dir().map_err(|e| Error::io("sync", ".", e));
    let remove = |name: &str| disk.remove(name).map_err(|e| Error::io("remove", name, e));
    let names = list()?;
    for name in names.iter().filter(|name| is_mending(name)) {
        remove(name)?;
    }
    let incoming: Vec<LogOffset> = names.iter().filter_map(|name| incoming_base(name)).collect();
    let before = hard.state();
    let Some(Replacing { first, end }) = before.replacing else {
        for &base in &incoming {
            remove(&incoming_name(base))?;
        }
        return Ok(());
    };
    let wanted = |base: LogOffset| first <= base && base < end;
    // One that was renamed by an earlier attempt has no incoming file any more.
    for base in names.iter().filter_map(|name| segment_base(name)) {
        if !wanted(base) || incoming.contains(&base) {
            remove(&segment_name(base))?;
        }
    }
    // The old names must be gone before they can come back as new ones.
    sync()?;
    for &base in &incoming {
        let (from, to) = (incoming_name(base), segment_name(base));
        if wanted(base) {
            disk.rename(&from, &to).map_err(|e| Error::io("rename", &from, e))?;
        } else {
            remove(&from)?;
        }
    }
    sync()?;
    hard.save(HardState { replacing: None, ..before })
}
