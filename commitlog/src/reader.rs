//! Reads the log: by index for replication, by offset for consumers.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::corrupt;
use crate::error::{Check, Error};
use crate::frame::{FRAME_HEADER, FrameKind, Mismatch};
use crate::header::SEGMENT_HEADER;
use crate::position::{LogIndex, LogOffset};
use crate::record::{Frame, Kind, Record};
use crate::segment::Segment;
use crate::shared::{Inner, Shared};

/// Reads while the log is written. Cheap to clone; what it hands out stays valid after the log was
/// truncated, its files removed, or the log closed.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

/// Where the next frames come from.
enum Source {
    End,
    Memory,
    Disk { segment: Arc<Segment>, fixed: bool, written: LogOffset },
}

impl Reader {
    /// Entries of `range` that the log holds, in order and without a gap, starting with the first
    /// of the range: at least one if there is one, then more until their bodies have `max_bytes`
    /// bytes. Empty only if the log ends before the range.
    ///
    /// # Errors
    /// `Purged` if the first is gone, `Corrupt` or `Io` if it cannot be read.
    pub fn frames(&self, range: Range<LogIndex>, max_bytes: usize) -> Result<Vec<Frame>, Error> {
        self.undisturbed(|| {
            let (next, end) = (range.start, range.end);
            let mut batch = Gathered { frames: Vec::new(), bytes: 0, next, end, max_bytes };
            self.gather(&mut batch)?;
            Ok(batch.frames)
        })
    }

    /// Reads again when meanwhile something was cut, removed or replaced: what was read may be half
    /// old and half new, or look like damage. Every further round needs a further change, each of
    /// which waits for the disk.
    pub(crate) fn undisturbed<T>(&self, read: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let before = self.shared.changes();
            let result = read();
            if self.shared.inner().changes == before {
                return result;
            }
        }
    }

    fn gather(&self, batch: &mut Gathered) -> Result<(), Error> {
        while !batch.is_full() {
            match self.more(batch)? {
                Source::End => break,
                Source::Memory => {}
                Source::Disk { segment, fixed, written } => {
                    let found = batch.frames.len();
                    batch.read(&segment, fixed, written)?;
                    if batch.frames.len() == found {
                        return Err(hole(&segment, batch.next, written));
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what memory has, or says where else to look.
    fn more(&self, batch: &mut Gathered) -> Result<Source, Error> {
        let inner = self.shared.inner();
        if inner.last.is_none_or(|last| batch.next > last.index) {
            return Ok(Source::End);
        }
        if let Some(frames) = inner.cache.starting_at(batch.next) {
            for frame in frames {
                if batch.is_full() {
                    break;
                }
                batch.push(frame.clone());
            }
            return Ok(Source::Memory);
        }
        match inner.segment_of(batch.next) {
            Some((segment, fixed)) => Ok(Source::Disk { segment, fixed, written: inner.written }),
            None => Err(purged(&inner)),
        }
    }

    /// `len` bytes of a body from `offset` on. Without a copy from memory or, where the segment
    /// is sealed, synced and committed, from its map. What comes from the disk is checked against
    /// its checksums before it is handed out.
    ///
    /// # Errors
    /// `OutOfRange` if no body of the log has these bytes, `Purged` if its file is gone, `Corrupt`
    /// or `Io` if it cannot be read.
    pub fn bytes(&self, offset: LogOffset, len: u32) -> Result<Bytes, Error> {
        // An empty body at a segment's end would be looked for in the next one.
        if len == 0 {
            return Ok(Bytes::new());
        }
        self.undisturbed(|| self.slice(offset, u64::from(len)))
    }

    fn slice(&self, offset: LogOffset, len: u64) -> Result<Bytes, Error> {
        let ((segment, fixed), written) = {
            let inner = self.shared.inner();
            if let Some(bytes) = inner.cache.slice(offset, len) {
                return Ok(bytes);
            }
            let start = inner.segments.values().next().map_or(inner.tail.end, |s| s.base());
            if offset < start {
                return Err(purged(&inner));
            }
            if offset + len > inner.written {
                return Err(Error::OutOfRange { offset, len, start, end: inner.written });
            }
            let end = inner.written;
            let outside = Error::OutOfRange { offset, len, start, end };
            (inner.segment_at(offset).ok_or(outside)?, end)
        };
        if offset < segment.base() + SEGMENT_HEADER || offset + len > segment.limit() {
            let (start, end) = (segment.base() + SEGMENT_HEADER, segment.limit());
            return Err(Error::OutOfRange { offset, len, start, end });
        }
        if fixed {
            return segment.mapped_slice(offset, len);
        }
        segment.copied_slice(offset, len, written)
    }
}

fn purged(inner: &Inner) -> Error {
    let after_purged = inner.purged.map_or(LogIndex(0), |purged| purged.index.next());
    Error::Purged { first: inner.first_index().unwrap_or(after_purged) }
}

fn hole(segment: &Segment, expected: LogIndex, at: LogOffset) -> Error {
    corrupt(
        segment.base(),
        at,
        Mismatch::new(Check::Index, expected.0, segment.header.first_index.0),
    )
}

/// Frames on their way to the caller.
struct Gathered {
    frames: Vec<Frame>,
    bytes: usize,
    next: LogIndex,
    end: LogIndex,
    max_bytes: usize,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.next >= self.end || (!self.frames.is_empty() && self.bytes >= self.max_bytes)
    }

    fn push(&mut self, frame: Frame) {
        assert_eq!(frame.record.log_id.index, self.next, "frames follow each other");
        self.bytes += frame.record.body.len();
        self.next = self.next.next();
        self.frames.push(frame);
    }

    /// Takes frames from one segment, up to its end or the end of what is written.
    fn read(&mut self, segment: &Segment, fixed: bool, written: LogOffset) -> Result<(), Error> {
        let end = segment.limit().min(written);
        let mut cursor = segment.cursor(self.next, end, fixed)?;
        while !self.is_full() {
            let at = cursor.at();
            let Some(entry) = cursor.next_sound()? else { break };
            if entry.header.log_id.index < self.next {
                continue;
            }
            entry.check().map_err(|mismatch| corrupt(segment.base(), at, mismatch))?;
            let FrameKind::Entry(kind) = entry.header.kind else { break };
            if entry.header.log_id.index != self.next {
                return Err(hole(segment, self.next, at));
            }
            self.push(Frame { record: record(kind, entry), position: at + FRAME_HEADER });
        }
        Ok(())
    }
}

fn record(kind: Kind, entry: crate::cursor::Entry) -> Record {
    Record {
        log_id: entry.header.log_id,
        kind,
        stamp: entry.header.stamp,
        body: entry.body,
        body_crc: entry.header.body_crc,
    }
}
