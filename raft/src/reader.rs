//! Reading commands back by their position.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use commitlog::position::LogOffset;

/// Reads what was applied, on any replica. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    log: Arc<OnceLock<commitlog::Reader>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the group has not formed yet, so that there is no log")]
    NotFormed,
    #[error(transparent)]
    Log(#[from] commitlog::Error),
}

impl Reader {
    pub(crate) fn new(log: Arc<OnceLock<commitlog::Reader>>) -> Reader {
        Reader { log }
    }

    /// `len` bytes from `position` on, within one committed entry. Not copied where the log is
    /// mapped or still in memory.
    pub fn bytes(&self, position: LogOffset, len: u32) -> Result<Bytes, ReadError> {
        let log = self.log.get().ok_or(ReadError::NotFormed)?;
        Ok(log.bytes(position, len)?)
    }
}
