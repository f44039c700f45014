//! Whether there is space on the disks of the group.
//!
//! Two bounds, both parts of a whole disk. Neither counts while plenty of space is free.
//!
//! | bound | looked at | then |
//! |---|---|---|
//! | the lower | the fullest disk of all replicas | old messages go earlier than they would: the same on all replicas, so the one that is short of space gets some |
//! | the upper | this node's own disk, and that of a majority of the voters | sends are refused, so that neither the log nor the key-value store ever meets a full disk |
//!
//! One follower whose disk is full does not stop the group: it stays behind until it has space. A
//! replica that is not heard of counts as one with space: whether it can be done without is for
//! consensus to find out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use commitlog::Bug;
use raft::NodeId;

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

/// A replica's disk, as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaDisk {
    /// Whose.
    pub node: NodeId,
    /// It counts towards a majority.
    pub voter: bool,
    /// `None` while nothing was heard of it.
    pub space: Option<Space>,
}

/// How much of a disk is used, by the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Fine,
    High,
    Full,
}

/// What was last seen of the disks.
#[derive(Debug)]
pub struct Disk {
    settings: DiskSettings,
    seen: Mutex<Space>,
    replicas: Mutex<Vec<ReplicaDisk>>,
    /// What was last logged of each replica.
    said: Mutex<BTreeMap<NodeId, Use>>,
}

impl Disk {
    /// Not looked at yet.
    pub fn new(settings: DiskSettings) -> Self {
        Disk {
            settings,
            seen: Mutex::default(),
            replicas: Mutex::default(),
            said: Mutex::default(),
        }
    }

    /// What all members told of their disks, this node included.
    pub fn observe_replicas(&self, replicas: Vec<ReplicaDisk>) {
        let mut said = self.said.lock().expect("no holder panics");
        for ReplicaDisk { node, space, .. } in &replicas {
            let Some(space) = *space else { continue };
            let (before, now) = (said.insert(*node, self.use_of(space)), self.use_of(space));
            let used = space.used_percent();
            match (before.unwrap_or(Use::Fine), now) {
                (before, now) if before == now => {}
                (_, Use::Full) => tracing::warn!(%node, used, "the disk of a replica is full"),
                (Use::Fine, Use::High) => {
                    tracing::warn!(%node, used, "the disk of a replica fills up: old messages end early");
                }
                (_, Use::High | Use::Fine) => {
                    tracing::info!(%node, used, "there is more space on the disk of a replica");
                }
            }
        }
        said.retain(|node, _| replicas.iter().any(|replica| replica.node == *node));
        drop(said);
        *self.replicas.lock().expect("no holder panics") = replicas;
    }

    fn use_of(&self, space: Space) -> Use {
        if self.is_full_at(space) {
            Use::Full
        } else if self.excess_of(space) > 0 {
            Use::High
        } else {
            Use::Fine
        }
    }

    /// Of the fullest disk of all replicas that were heard of.
    pub fn fullest_percent(&self) -> u64 {
        let replicas = self.replicas.lock().expect("no holder panics");
        let used = replicas.iter().filter_map(|replica| replica.space);
        let fullest = used.map(Space::used_percent).max().unwrap_or(0);
        fullest.max(self.space().used_percent())
    }

    /// Replicas whose disk is above the lower bound.
    pub fn short_replicas(&self) -> u64 {
        let replicas = self.replicas.lock().expect("no holder panics");
        let spaces = replicas.iter().filter_map(|replica| replica.space);
        spaces.filter(|space| self.use_of(*space) > Use::Fine).count() as u64
    }

    /// Whether a majority of the voters has space.
    fn majority_has_space(&self) -> bool {
        let replicas = self.replicas.lock().expect("no holder panics");
        let voters = replicas.iter().filter(|replica| replica.voter);
        let full = |replica: &&ReplicaDisk| replica.space.is_some_and(|s| self.is_full_at(s));
        let (all, full) = (voters.clone().count(), voters.filter(full).count());
        all == 0 || all - full > all / 2
    }

