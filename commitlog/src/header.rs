//! The segment header: the first 4 KiB of every segment file.
//!
//! It holds nothing that differs between replicas.

use crate::config::GroupId;
use crate::error::{Check, Error};
use crate::frame::{u32_at, u64_at};
use crate::position::{LogId, LogIndex, LogOffset, Term};

/// Bytes of a segment header. They count in log offsets.
pub const SEGMENT_HEADER: u64 = 4096;
pub(crate) const SEGMENT_HEADER_LEN: usize = 4096;
/// Version of segments and frames.
pub const FORMAT_VERSION: u32 = 1;

/// `RMQS` in file order.
const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"RMQS");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) group_id: GroupId,
    pub(crate) base: LogOffset,
    pub(crate) segment_size: u64,
    /// Index of the first entry in this segment.
    pub(crate) first_index: LogIndex,
    /// The entry before the first one. `None` at the beginning of the log.
    pub(crate) prev: Option<LogId>,
    /// Checksum of the header of the entry before; 0 if there is none.
    pub(crate) chain: u32,
}

/// Name of the segment with this base: 20 digits, so that names sort like offsets.
#[must_use]
pub fn segment_name(base: LogOffset) -> String {
    format!("{:020}{SEGMENT}", base.0)
}

/// Name under which a segment of another replica's log waits to become one of this log.
#[must_use]
pub fn incoming_name(base: LogOffset) -> String {
    format!("{:020}{INCOMING}", base.0)
}

/// Name under which a copy of a segment waits to take the place of a damaged one.
#[must_use]
pub(crate) fn mending_name(base: LogOffset) -> String {
    format!("{:020}{MENDING}", base.0)
}

const SEGMENT: &str = ".seg";
const MENDING: &str = ".mend";
const INCOMING: &str = ".in";

/// The base that a file's name gives; `None` if it is not a segment's name.
pub(crate) fn segment_base(name: &str) -> Option<LogOffset> {
    base_of(name, SEGMENT)
}

/// The base that the name of an incoming segment gives; `None` if it is not one.
pub(crate) fn incoming_base(name: &str) -> Option<LogOffset> {
    base_of(name, INCOMING)
}

/// Whether the name is that of a copy that never took its place.
pub(crate) fn is_mending(name: &str) -> bool {
    base_of(name, MENDING).is_some()
}

fn base_of(name: &str, suffix: &str) -> Option<LogOffset> {
    let digits = name.strip_suffix(suffix)?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(LogOffset)
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; SEGMENT_HEADER_LEN];
        out[0..4].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[16..32].copy_from_slice(&self.group_id.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.base.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.segment_size.to_le_bytes());
        out[48..56].copy_from_slice(&self.first_index.0.to_le_bytes());
        if let Some(prev) = self.prev {
            out[56..64].copy_from_slice(&prev.term.0.to_le_bytes());
            out[64..72].copy_from_slice(&prev.index.0.to_le_bytes());
            out[76] = 1;
        }
        out[72..76].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes the header of the segment that should start at `base`.
    ///
    /// # Errors
    /// `NewerVersion` or `Corrupt`. A file with a segment's name always has a valid header,
    /// because it gets the name only afterwards.
    pub(crate) fn decode(bytes: &[u8], base: LogOffset) -> Result<Self, Error> {
        let corrupt = |check, expected: u64, found: u64| Error::Corrupt {
            segment: base,
            offset: base,
            check,
            expected,
            found,
        };
        if bytes.len() < SEGMENT_HEADER_LEN {
            return Err(corrupt(Check::Length, SEGMENT_HEADER, bytes.len() as u64));
        }
        let magic = u32_at(bytes, 0);
        if magic != SEGMENT_MAGIC {
            return Err(corrupt(Check::Magic, SEGMENT_MAGIC.into(), magic.into()));
        }
        let (announced, actual) =
            (u32_at(bytes, 4), crc32fast::hash(&bytes[8..SEGMENT_HEADER_LEN]));
        if announced != actual {
            return Err(corrupt(Check::HeaderCrc, announced.into(), actual.into()));
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            let file = segment_name(base);
            return Err(Error::NewerVersion { file, found: version, supported: FORMAT_VERSION });
        }
        let header = Self::fields(bytes);
        if header.base != base {
            return Err(corrupt(Check::Base, base.0, header.base.0));
        }
        Ok(header)
    }

    fn fields(bytes: &[u8]) -> Self {
        let prev = LogId { term: Term(u64_at(bytes, 56)), index: LogIndex(u64_at(bytes, 64)) };
        Self {
            group_id: GroupId(u128::from_le_bytes(
                bytes[16..32].try_into().expect("slice of sixteen bytes"),
            )),
            base: LogOffset(u64_at(bytes, 32)),
            segment_size: u64_at(bytes, 40),
            first_index: LogIndex(u64_at(bytes, 48)),
            prev: (bytes[76] == 1).then_some(prev),
            chain: u32_at(bytes, 72),
        }
    }
}
