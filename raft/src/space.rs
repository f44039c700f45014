//! Space on the disk for what may be appended.
//!
//! openraft takes a failed append for the end of the node, and rightly so, unless the disk is only
//! full. So whoever hands entries to consensus, a leader's batcher or a follower's append stream,
//! claims their space first, and turns them away when there is none: nothing was proposed, nothing
//! tears, reads go on, and the next claim finds space that has come back.

use std::sync::{Arc, Mutex};

use commitlog::{CommitLog, FRAME_HEADER};

/// Kept for what cannot be turned away: blanks of new leaders and changes of membership.
const KEPT: u64 = 64 << 10;

/// The disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug)]
pub(crate) struct Space {
    log: Arc<CommitLog>,
    claimed: Mutex<Claimed>,
}

#[derive(Debug, Default)]
struct Claimed {
    bytes: u64,
    frames: u64,
    /// The last claim was turned away, and it was said so.
    told: bool,
}

/// Space for entries that may be appended as long as this lives.
#[derive(Debug)]
pub(crate) struct Claim {
    space: Arc<Space>,
    bytes: u64,
    frames: u64,
}

impl Space {
    pub(crate) fn new(log: Arc<CommitLog>) -> Space {
        Space { log, claimed: Mutex::default() }
    }

    /// Claims space for `frames` entries with bodies of `bytes` bytes in all.
    pub(crate) fn claim(self: &Arc<Self>, bytes: usize, frames: usize) -> Result<Claim, Full> {
        let frames = frames as u64;
        let bytes = bytes as u64 + frames * 2 * FRAME_HEADER;
        let mut claimed = self.claimed.lock().expect("no holder panics");
        let (all, count) = (claimed.bytes + bytes + KEPT, claimed.frames + frames + 1);
        // Anything else than a full disk ended the log: the append says so, and the node ends.
        if let Err(error @ commitlog::Error::DiskFull) = self.log.reserve(all, count) {
            if !std::mem::replace(&mut claimed.told, true) {
                tracing::warn!(%error, "no space for further entries: they are refused");
            }
            return Err(Full);
        }
        if std::mem::take(&mut claimed.told) {
            tracing::info!("there is space for entries again");
        }
        claimed.bytes += bytes;
        claimed.frames += frames;
        Ok(Claim { space: self.clone(), bytes, frames })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.space.claimed.lock().expect("no holder panics");
        claimed.bytes -= self.bytes;
        claimed.frames -= self.frames;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commitlog::{Config, GroupId, Identity, SimDisk};

    /// A log whose disk has space for this many segments of 1 MiB.
    fn log(disk: &SimDisk) -> Arc<Space> {
        let identity = Identity { node_id: 1, group_id: Some(GroupId(1)), boot_id: None };
        let config = Config { max_body: 256 << 10, ..Config::with_segment_size(1 << 20) };
        let (log, _) = CommitLog::open(config, disk.clone(), identity).unwrap();
        Arc::new(Space::new(Arc::new(log)))
    }

    #[test]
    fn claims_end_where_the_disk_ends_and_begin_again_when_it_grows() {
        let disk = SimDisk::new();
        let space = log(&disk);
        disk.set_capacity(Some(3 << 20));
        let mut claims = Vec::new();
        while let Ok(claim) = space.claim(100 << 10, 1) {
            claims.push(claim);
            assert!(claims.len() < 100, "the disk has three segments");
        }
        assert!(claims.len() >= 10, "{}", claims.len());
        drop(claims.pop());
        assert!(space.claim(100 << 10, 1).is_ok(), "what is given back can be claimed");
        let claim = space.claim(100 << 10, 1).unwrap();
        assert_eq!(space.claim(100 << 10, 1).err(), Some(Full));
        disk.set_capacity(None);
        assert!(space.claim(100 << 10, 1).is_ok());
        drop(claim);
    }
}
