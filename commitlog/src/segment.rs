//! One segment as readers see it: its header, a sparse index, its file or its map.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::bug::Bug;
use crate::cursor::{Cursor, corrupt, size};
use crate::disk::{Disk, DiskFile};
use crate::error::{Check, Error};
use crate::frame::Mismatch;
use crate::header::{SEGMENT_HEADER, SegmentHeader, segment_name};
use crate::position::{LogIndex, LogOffset};

/// The sparse index has an entry about every so many bytes.
const GRANULE: u64 = 64 << 10;
/// For so long after they were compared with their checksums, bytes are handed out without doing it
/// again: what has just been read is in memory. Later the operating system may have read it from the
/// disk once more.
const VERIFIED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// Only files that this log created may be recycled: of older ones, maps that an earlier
    /// instance in this process handed out may still be alive.
    pub(crate) created_here: bool,
    disk: Arc<dyn Disk>,
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    view: OnceLock<Bytes>,
    index: Mutex<SparseIndex>,
}

/// Some entries of a segment, in order.
#[derive(Debug, Default)]
struct SparseIndex {
    marks: Vec<Mark>,
    /// Whether it reaches over all that is written; else it is built at first use.
    complete: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    index: LogIndex,
    offset: LogOffset,
    /// When the bodies up to the next mark were last compared with their checksums.
    verified: Option<Instant>,
}

impl SparseIndex {
    fn note(&mut self, index: LogIndex, offset: LogOffset) {
        if self.marks.last().is_none_or(|last| offset - last.offset >= GRANULE) {
            self.marks.push(Mark { index, offset, verified: None });
        }
    }
}

impl Segment {
    /// A segment that is being written by this process; the index grows with it.
    pub(crate) fn growing(disk: Arc<dyn Disk>, header: SegmentHeader, created_here: bool) -> Self {
        let index = SparseIndex { marks: Vec::new(), complete: true };
        Self {
            header,
            created_here,
            disk,
            file: Mutex::new(None),
            view: OnceLock::new(),
            index: Mutex::new(index),
        }
    }

    /// A sealed segment found on disk.
    pub(crate) fn sealed(disk: Arc<dyn Disk>, header: SegmentHeader) -> Self {
        let segment = Self::growing(disk, header, false);
        segment.index().complete = false;
        segment
    }

    pub(crate) fn base(&self) -> LogOffset {
        self.header.base
    }

    /// Where the next segment starts.
    pub(crate) fn limit(&self) -> LogOffset {
        self.header.base + self.header.segment_size
    }

