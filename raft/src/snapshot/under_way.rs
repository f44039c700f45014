//! Snapshots on their way to other replicas, for who wants to know how far they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::NodeId;
use crate::upkeep::Counters;

/// How far a snapshot on its way to a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// Bytes that were sent, and that are to be sent in all.
    pub sent: u64,
    pub total: u64,
    /// Bytes that the replica had already.
    pub spared: u64,
    /// Of what was sent, since it began.
    pub bytes_per_second: u64,
    /// Until everything is sent, if it goes on like that; `None` while nothing is.
    pub eta: Option<Duration>,
}

impl SnapshotProgress {
    fn after(elapsed: Duration, sent: u64, total: u64, spared: u64) -> SnapshotProgress {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let bytes_per_second = sent.saturating_mul(1000) / millis;
        let left = total.saturating_sub(sent).saturating_mul(1000);
        let eta = left.checked_div(bytes_per_second).map(Duration::from_millis);
        SnapshotProgress { sent, total, spared, bytes_per_second, eta }
    }
}

#[derive(Debug)]
struct Transfer {
    total: u64,
    spared: u64,
    sent: AtomicU64,
    started: Instant,
}

/// The transfers that are under way, one to each replica.
#[derive(Debug, Default)]
pub(crate) struct Transfers(Mutex<BTreeMap<NodeId, Arc<Transfer>>>);

impl Transfers {
    fn map(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Transfer>>> {
        self.0.lock().expect("no holder panics")
    }

    /// How far the one to this replica is, if there is one.
    pub(crate) fn to(&self, peer: NodeId) -> Option<SnapshotProgress> {
        let transfer = self.map().get(&peer).cloned()?;
        let Transfer { total, spared, ref sent, started } = *transfer;
        let sent = sent.load(Ordering::Relaxed);
        Some(SnapshotProgress::after(started.elapsed(), sent, total, spared))
    }
}

/// A transfer for as long as this lives.
pub(crate) struct UnderWay {
    peer: NodeId,
    transfer: Arc<Transfer>,
    upkeep: Arc<Counters>,
}

impl UnderWay {
    /// `total` bytes are sent to `peer`, which has `spared` bytes already.
    pub(crate) fn start(upkeep: &Arc<Counters>, peer: NodeId, total: u64, spared: u64) -> UnderWay {
        let sent = AtomicU64::new(0);
        let transfer = Arc::new(Transfer { total, spared, sent, started: Instant::now() });
        upkeep.transfers.map().insert(peer, transfer.clone());
        UnderWay { peer, transfer, upkeep: upkeep.clone() }
    }

    /// So many more bytes are on the network. Returns how many are in all.
    pub(crate) fn sent(&self, bytes: u64) -> u64 {
        self.transfer.sent.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.transfer.started.elapsed()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut transfers = self.upkeep.transfers.map();
        // A later one to the same replica goes on.
        if transfers.get(&self.peer).is_some_and(|at| Arc::ptr_eq(at, &self.transfer)) {
            transfers.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_the_rate_says() {
        let at = SnapshotProgress::after(Duration::from_secs(2), 100, 400, 50);
        assert_eq!((at.bytes_per_second, at.eta), (50, Some(Duration::from_secs(6))));
        let nothing = SnapshotProgress::after(Duration::ZERO, 0, 400, 0);
        assert_eq!((nothing.bytes_per_second, nothing.eta), (0, None));
    }

    #[test]
    fn a_transfer_is_seen_until_it_ends_and_a_later_one_outlives_it() {
        let (upkeep, peer) = (Arc::<Counters>::default(), NodeId(3));
        let first = UnderWay::start(&upkeep, peer, 400, 100);
        assert_eq!(first.sent(30) + first.sent(10), 70);
        let seen = upkeep.transfers.to(peer).expect("it is under way");
        assert_eq!((seen.sent, seen.total, seen.spared), (40, 400, 100));
        assert_eq!(upkeep.transfers.to(NodeId(2)), None);
        let second = UnderWay::start(&upkeep, peer, 200, 300);
        drop(first);
        assert_eq!(upkeep.transfers.to(peer).map(|at| at.total), Some(200));
        drop(second);
        assert_eq!(upkeep.transfers.to(peer), None);
    }
}
