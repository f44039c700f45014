//! A node that may have lost entries which it had acknowledged.
//!
//! With asynchronous flush a power cut can take the end of the log. A majority made up of such a
//! node and of one that lags could then elect a leader without a committed entry. So after an
//! unclean stop in another run of the operating system the node neither votes nor stands until a
//! leader has brought it up to what was committed. If no leader turns up in time, the group would
//! be stuck; then it counts itself in again, and says that entries may be lost. The identity file
//! keeps the suspicion over further restarts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::network::server::RaftNode;

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

/// Waits until the node has caught up with a leader, or for `patience`.
pub(crate) async fn rehabilitate(raft: &RaftNode, patience: Duration) {
    tracing::warn!(
        ?patience,
        "unclean stop and a new run of the operating system with asynchronous flush: entries may \
         be lost, not voting until a leader has brought this node up to date"
    );
    let started = Instant::now();
    match timeout(patience, raft.wait_for_recovery(None)).await {
        Ok(Ok(_)) => tracing::info!(after = ?started.elapsed(), "caught up, voting again"),
        Ok(Err(error)) => tracing::warn!(%error, "stopped before this node had caught up"),
        Err(_) => tracing::error!(
            after = ?started.elapsed(),
            "no leader: voting again, although acknowledged entries may be lost"
        ),
    }
}
