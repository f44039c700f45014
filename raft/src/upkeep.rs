//! What a replica did to stay whole, as numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::snapshot::under_way::Transfers;

/// Sums since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Snapshots of the own state that were made, and the ms that the last one took.
    pub snapshots_made: u64,
    pub snapshot_made_ms: u64,
    /// Snapshots that other replicas got from here, and what went over the wire for them. What they
    /// had already was not sent.
    pub snapshots_sent: u64,
    pub snapshot_sent_bytes: u64,
    pub snapshot_spared_bytes: u64,
    /// Snapshots of other replicas that were installed here, and the ms that the last one took.
    pub snapshots_installed: u64,
    pub snapshot_installed_ms: u64,
    /// Bytes that were compared with their checksums without anybody having asked for them, and how
    /// often everything was gone through.
    pub scrubbed_bytes: u64,
    pub scrub_rounds: u64,
    /// Places that were not what had been written, in segments, snapshots and other files.
    pub damage_found: u64,
    /// Segments, states, snapshots and files that are whole again.
    pub damage_repaired: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Snapshots that are being sent now.
    pub(crate) transfers: Transfers,
    snapshots_made: AtomicU64,
    snapshot_made_ms: AtomicU64,
    snapshots_sent: AtomicU64,
    snapshot_sent_bytes: AtomicU64,
    snapshot_spared_bytes: AtomicU64,
    snapshots_installed: AtomicU64,
    snapshot_installed_ms: AtomicU64,
    scrubbed_bytes: AtomicU64,
    scrub_rounds: AtomicU64,
    damage_found: AtomicU64,
    damage_repaired: AtomicU64,
}

fn ms(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

impl Counters {
    pub(crate) fn read(&self) -> Upkeep {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Upkeep {
            snapshots_made: of(&self.snapshots_made),
            snapshot_made_ms: of(&self.snapshot_made_ms),
            snapshots_sent: of(&self.snapshots_sent),
            snapshot_sent_bytes: of(&self.snapshot_sent_bytes),
            snapshot_spared_bytes: of(&self.snapshot_spared_bytes),
            snapshots_installed: of(&self.snapshots_installed),
            snapshot_installed_ms: of(&self.snapshot_installed_ms),
            scrubbed_bytes: of(&self.scrubbed_bytes),
            scrub_rounds: of(&self.scrub_rounds),
            damage_found: of(&self.damage_found),
            damage_repaired: of(&self.damage_repaired),
        }
    }

    pub(crate) fn snapshot_made(&self, took: Duration) {
        self.snapshots_made.fetch_add(1, Ordering::Relaxed);
        self.snapshot_made_ms.store(ms(took), Ordering::Relaxed);
    }

    /// A snapshot is about to be sent, of which the receiver has so many bytes.
    pub(crate) fn snapshot_spared(&self, bytes: u64) {
        self.snapshot_spared_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn snapshot_bytes(&self, bytes: u64) {
        self.snapshot_sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn snapshot_sent(&self) {
        self.snapshots_sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot_installed(&self, took: Duration) {
        self.snapshots_installed.fetch_add(1, Ordering::Relaxed);
        self.snapshot_installed_ms.store(ms(took), Ordering::Relaxed);
    }

    pub(crate) fn scrubbed(&self, bytes: u64) {
        self.scrubbed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn scrubbed_all(&self) {
        self.scrub_rounds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn damage_found(&self) {
        self.damage_found.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn damage_repaired(&self) {
        self.damage_repaired.fetch_add(1, Ordering::Relaxed);
    }
}
