//! The frame: one entry in a segment. See `docs/protocol/log-format.md`.
//!
//! A frame's header is covered by its own checksum, which covers the body's checksum and the
//! header checksum of the frame before. So the header checksums form a chain, and stale bytes in a
//! recycled file never join it.

use crate::error::Check;
use crate::position::{LogId, LogIndex, LogOffset, Term};
use crate::record::Kind;

/// Bytes of a frame header.
pub const FRAME_HEADER: u64 = 64;
/// Frames start at multiples of this.
pub const FRAME_ALIGN: u64 = 8;
pub(crate) const HEADER_LEN: usize = 64;

/// `RMQF` in file order.
pub(crate) const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"RMQF");

const KIND_BLANK: u8 = 1;
const KIND_BATCH: u8 = 2;
const KIND_MEMBERSHIP: u8 = 3;
const KIND_PAD: u8 = 255;

/// What a frame is for: an entry, or filling up to the end of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Entry(Kind),
    Pad,
}

impl FrameKind {
    fn code(self) -> u8 {
        match self {
            Self::Entry(Kind::Blank) => KIND_BLANK,
            Self::Entry(Kind::Batch) => KIND_BATCH,
            Self::Entry(Kind::Membership) => KIND_MEMBERSHIP,
            Self::Pad => KIND_PAD,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            KIND_BLANK => Some(Self::Entry(Kind::Blank)),
            KIND_BATCH => Some(Self::Entry(Kind::Batch)),
            KIND_MEMBERSHIP => Some(Self::Entry(Kind::Membership)),
            KIND_PAD => Some(Self::Pad),
            _ => None,
        }
    }
}

/// A decoded frame header. Of a pad, `log_id` is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) body_len: u32,
    pub(crate) log_id: LogId,
    /// Of the header's first byte.
    pub(crate) offset: LogOffset,
    pub(crate) stamp: u64,
    pub(crate) body_crc: u32,
    /// `chain` of the entry before.
    pub(crate) prev: u32,
}

/// A check that failed: what was compared, what it should have been, what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) check: Check,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl Mismatch {
    pub(crate) fn new(check: Check, expected: impl Into<u64>, found: impl Into<u64>) -> Self {
        Self { check, expected: expected.into(), found: found.into() }
    }
}

/// Bytes that a frame with such a body takes in the segment.
pub(crate) fn frame_len(body_len: u32) -> u64 {
    FRAME_HEADER + u64::from(body_len).next_multiple_of(FRAME_ALIGN)
}

/// Zeros behind a body of `len` bytes.
pub(crate) fn padding(len: usize) -> usize {
    len.next_multiple_of(8) - len
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("slice of four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("slice of eight bytes"))
}

impl FrameHeader {
    /// Whole frame in bytes: header, body, alignment.
    pub(crate) fn frame_len(&self) -> u64 {
        frame_len(self.body_len)
    }

    /// The header's bytes. The header's checksum, which the next frame carries, is in them.
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        out[8] = self.kind.code();
        out[12..16].copy_from_slice(&self.body_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.log_id.term.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.log_id.index.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.offset.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.stamp.to_le_bytes());
        out[48..52].copy_from_slice(&self.body_crc.to_le_bytes());
        out[52..56].copy_from_slice(&self.prev.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The checksum that the next entry's header carries.
    pub(crate) fn chain_of(header: &[u8; HEADER_LEN]) -> u32 {
        u32_at(header, 4)
    }

    /// Decodes a header and checks what it says about itself.
    pub(crate) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, Mismatch> {
        let magic = u32_at(bytes, 0);
        if magic != FRAME_MAGIC {
            return Err(Mismatch::new(Check::Magic, FRAME_MAGIC, magic));
        }
        let (announced, actual) = (u32_at(bytes, 4), crc32fast::hash(&bytes[8..]));
        if announced != actual {
            return Err(Mismatch::new(Check::HeaderCrc, announced, actual));
        }
        let kind = FrameKind::from_code(bytes[8])
            .ok_or_else(|| Mismatch::new(Check::Kind, KIND_BATCH, bytes[8]))?;
        Ok(Self {
            kind,
            body_len: u32_at(bytes, 12),
            log_id: LogId { term: Term(u64_at(bytes, 16)), index: LogIndex(u64_at(bytes, 24)) },
            offset: LogOffset(u64_at(bytes, 32)),
            stamp: u64_at(bytes, 40),
            body_crc: u32_at(bytes, 48),
            prev: u32_at(bytes, 52),
        })
    }

    /// Checks a body against this header.
    pub(crate) fn check_body(&self, body: &[u8]) -> Result<(), Mismatch> {
        let found = crc32fast::hash(body);
        if found == self.body_crc {
            return Ok(());
        }
        Err(Mismatch::new(Check::BodyCrc, self.body_crc, found))
    }
}
