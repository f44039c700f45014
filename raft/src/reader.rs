//! Reading commands back by their position.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use commitlog::position::LogOffset;

use crate::repair::{Mender, damaged};

/// Reads what was applied, on any replica. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    log: Arc<OnceLock<commitlog::Reader>>,
    mender: Arc<OnceLock<Arc<Mender>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the group has not formed yet, so that there is no log")]
    NotFormed,
    #[error(transparent)]
    Log(#[from] commitlog::Error),
}

impl Reader {
    pub(crate) fn new(
        log: Arc<OnceLock<commitlog::Reader>>,
        mender: Arc<OnceLock<Arc<Mender>>>,
    ) -> Reader {
        Reader { log, mender }
    }

    /// `len` bytes from `position` on, within one committed entry. Not copied where the log is
    /// mapped or still in memory. Damage is repaired first, for which this may wait some seconds.
    pub fn bytes(&self, position: LogOffset, len: u32) -> Result<Bytes, ReadError> {
        let log = self.log.get().ok_or(ReadError::NotFormed)?;
        let error = match log.bytes(position, len) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        match (damaged(&error), self.mender.get()) {
            (Some(base), Some(mender)) if mender.mended(base) => Ok(log.bytes(position, len)?),
            _ => Err(error.into()),
        }
    }
}
