//! Snapshots: a copy of the state as of some entry, which with the log up to that entry is all that
//! a replica needs that is behind everything the log still reaches back to.
//!
//! ```text
//!   checkpoint ─▶ building/ ─▶ <index>-<term>/ ══ send ══▶ incoming/ ─▶ assembled/ ─▶ installing/
//!                                   ▲                                                    │
//!                                   └──────────── log and state replaced ────────────────┘
//! ```
//!
//! A directory gets the name in which it counts only when everything in it is durable, by a rename.
//! `installing/` is at the same time the note that an installation is under way: a start that finds
//! it finishes it before anything else.

pub(crate) mod files;
pub(crate) mod install;
pub(crate) mod manifest;
pub(crate) mod pace;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod stage;
pub(crate) mod store;
pub(crate) mod under_way;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use commitlog::position::LogId;
use proto::framed::Unreadable;

use crate::CheckpointError;

use self::store::Stored;

/// Why a snapshot cannot be made, sent, received or installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("malformed snapshot: {0}")]
    Malformed(&'static str),
    #[error(
        "snapshot has format version {found}, this release reads up to {supported}: start the \
         release that wrote it, or a newer one; nothing was changed"
    )]
    NewerVersion { found: u32, supported: u32 },
    #[error("{file} arrived with checksum {found:08x}, not {expected:08x}")]
    Checksum { file: String, expected: u32, found: u32 },
    #[error("segments do not follow each other at {base}")]
    Gap { base: u64 },
    #[error("the copy of the state is as of {found:?}, expected {expected}")]
    OtherState { expected: LogId, found: Option<LogId> },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Log(#[from] commitlog::Error),
    #[error(transparent)]
    Install(#[from] crate::ApplyError),
    #[error("the node is stopping")]
    Stopped,
    #[error("the log's thread has stopped")]
    LogStopped,
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Error {
        match unreadable {
            Unreadable::Damaged(what) => Error::Malformed(what),
            Unreadable::Newer { found, supported } => Error::NewerVersion { found, supported },
        }
    }
}

impl Error {
    /// The disk is full: nothing is wrong with what is there.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Error::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// What openraft hands around as a snapshot's data.
#[derive(Debug, Clone)]
pub(crate) enum Snapshot {
    /// One of this node's own.
    Own(Arc<Stored>),
    /// One that has arrived whole, to be installed from this directory.
    Arrived(PathBuf),
}