    fn index(&self) -> MutexGuard<'_, SparseIndex> {
        self.index.lock().expect("no holder of a segment's index panics")
    }

    /// Tells that an entry's frame stands at `offset`.
    pub(crate) fn note(&self, index: LogIndex, offset: LogOffset) {
        self.index().note(index, offset);
    }

    /// Forgets what stands at `end` and behind.
    pub(crate) fn truncate(&self, end: LogOffset) {
        self.index().marks.retain(|mark| mark.offset < end);
    }

    /// Gives readers the handle that the writer uses; takes it back with `None`.
    pub(crate) fn set_file(&self, file: Option<Arc<dyn DiskFile>>) {
        *self.file.lock().expect("no holder of a segment's file panics") = file;
    }

    fn io(&self, action: &'static str, source: io::Error) -> Error {
        Error::io(action, &segment_name(self.base()), source)
    }

    fn file(&self) -> Result<Arc<dyn DiskFile>, Error> {
        let mut file = self.file.lock().expect("no holder of a segment's file panics");
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let opened = self.disk.open(&segment_name(self.base())).map_err(|e| self.io("open", e))?;
        *file = Some(opened.clone());
        Ok(opened)
    }

    /// The whole segment in memory. Only for segments whose bytes never change again: sealed,
    /// synced and committed.
    pub(crate) fn view(&self) -> Result<&Bytes, Error> {
        if let Some(view) = self.view.get() {
            return Ok(view);
        }
        let view = self.file()?.map().map_err(|e| self.io("map", e))?;
        if view.len() as u64 != self.header.segment_size {
            let mismatch =
                Mismatch::new(Check::Length, self.header.segment_size, view.len() as u64);
            return Err(corrupt(self.base(), self.base(), mismatch));
        }
        let view = self.view.get_or_init(|| view);
        self.set_file(None);
        Ok(view)
    }

    /// Whether nobody outside holds bytes of this segment's map.
    pub(crate) fn is_unmapped(&self) -> bool {
        self.view.get().is_none_or(Bytes::is_unique)
    }

    /// A cursor that stands at or shortly before the entry `index`. `end` bounds what is written;
    /// `fixed` tells that the segment never changes again, so that it may be mapped.
    pub(crate) fn cursor(
        &self,
        index: LogIndex,
        end: LogOffset,
        fixed: bool,
    ) -> Result<Cursor, Error> {
        self.complete_index(end, fixed)?;
        let at = {
            let sparse = self.index();
            let behind = sparse.marks.partition_point(|mark| mark.index <= index);
            match behind.checked_sub(1) {
                Some(i) => sparse.marks[i].offset,
                None => self.base() + SEGMENT_HEADER,
            }
        };
        self.cursor_at(at, end, fixed)
    }

    fn cursor_at(&self, at: LogOffset, end: LogOffset, fixed: bool) -> Result<Cursor, Error> {
        if fixed {
            return Ok(Cursor::over(self.view()?.clone(), self.base(), at, end));
        }
        Ok(Cursor::reading(self.file()?, self.base(), at, end))
    }

    /// Walks the frame headers once, if this segment was found on disk.
    fn complete_index(&self, end: LogOffset, fixed: bool) -> Result<(), Error> {
        if self.index().complete {
            return Ok(());
        }
        let mut cursor = self.cursor_at(self.base() + SEGMENT_HEADER, end, fixed)?;
        let mut built = SparseIndex { marks: Vec::new(), complete: true };
        let mut expected = self.header.first_index;
        loop {
            let at = cursor.at();
            let Some(entry) = cursor.next_sound()? else { break };
            self.check_index(at, expected, entry.header.log_id.index)?;
            built.note(expected, at);
            expected = expected.next();
        }
        *self.index() = built;
        Ok(())
    }

    fn check_index(&self, at: LogOffset, expected: LogIndex, found: LogIndex) -> Result<(), Error> {
        if found == expected {
            return Ok(());
        }
        Err(corrupt(self.base(), at, Mismatch::new(Check::Index, expected.0, found.0)))
    }

    /// A part of a body from the map, of which the bodies around it are compared with their
    /// checksums.
    pub(crate) fn mapped_slice(&self, offset: LogOffset, len: u64) -> Result<Bytes, Error> {
        self.complete_index(self.limit(), true)?;
        self.verify_around(offset, len, self.limit(), true)?;
        let from = size(offset - self.base());
        Ok(self.view()?.slice(from..from + size(len)))
    }

    /// Compares the bodies around a place with their checksums, unless that was just done.
    fn verify_around(
        &self,
        offset: LogOffset,
        len: u64,
        written: LogOffset,
        fixed: bool,
    ) -> Result<(), Error> {
        let end = self.limit().min(written);
        let (mark, until, i, whole) = {
            let sparse = self.index();
            let behind = sparse.marks.partition_point(|mark| mark.offset <= offset);
            let Some(i) = behind.checked_sub(1) else {
                return Err(self.outside(offset, len));
            };
            let next = sparse.marks.get(behind).map(|next| next.offset).filter(|&at| at <= end);
            (sparse.marks[i], next.unwrap_or(end), i, fixed || next.is_some())
        };
        if offset + len > until {
            return Err(self.outside(offset, len));
        }
        let just_done = mark.verified.is_some_and(|at| at.elapsed() < VERIFIED_FOR);
        if just_done || Bug::B20.is_sown() {
            return Ok(());
        }
        let mut cursor = self.cursor_at(mark.offset, until, fixed)?;
        while cursor.at() < until {
            let at = cursor.at();
            let Some(entry) = cursor.next_sound()? else { break };
            entry.check().map_err(|m| corrupt(self.base(), at, m))?;
        }
        // The last stretch of what is being written grows yet.
        if whole
            && let Some(verified) = self.index().marks.get_mut(i)
            && verified.offset == mark.offset
        {
            verified.verified = Some(Instant::now());
        }
        Ok(())
    }

    /// Nothing counts as compared with its checksum any more.
    pub(crate) fn forget_verified(&self) {
        for mark in &mut self.index().marks {
            mark.verified = None;
        }
    }

    fn outside(&self, offset: LogOffset, len: u64) -> Error {
        Error::OutOfRange { offset, len, start: self.base() + SEGMENT_HEADER, end: self.limit() }
    }

    /// A part of a body, copied from the file, of which `written` bounds what is there. The bodies
    /// around it are compared with their checksums.
    pub(crate) fn copied_slice(
        &self,
        offset: LogOffset,
        len: u64,
        written: LogOffset,
    ) -> Result<Bytes, Error> {
        self.complete_index(self.limit().min(written), false)?;
        self.verify_around(offset, len, written, false)?;
        self.raw(offset, len)
    }

    /// Bytes of the file as they are.
    pub(crate) fn raw(&self, offset: LogOffset, len: u64) -> Result<Bytes, Error> {
        let mut buf = vec![0; size(len)];
        self.file()?.read_at(&mut buf, offset - self.base()).map_err(|e| self.io("read", e))?;
        Ok(buf.into())
    }
}
