//! Reads segments again, some bytes at a time, and compares them with their checksums: damage is to
//! be found while the other replicas still have what it took.

use std::sync::Arc;

use crate::cursor::{Cursor, corrupt, size};
use crate::disk::DiskFile;
use crate::error::{Check, Error};
use crate::frame::{FRAME_HEADER, Mismatch, u32_at};
use crate::header::{SEGMENT_HEADER, SEGMENT_HEADER_LEN, SegmentHeader, segment_name};
use crate::mend::first_frame;
use crate::position::{LogId, LogOffset};
use crate::reader::Reader;
use crate::segment::Segment;
use crate::tail::Tail;

/// Bytes of filling that are looked at together.
const CHUNK: u64 = 256 << 10;

/// A segment that is read once more from its beginning.
#[derive(Debug)]
pub struct Scrub {
    reader: Reader,
    /// What had been cut, removed and repaired when it began.
    changes: u64,
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    cursor: Cursor,
    tail: Tail,
    /// Entries end here at the latest.
    end: LogOffset,
    sealed: bool,
    crc: crc32fast::Hasher,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Frames,
    Filling(LogOffset),
    Done,
}

/// What a whole segment was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    pub base: LogOffset,
    /// The last entry in it.
    pub last: Option<LogId>,
    /// CRC-32 over the headers of the segment and of its frames, each of which holds the one of its
    /// body: equal on replicas whose segments are.
    pub crc: u32,
}

impl Reader {
    /// The bases of all segments that are written to no more, the oldest first.
    #[must_use]
    pub fn sealed(&self) -> Vec<LogOffset> {
        let inner = self.shared.inner();
        let bases = inner.segments.values().map(|segment| segment.base());
        bases.filter(|&base| inner.segment_at(base).is_some_and(|(_, fixed)| fixed)).collect()
    }

    /// Begins to read the segment `base` again: all of a sealed one, of the one that is being
    /// written what is durable.
    ///
    /// # Errors
    /// `Missing` if there is no such segment, `Io`.
    pub fn scrub(&self, base: LogOffset) -> Result<Scrub, Error> {
        let changes = self.shared.changes();
        let found = {
            let inner = self.shared.inner();
            inner.segment_at(base).map(|(segment, sealed)| (segment, sealed, inner.synced))
        };
        let missing = || Error::Missing { file: segment_name(base) };
        let (segment, sealed, synced) = found.ok_or_else(missing)?;
        if segment.base() != base {
            return Err(missing());
        }
        let io = |action| move |source| Error::io(action, &segment_name(base), source);
        let file = self.shared.disk.open(&segment_name(base)).map_err(io("open"))?;
        let end = segment.limit().min(synced);
        let cursor = Cursor::reading(file.clone(), base, first_frame(base), end);
        let tail = Tail::at_start_of(&segment.header);
        let (crc, state) = (crc32fast::Hasher::new(), State::Header);
        let reader = self.clone();
        Ok(Scrub { reader, changes, segment, file, cursor, tail, end, sealed, crc, state })
    }
}

impl Scrub {
    /// Reads on, about `bytes` bytes. Answers how many were read, 0 at the segment's end.
    ///
    /// # Errors
    /// `Corrupt` for what is damaged, `Io` for what cannot be read.
    pub fn step(&mut self, bytes: u64) -> Result<u64, Error> {
        let read = match self.state {
            State::Header => self.header(),
            State::Frames => self.frames(bytes),
            State::Filling(at) => self.filling(at, bytes),
            State::Done => Ok(0),
        };
        // What was cut, removed or repaired meanwhile looks like damage, and is none.
        if read.is_err() && self.reader.shared.changes() != self.changes {
            self.state = State::Done;
            return Ok(0);
        }
        read
    }

    /// Of all that was read.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        let crc = self.crc.clone().finalize();
        Checksum { base: self.segment.base(), last: self.tail.last, crc }
    }

    fn header(&mut self) -> Result<u64, Error> {
        let base = self.segment.base();
        let mut bytes = vec![0; SEGMENT_HEADER_LEN];
        self.file.read_at(&mut bytes, 0).map_err(|e| Error::io("read", &segment_name(base), e))?;
        let found = SegmentHeader::decode(&bytes, base)?;
        if found != self.segment.header {
            let announced = u32_at(&self.segment.header.encode(), 4);
            let mismatch = Mismatch::new(Check::HeaderCrc, announced, u32_at(&bytes, 4));
            return Err(corrupt(base, base, mismatch));
        }
        self.crc.update(&bytes);
        self.state = State::Frames;
        Ok(SEGMENT_HEADER)
    }

    fn frames(&mut self, bytes: u64) -> Result<u64, Error> {
        let base = self.segment.base();
        let start = self.cursor.at();
        while self.cursor.at() - start < bytes {
            let at = self.cursor.at();
            // Behind what is durable nothing counts yet.
            if !self.sealed && at >= self.end {
                self.state = State::Done;
                break;
            }
            let Some(entry) = self.cursor.next_sound()? else {
                self.state = if self.sealed { State::Filling(at) } else { State::Done };
                break;
            };
            if entry.header.prev != self.tail.chain {
                let mismatch = Mismatch::new(Check::Chain, self.tail.chain, entry.header.prev);
                return Err(corrupt(base, at, mismatch));
            }
            entry.check().map_err(|mismatch| corrupt(base, at, mismatch))?;
            self.crc.update(&entry.chain.to_le_bytes());
            self.tail = self.tail.behind(&entry.header, entry.chain);
        }
        Ok((self.cursor.at() - start).max(1))
    }

    /// Nothing but zeros stands behind the header of a filling.
    fn filling(&mut self, at: LogOffset, bytes: u64) -> Result<u64, Error> {
        let (base, limit) = (self.segment.base(), self.segment.limit());
        let headed = limit - at >= FRAME_HEADER && at == self.cursor.at();
        let from = if headed { at + FRAME_HEADER } else { at };
        let len = CHUNK.min(bytes.max(1)).min(limit.0.saturating_sub(from.0));
        let mut buf = vec![0; size(len)];
        self.file
            .read_at(&mut buf, from - base)
            .map_err(|e| Error::io("read", &segment_name(base), e))?;
        if let Some(dirty) = buf.iter().position(|&byte| byte != 0) {
            let mismatch = Mismatch::new(Check::Length, 0_u64, buf[dirty]);
            return Err(corrupt(base, from + dirty as u64, mismatch));
        }
        let end = from + len;
        self.state = if end >= limit { State::Done } else { State::Filling(end) };
        Ok((end - at).max(1))
    }
}
