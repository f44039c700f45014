//! A node that may have lost entries which it had acknowledged.
//!
//! With asynchronous flush a power cut can take the end of the log. A majority made up of such a
//! node and of one that lags could then elect a leader without a committed entry. So after an
//! unclean stop in another run of the operating system the node neither votes nor stands until a
//! leader has brought it up to what was committed. If no leader turns up in time, the group would
//! be stuck; then it counts itself in again, and says that entries may be lost. The identity file
//! keeps the suspicion over further restarts.
//!
//! The same goes for a node whose log had to be cut at damage, but for the last resort: the entries
//! are on the disks of the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::network::server::RaftNode;

/// Why a node may have lost entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// It had acknowledged what was not synced yet, and the operating system stopped.
    Unsynced,
    /// The disk did not keep what was synced. Everybody else has what they had, so there is no
    /// reason ever to go on without being brought up to date.
    Damaged,
}

#[derive(Debug, Default)]
pub(crate) struct Suspicion(AtomicBool);

impl Suspicion {
    pub(crate) fn new(suspect: bool) -> Suspicion {
        Suspicion(AtomicBool::new(suspect))
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(crate) fn may_vote(&self) -> Result<(), Status> {
        if self.is_suspect() {
            return Err(Status::failed_precondition(
                "this node may have lost entries and does not vote until it has caught up",
            ));
        }
        Ok(())
    }

    /// The node takes part again.
    pub(crate) fn clear(&self, raft: &RaftNode) {
        self.0.store(false, Ordering::Release);
        raft.runtime_config().elect(true);
    }
}

/// Waits until the node has caught up with a leader; one that was not synced, for `patience` at the
/// most.
pub(crate) async fn rehabilitate(raft: &RaftNode, suspect: Suspect, patience: Duration) {
    let started = Instant::now();
    let recovered = match suspect {
        Suspect::Unsynced => {
            tracing::warn!(
                ?patience,
                "restored from a backup, or an unclean stop and a new run of the operating system \
                 with asynchronous flush: this node may lack entries that it had acknowledged, and \
                 does not vote until a leader has brought it up to date"
            );
            timeout(patience, raft.wait_for_recovery(None)).await
        }
        Suspect::Damaged => {
            tracing::warn!(
                "the end of the log was damaged: not voting until a leader has brought this node \
                 up to date"
            );
            Ok(raft.wait_for_recovery(None).await)
        }
    };
    match recovered {
        Ok(Ok(_)) => tracing::info!(after = ?started.elapsed(), "caught up, voting again"),
        Ok(Err(error)) => tracing::warn!(%error, "stopped before this node had caught up"),
        Err(_) => tracing::error!(
            after = ?started.elapsed(),
            "no leader: voting again; what only this node had acknowledged may be lost"
        ),
    }
}
