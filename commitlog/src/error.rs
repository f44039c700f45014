//! What can go wrong, with what a reader needs to know about it.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::config::GroupId;
use crate::position::{LogId, LogIndex, LogOffset};

/// Cloned freely: one failed write answers every caller that was waiting for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused an operation. On the write path this is final: the log is poisoned.
    #[error("{action} {file}")]
    Io {
        action: &'static str,
        file: String,
        #[source]
        source: Arc<io::Error>,
    },
    /// Bytes that were once written and synced are not what they were. Never mistaken for the end
    /// of the log. The replica must be repaired from a peer.
    #[error(
        "log is damaged: segment {segment}, offset {offset}: {check} is {found:#x}, expected {expected:#x}"
    )]
    Corrupt { segment: LogOffset, offset: LogOffset, check: Check, expected: u64, found: u64 },
    /// A file that must be there is not.
    #[error("{file} is missing")]
    Missing { file: String },
    /// Neither copy of the hard state can be read, so the vote is unknown.
    #[error(
        "hard state is damaged in both copies, so that this node's vote is unknown; remove the node \
         from the group, and let it join under a new id with an empty data directory"
    )]
    HardStateDamaged,
    /// Entries before `first` are gone.
    #[error("entry is purged, the log starts at {first}")]
    Purged { first: LogIndex },
    /// The position is outside of what the log holds.
    #[error("offset {offset} (+{len}) is outside of the log, which holds {start}..{end}")]
    OutOfRange { offset: LogOffset, len: u64, start: LogOffset, end: LogOffset },
    /// No space for the next segment. Nothing was written; reads go on, and appends are accepted
    /// again once there is space.
    #[error("disk is full: no space for the next segment")]
    DiskFull,
    /// An earlier write or sync failed, so what is on disk is unknown. Only a restart helps.
    #[error("log stopped after a failed write")]
    Poisoned {
        #[source]
        cause: Arc<Error>,
    },
    /// The log was closed.
    #[error("log is closed")]
    Closed,
    /// Another process has this directory open.
    #[error("log directory is in use by another process")]
    Locked,
    /// The directory belongs to another broker group.
    #[error("log belongs to group {found}, not to {expected}")]
    ForeignGroup { expected: GroupId, found: GroupId },
    /// The directory belongs to another node.
    #[error("log belongs to node {found}, not to node {expected}")]
    ForeignNode { expected: u64, found: u64 },
    /// Written by a newer release.
    #[error(
        "{file} has format version {found}, this release reads up to {supported}: start the release \
         that wrote it, or a newer one; nothing was changed"
    )]
    NewerVersion { file: String, found: u32, supported: u32 },
    /// The segment size of a group never changes.
    #[error("log has segments of {found} bytes, configured are {expected}")]
    SegmentSize { expected: u64, found: u64 },
    /// Entries were appended before the group had a name.
    #[error("the group has no id yet")]
    NoGroup,
    /// Entries must follow each other without a gap.
    #[error("entry {found} does not follow the log, expected {expected}")]
    NotContiguous { expected: LogIndex, found: LogIndex },
    /// Terms never fall along the log.
    #[error("entry {found} has a lower term than {last}, which it follows")]
    TermFell { last: LogId, found: LogId },
    /// The body does not match the checksum that came with it.
    #[error("body of entry {log_id} has checksum {found:#x}, announced {expected:#x}")]
    BodyDamaged { log_id: LogId, expected: u32, found: u32 },
    /// The body is larger than `Config::max_body`.
    #[error("body of {len} bytes is too large, limit {limit}")]
    TooLarge { len: u64, limit: u64 },
    /// Committed entries are never cut.
    #[error("cannot cut the log after {after:?}: {committed} is committed")]
    TruncateCommitted { after: Option<LogId>, committed: LogIndex },
    /// The entry to cut after is not in the log.
    #[error("entry {wanted} is not in the log, found {found:?} there")]
    UnknownEntry { wanted: LogId, found: Option<LogId> },
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(#[from] crate::config::Invalid),
}

/// What was compared when damage was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Magic,
    HeaderCrc,
    BodyCrc,
    /// Checksum of the frame before.
    Chain,
    Offset,
    Index,
    Term,
    Kind,
    /// Length of a body or of a file.
    Length,
    /// Where the log ends, against how far it is known to have been synced.
    SyncedMark,
    /// Base offset of the segment that must follow.
    Base,
    SegmentSize,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "magic",
            Self::HeaderCrc => "header checksum",
            Self::BodyCrc => "body checksum",
            Self::Chain => "checksum of the frame before",
            Self::Offset => "offset",
            Self::Index => "index",
            Self::Term => "term",
            Self::Kind => "kind",
            Self::Length => "length",
            Self::SyncedMark => "end of the log",
            Self::Base => "segment base",
            Self::SegmentSize => "segment size",
        })
    }
}

impl Error {
    pub(crate) fn io(action: &'static str, file: &str, source: io::Error) -> Self {
        Self::Io { action, file: file.to_owned(), source: Arc::new(source) }
    }

    /// Whether the log goes on after this error. All others on the write path are final.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull)
    }

    pub(crate) fn poisoned_by(cause: &Self) -> Self {
        match cause {
            Self::Poisoned { .. } => cause.clone(),
            cause => Self::Poisoned { cause: Arc::new(cause.clone()) },
        }
    }
}
