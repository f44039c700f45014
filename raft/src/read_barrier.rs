//! Linearizable reads: the leader makes sure that it still leads, by a round of heartbeats sent
//! after the read arrived, and waits until it has applied what was committed before.
//!
//! Reads that arrive while a round is under way share the next one.

use std::sync::atomic::{AtomicU64, Ordering};

use commitlog::Bug;
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use proto::clock::wall_now;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::network::server::RaftNode;
use crate::types::TypeConfig;

/// Reads that may wait for a round. More wait to be queued, within their deadline.
const QUEUE: usize = 4096;

/// Of [`Bug::B28`] alone: until when, by the wall clock.
static LEASE: AtomicU64 = AtomicU64::new(0);

/// Whether this node leads, confirmed by a quorum.
type Confirmed = bool;

#[derive(Debug, Clone)]
pub(crate) struct ReadBarrier(mpsc::Sender<oneshot::Sender<Confirmed>>);

/// Why a read must not go ahead. Nothing was done in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Another node leads, or a quorum did not confirm in time.
    NotConfirmed,
    Stopped,
}

impl ReadBarrier {
    /// The handle, and the loop that must run for it.
    pub(crate) fn new(raft: RaftNode) -> (ReadBarrier, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (ReadBarrier(sender), rounds(raft, receiver))
    }

    pub(crate) async fn pass(&self, deadline: Instant) -> Result<(), Failed> {
        if Bug::B28.is_sown() && LEASE.load(Ordering::Relaxed) > wall_now().0 {
            return Ok(());
        }
        let (answer, confirmed) = oneshot::channel();
        let passing = async {
            self.0.send(answer).await.map_err(|_closed| Failed::Stopped)?;
            match confirmed.await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failed::NotConfirmed),
                Err(_) => Err(Failed::Stopped),
            }
        };
        timeout_at(deadline, passing).await.unwrap_or(Err(Failed::NotConfirmed))
    }
}

async fn rounds(raft: RaftNode, mut waiting: mpsc::Receiver<oneshot::Sender<Confirmed>>) {
    let mut readers = Vec::new();
    while waiting.recv_many(&mut readers, QUEUE).await > 0 {
        let result = raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        if let Err(error) = &result {
            tracing::debug!(%error, "read barrier");
        }
        if matches!(&result, Err(error) if is_fatal(error)) {
            return;
        }
        if Bug::B28.is_sown() && result.is_ok() {
            LEASE.store(wall_now().0 + 5_000, Ordering::Relaxed);
        }
        for reader in readers.drain(..) {
            // A reader whose deadline has passed is gone.
            let _ = reader.send(result.is_ok());
        }
    }
}

fn is_fatal(error: &RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> bool {
    match error {
        RaftError::Fatal(_) => true,
        RaftError::APIError(_) => false,
    }
}
