//! Whether there is space on this node's disk.
//!
//! Two bounds, both parts of the whole disk. Above the lower one old messages go earlier than they
//! would; above the upper one sends are refused, so that neither the log nor the key-value store
//! ever meets a full disk. Neither counts while plenty of space is free.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

/// Between two looks. A disk takes longer to fill from the upper bound on.
const EVERY: Duration = Duration::from_secs(1);

/// Bounds on what is used of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSettings {
    /// Percent used above which old messages go.
    pub high: u64,
    /// Percent used from which on sends are refused; 100 leaves it to the disk.
    pub full: u64,
    /// Free bytes that are plenty.
    pub reserve: u64,
}

/// Space on a file system, in bytes. What the file system keeps for others is no part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// What is in use, and what this process can still use.
    pub total: u64,
    /// What this process can still use.
    pub free: u64,
}

impl Space {
    fn used(self) -> u64 {
        self.total.saturating_sub(self.free)
    }

    /// Percent, rounded down.
    pub fn used_percent(self) -> u64 {
        self.used().saturating_mul(100).checked_div(self.total).unwrap_or(0)
    }
}

/// What was last seen of the disk.
#[derive(Debug)]
pub struct Disk {
    settings: DiskSettings,
    seen: Mutex<Space>,
}

impl Disk {
    /// Not looked at yet.
    pub fn new(settings: DiskSettings) -> Self {
        Disk { settings, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Space> {
        self.seen.lock().expect("no holder panics")
    }

    /// The disk looks like this now.
    pub fn observe(&self, space: Space) {
        let before = std::mem::replace(&mut *self.seen(), space);
        match (self.is_full_at(before), self.is_full_at(space)) {
            (false, true) => {
                let used = space.used_percent();
                tracing::warn!(used, free = space.free, "the disk is full: sends are refused");
            }
            (true, false) => tracing::info!(free = space.free, "there is space on the disk again"),
            (true, true) | (false, false) => {}
        }
    }

    /// As last seen; all zero before the first look.
    pub fn space(&self) -> Space {
        *self.seen()
    }

    /// Sends are refused.
    pub fn is_full(&self) -> bool {
        self.is_full_at(self.space())
    }

    fn is_full_at(&self, space: Space) -> bool {
        let bound = self.settings.full;
        self.counts(space) && bound < 100 && space.used_percent() >= bound
    }

    /// Bytes that are to be freed.
    pub fn excess(&self) -> u64 {
        let space = self.space();
        match self.counts(space) {
            true => space.used().saturating_sub(space.total / 100 * self.settings.high),
            false => 0,
        }
    }

    fn counts(&self, space: Space) -> bool {
        space.free < self.settings.reserve && space.total > 0
    }

    /// Looks at the file systems of `paths` until dropped; the fullest counts.
    pub async fn watch(&self, paths: Vec<PathBuf>) {
        loop {
            let spaces = paths.iter().filter_map(|path| space_at(path));
            if let Some(fullest) = spaces.max_by_key(|space| space.used_percent()) {
                self.observe(fullest);
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// `None` for a path that is not there yet.
fn space_at(path: &Path) -> Option<Space> {
    match rustix::fs::statvfs(path) {
        Ok(found) => {
            let used = found.f_blocks.saturating_sub(found.f_bfree);
            let (total, free) = (used + found.f_bavail, found.f_bavail);
            Some(Space { total: total * found.f_frsize, free: free * found.f_frsize })
        }
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "space on the disk not known");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn seen(total: u64, free: u64) -> Disk {
        let disk = Disk::new(DiskSettings { high: 85, full: 90, reserve: 16 * GIB });
        disk.observe(Space { total, free });
        disk
    }

    #[test]
    fn a_disk_is_full_above_its_bound_and_high_before() {
        let disk = seen(100 * GIB, 20 * GIB);
        assert_eq!((disk.is_full(), disk.excess()), (false, 0));
        let disk = seen(100 * GIB, 12 * GIB);
        assert_eq!((disk.is_full(), disk.excess() / GIB), (false, 3));
        let disk = seen(100 * GIB, 10 * GIB);
        assert_eq!((disk.is_full(), disk.excess() / GIB), (true, 5));
        disk.observe(Space { total: 200 * GIB, free: 110 * GIB });
        assert_eq!((disk.is_full(), disk.excess()), (false, 0));
    }

    #[test]
    fn plenty_is_enough_however_large_the_disk() {
        let disk = seen(1000 * GIB, 16 * GIB);
        assert_eq!((disk.is_full(), disk.excess()), (false, 0));
        assert!(seen(1000 * GIB, 15 * GIB).is_full());
        let unknown = seen(0, 0);
        assert_eq!((unknown.is_full(), unknown.excess()), (false, 0));
    }

    #[tokio::test]
    async fn a_real_disk_is_seen() {
        let disk = Disk::new(DiskSettings { high: 100, full: 100, reserve: 1 });
        let paths = vec![PathBuf::from("/no/such/path"), std::env::temp_dir()];
        let _ = tokio::time::timeout(Duration::from_millis(20), disk.watch(paths)).await;
        assert!(disk.space().total > 0);
    }
}
