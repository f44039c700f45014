//! Walks the frames of one segment: over bytes at hand, or reading a file piece by piece.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::error::{Check, Error};
use crate::frame::{FRAME_HEADER, FrameHeader, FrameKind, HEADER_LEN, Mismatch};
use crate::header::segment_name;
use crate::position::LogOffset;

/// Bytes read at once from a file.
const CHUNK: u64 = 256 << 10;

/// An entry as it was found. Its header is sound; its body is checked by [`Entry::check`].
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) header: FrameHeader,
    /// Checksum of its header, which the next entry carries.
    pub(crate) chain: u32,
    pub(crate) body: Bytes,
}

/// Why a walk stopped before the segment's end.
#[derive(Debug)]
pub(crate) enum Stop {
    Io(io::Error),
    /// What stands at the cursor's place is not a sound frame.
    Damage(Mismatch),
}

/// Stands at `at` and moves on by whole frames.
#[derive(Debug)]
pub(crate) struct Cursor {
    base: LogOffset,
    /// Where to get more bytes; without it `bytes` is all there is.
    file: Option<Arc<dyn DiskFile>>,
    bytes: Bytes,
    /// Log offset of the first of `bytes`.
    start: LogOffset,
    at: LogOffset,
    /// Frames end here at the latest.
    end: LogOffset,
}

impl Cursor {
    /// Over a whole segment in memory.
    pub(crate) fn over(bytes: Bytes, base: LogOffset, at: LogOffset, end: LogOffset) -> Self {
        Self { base, file: None, bytes, start: base, at, end }
    }

    /// Over a segment's file.
    pub(crate) fn reading(
        file: Arc<dyn DiskFile>,
        base: LogOffset,
        at: LogOffset,
        end: LogOffset,
    ) -> Self {
        Self { base, file: Some(file), bytes: Bytes::new(), start: at, at, end }
    }

    /// Where the next frame stands.
    pub(crate) fn at(&self) -> LogOffset {
        self.at
    }

    /// The next entry; `None` behind the last one, when only filling follows.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Stop> {
        if self.at + FRAME_HEADER > self.end {
            return Ok(None);
        }
        let bytes = self.ahead(FRAME_HEADER)?;
        let raw: [u8; HEADER_LEN] = bytes[..].try_into().expect("as long as asked for");
        let header = FrameHeader::decode(&raw).map_err(Stop::Damage)?;
        if header.offset != self.at {
            let mismatch = Mismatch::new(Check::Offset, self.at.0, header.offset.0);
            return Err(Stop::Damage(mismatch));
        }
        let room = self.end - self.at;
        if header.frame_len() > room {
            return Err(Stop::Damage(Mismatch::new(Check::Length, room, header.frame_len())));
        }
        if header.kind == FrameKind::Pad {
            return Ok(None);
        }
        let with_body = FRAME_HEADER + u64::from(header.body_len);
        let body = self.ahead(with_body)?.slice(HEADER_LEN..);
        self.at = self.at + header.frame_len();
        Ok(Some(Entry { header, chain: FrameHeader::chain_of(&raw), body }))
    }

    /// The next entry, every kind of stop being an error of the log.
    pub(crate) fn next_sound(&mut self) -> Result<Option<Entry>, Error> {
        let at = self.at;
        self.next().map_err(|stop| self.error(at, stop))
    }

    /// What a stop means where there must be no damage.
    pub(crate) fn error(&self, at: LogOffset, stop: Stop) -> Error {
        match stop {
            Stop::Io(source) => Error::io("read", &segment_name(self.base), source),
            Stop::Damage(m) => corrupt(self.base, at, m),
        }
    }

    /// The next `len` bytes from where the cursor stands.
    fn ahead(&mut self, len: u64) -> Result<Bytes, Stop> {
        let have = (self.start + self.bytes.len() as u64).0.saturating_sub(self.at.0);
        if have < len {
            self.refill(len)?;
        }
        let from = size(self.at - self.start);
        Ok(self.bytes.slice(from..from + size(len)))
    }

    fn refill(&mut self, len: u64) -> Result<(), Stop> {
        let Some(file) = &self.file else {
            return Err(Stop::Io(io::ErrorKind::UnexpectedEof.into()));
        };
        let len = len.max(CHUNK).min(self.end - self.at);
        let mut buf = vec![0; size(len)];
        file.read_at(&mut buf, self.at - self.base).map_err(Stop::Io)?;
        self.bytes = buf.into();
        self.start = self.at;
        Ok(())
    }
}

impl Entry {
    pub(crate) fn check(&self) -> Result<(), Mismatch> {
        self.header.check_body(&self.body)
    }
}

pub(crate) fn corrupt(segment: LogOffset, offset: LogOffset, m: Mismatch) -> Error {
    Error::Corrupt { segment, offset, check: m.check, expected: m.expected, found: m.found }
}

/// Lengths inside one segment.
pub(crate) fn size(len: u64) -> usize {
    usize::try_from(len).expect("segments fit the address space")
}