    fn seen(&self) -> MutexGuard<'_, Space> {
        self.seen.lock().expect("no holder panics")
    }

    /// The disk looks like this now.
    pub fn observe(&self, space: Space) {
        let before = std::mem::replace(&mut *self.seen(), space);
        if Bug::B23.is_sown() && self.is_full_at(before) {
            *self.seen() = before;
        }
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
        self.is_full_at(self.space()) || !self.majority_has_space()
    }

    fn is_full_at(&self, space: Space) -> bool {
        let bound = self.settings.full;
        self.counts(space) && bound < 100 && space.used_percent() >= bound
    }

    /// Bytes that are to be freed on the disk that lacks most.
    pub fn excess(&self) -> u64 {
        let replicas = self.replicas.lock().expect("no holder panics");
        let told = replicas.iter().filter_map(|replica| replica.space);
        let worst = told.map(|space| self.excess_of(space)).max().unwrap_or(0);
        worst.max(self.excess_of(self.space()))
    }

    fn excess_of(&self, space: Space) -> u64 {
        match self.counts(space) {
            true => space.used().saturating_sub(space.total / 100 * self.settings.high),
            false => 0,
        }
    }

    fn counts(&self, space: Space) -> bool {
        space.free < self.settings.reserve && space.total > 0
    }

    /// Looks at the file systems of `paths` until dropped; the fullest counts. Tells `replicas`
    /// what was seen, which answers what all members told.
    pub async fn watch(&self, paths: Vec<PathBuf>, replicas: impl Fn(Space) -> Vec<ReplicaDisk>) {
        loop {
            let spaces = paths.iter().filter_map(|path| space_at(path));
            if let Some(fullest) = spaces.max_by_key(|space| space.used_percent()) {
                self.observe(fullest);
                self.observe_replicas(replicas(fullest));
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

    fn replica(node: u64, voter: bool, free: u64) -> ReplicaDisk {
        let space = Some(Space { total: 100 * GIB, free });
        ReplicaDisk { node: NodeId(node), voter, space }
    }

    #[test]
    fn one_full_follower_begins_expiry_and_stops_nobody() {
        let disk = seen(100 * GIB, 50 * GIB);
        let fine = |node| replica(node, true, 50 * GIB);
        disk.observe_replicas(vec![fine(1), fine(2), replica(3, true, 2 * GIB)]);
        assert!(!disk.is_full());
        assert_eq!(disk.excess() / GIB, 13);
        assert_eq!((disk.fullest_percent(), disk.short_replicas()), (98, 1));
        // A learner's disk counts for expiry, and never for a majority.
        let learners = [replica(4, false, GIB), replica(5, false, GIB), replica(6, false, GIB)];
        let mut all = vec![fine(1), fine(2), fine(3)];
        all.extend(learners);
        disk.observe_replicas(all);
        assert!(!disk.is_full() && disk.excess() > 0);
        disk.observe_replicas(vec![fine(1), fine(2), fine(3)]);
        assert_eq!((disk.excess(), disk.short_replicas()), (0, 0));
    }

    #[test]
    fn a_full_majority_refuses_sends_until_one_has_space() {
        let disk = seen(100 * GIB, 50 * GIB);
        let (fine, full) = (replica(1, true, 50 * GIB), |node| replica(node, true, 2 * GIB));
        disk.observe_replicas(vec![fine, full(2), full(3)]);
        assert!(disk.is_full());
        // Who is not heard of may have space.
        let silent = ReplicaDisk { space: None, ..full(3) };
        disk.observe_replicas(vec![fine, full(2), silent]);
        assert!(!disk.is_full());
    }

    #[tokio::test]
    async fn a_real_disk_is_seen() {
        let disk = Disk::new(DiskSettings { high: 100, full: 100, reserve: 1 });
        let paths = vec![PathBuf::from("/no/such/path"), std::env::temp_dir()];
        let _ = tokio::time::timeout(Duration::from_millis(20), disk.watch(paths, |_| Vec::new()))
            .await;
        assert!(disk.space().total > 0);
    }
}
