//! What is appended and what is read.

use bytes::Bytes;

use crate::position::{LogId, LogOffset};

/// What a body is, for the layer above. Opaque to the log, except that membership entries are
/// synced even when `Flush::Async` is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Blank,
    Batch,
    Membership,
}

/// One entry, to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub log_id: LogId,
    pub kind: Kind,
    /// The leader's time for this entry in ms. Opaque to the log.
    pub stamp: u64,
    pub body: Bytes,
    /// CRC-32 (IEEE) of `body`. Computed once, by the leader; every replica checks it.
    pub body_crc: u32,
}

impl Record {
    /// A record with its checksum computed.
    #[must_use]
    pub fn new(log_id: LogId, kind: Kind, stamp: u64, body: Bytes) -> Self {
        let body_crc = crc32fast::hash(&body);
        Self { log_id, kind, stamp, body, body_crc }
    }
}

/// One entry, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub record: Record,
    /// Where the first byte of the body is. A part of the body is `position + its place in it`.
    pub position: LogOffset,
}
