//! A copy of a replica for safe-keeping, read piece by piece while the replica runs: a snapshot of
//! the state, and the log up to it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use commitlog::position::{LogId, LogIndex};
use commitlog::{Extent, GroupId};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant as Tick, sleep_until};

use crate::ReadError;
use crate::snapshot::pace::Pace;
use crate::snapshot::send::Goods;
use crate::snapshot::{self};

/// Why there is no copy. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("this node does not belong to a group yet")]
    NoGroup,
    #[error("another backup is being taken from this node")]
    Busy,
    /// It is behind, and did not get there in time.
    #[error("this node has applied entries up to {applied:?}, and is asked for {wanted}")]
    Behind { wanted: LogIndex, applied: Option<LogIndex> },
    #[error("make a snapshot")]
    Snapshot(#[from] snapshot::Error),
    #[error("check the log; take the backup from another replica")]
    Log(#[source] commitlog::Error),
    #[error("read the log")]
    Read(#[from] ReadError),
    #[error("there is no file {0}")]
    NoSuchFile(usize),
}

/// What a copy consists of. Files are numbered through: those of the state, then the segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    pub group: GroupId,
    /// The state is as of this entry, and the log ends with it.
    pub last: LogId,
    /// As a state machine keeps it.
    pub membership: Bytes,
    /// Name, length and CRC-32 of each file of the state.
    pub state: Vec<(String, u64, u32)>,
    pub segment_size: u64,
    /// The log, the oldest segment first.
    pub segments: Vec<Extent>,
}

/// A copy that can be read. What it consists of stays as it is until this is dropped.
pub struct Backup {
    contents: Contents,
    goods: Arc<Goods>,
    pace: Mutex<Pace>,
    _one: OwnedMutexGuard<()>,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").field("last", &self.contents.last).finish_non_exhaustive()
    }
}

impl Backup {
    pub(crate) fn new(
        goods: Goods,
        segment_size: u64,
        rate: u64,
        one: OwnedMutexGuard<()>,
    ) -> Backup {
        let manifest = goods.manifest();
        let contents = Contents {
            group: manifest.group,
            last: manifest.last,
            membership: manifest.membership.clone(),
            state: manifest.files.iter().map(|f| (f.name.clone(), f.len, f.crc)).collect(),
            segment_size,
            segments: goods.segments().to_vec(),
        };
        let pace = Mutex::new(Pace::new(rate, Tick::now()));
        Backup { contents, goods: Arc::new(goods), pace, _one: one }
    }

    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Bytes of a file that count.
    pub fn len(&self, file: usize) -> Option<u64> {
        let state = self.contents.state.len();
        match file.checked_sub(state) {
            None => self.contents.state.get(file).map(|(_, len, _)| *len),
            Some(segment) => self.contents.segments.get(segment).map(|extent| extent.len),
        }
    }

    /// `len` bytes of a file from `at` on, once their turn has come at the backup's rate.
    ///
    /// # Errors
    /// The file cannot be read, or is not that long.
    pub async fn read(&self, file: usize, at: u64, len: u64) -> Result<Bytes, BackupError> {
        let number = u32::try_from(file).map_err(|_large| BackupError::NoSuchFile(file))?;
        let data = self.goods.read(number, at, len).await?;
        let turn = self.pace.lock().await.book(data.len(), Tick::now());
        sleep_until(turn).await;
        Ok(data)
    }

    /// The CRC-32 of a whole file. Of a segment every frame and body is checked on the way.
    ///
    /// # Errors
    /// `Log` for a segment that is damaged here.
    pub async fn checksum(&self, file: usize) -> Result<u32, BackupError> {
        let state = self.contents.state.len();
        let Some(segment) = file.checked_sub(state) else { return Ok(self.contents.state[file].2) };
        let extent = self.contents.segments.get(segment).copied();
        let extent = extent.ok_or(BackupError::NoSuchFile(file))?;
        let goods = self.goods.clone();
        let checked = snapshot::send::blocking(move || Ok(goods.checksum(extent))).await?;
        checked.map_err(BackupError::Log)
    }
}

/// What a backup is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// It has to reach at least up to here.
    pub at_least: Option<LogIndex>,
    /// Bytes per second; `None`: as snapshots are sent.
    pub rate: Option<u64>,
    /// For reaching `at_least`.
    pub deadline: Instant,
}
