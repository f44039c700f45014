//! Makes a replica whole again whose disk did not keep what was written to it.
//!
//! ```text
//!   read, apply, replicate ─┐
//!   scrub ──────────────────┼─▶ Mender: fetch the segment ─▶ check ─▶ commitlog::mend
//!   open ───────────────────┘
//!   state lost or damaged ───▶ refill: a peer's snapshot, and the log after it
//! ```
//!
//! Segments are the same on all replicas, so that any peer can help that has the segment; who leads
//! does not matter. What arrives is checked before it takes the place of anything. While there is
//! damage that nobody can repair, what it hit is not handed out, and what needs it waits or fails.

pub(crate) mod closed;
pub(crate) mod fetch;
pub(crate) mod refill;
pub(crate) mod scrub;

use std::sync::Arc;
use std::time::Duration;

use commitlog::position::{LogIndex, LogOffset};
use commitlog::{CommitLog, Extent, Mending};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, timeout};

use crate::NodeId;
use crate::failure::Chain;
use crate::network::links::Link;
use crate::parts::Parts;
use crate::snapshot::send::blocking;

use self::fetch::FetchError;

/// How often all peers are asked for a segment before it is given up for now.
const ROUNDS: usize = 5;
const PAUSE: Duration = Duration::from_millis(300);
/// How long somebody who wants to read waits for a repair.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes read at once to see whether a segment is whole.
const LOOK: u64 = 1 << 20;

/// Why a segment is still damaged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MendError {
    #[error("there is no other replica")]
    NoPeers,
    #[error("no other replica has it: {last}")]
    Nobody { last: String },
    #[error(transparent)]
    Log(#[from] commitlog::Error),
}

/// The segment that an error is about, if it is one that a copy from elsewhere can mend.
pub(crate) fn damaged(error: &commitlog::Error) -> Option<LogOffset> {
    match error {
        commitlog::Error::Corrupt { segment, .. } => Some(*segment),
        // The disk cannot read it any more; a new file lies elsewhere.
        commitlog::Error::Io { action: "read" | "map" | "open", file, .. }
        | commitlog::Error::Missing { file } => {
            file.strip_suffix(".seg")?.parse().ok().map(LogOffset)
        }
        _ => None,
    }
}

/// Repairs segments of a log that is open, one at a time.
pub(crate) struct Mender {
    parts: Parts,
    log: Arc<CommitLog>,
    one: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Mender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mender").finish_non_exhaustive()
    }
}

impl Mender {
    pub(crate) fn new(parts: Parts, log: Arc<CommitLog>) -> Mender {
        // They name this very mender, which would then never go, nor would the log.
        let parts =
            Parts { mender: Arc::default(), log: Arc::default(), reader: Arc::default(), ..parts };
        Mender { parts, log, one: tokio::sync::Mutex::default() }
    }

    /// Returns once the segment `base` is whole: repaired now, or by somebody else meanwhile.
    pub(crate) async fn mend(&self, base: LogOffset) -> Result<(), MendError> {
        let _one = self.one.lock().await;
        let Err(damage) = self.look(base).await else { return Ok(()) };
        self.parts.upkeep.damage_found();
        tracing::error!(%base, error = %Chain(&damage), "a segment is damaged, fetching it from a peer");
        let started = Instant::now();
        let peers = self.parts.others();
        if peers.is_empty() {
            return Err(MendError::NoPeers);
        }
        let mut last = String::new();
        for round in 0..ROUNDS {
            if round > 0 {
                sleep(PAUSE).await;
            }
            for (peer, link) in &peers {
                match self.mend_from(link, base).await {
                    Ok(extent) => {
                        self.parts.upkeep.damage_repaired();
                        tracing::warn!(
                            %base, %peer, bytes = extent.len, took = ?started.elapsed(),
                            "a damaged segment was replaced by the peer's"
                        );
                        return Ok(());
                    }
                    Err(error) => {
                        last = format!("node {peer}: {}", Chain(&error));
                        tracing::info!(%base, %peer, error = %Chain(&error), "no copy from this peer");
                    }
                }
            }
        }
        tracing::error!(%base, last, "a damaged segment could not be repaired yet");
        Err(MendError::Nobody { last })
    }

    /// Reads all of a segment.
    async fn look(&self, base: LogOffset) -> Result<(), commitlog::Error> {
        let reader = self.log.reader();
        let look = move || {
            let mut scrub = reader.scrub(base)?;
            while scrub.step(LOOK)? > 0 {}
            Ok(())
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(commitlog::Error::Closed))
    }

    async fn mend_from(&self, link: &Link, base: LogOffset) -> Result<Extent, FetchError> {
        let upto = self.log.state().committed.unwrap_or(LogIndex(0));
        let log = self.log.clone();
        let begin =
            move |extent: Extent| -> Result<Mending, commitlog::Error> { log.mending(extent) };
        let (extent, mended) = fetch::fetch(link, base, upto, begin).await?;
        let (sender, done) = oneshot::channel();
        let done_with = Box::new(move |result| {
            // This waits for it.
            let _ = sender.send(result);
        });
        self.log.mend(mended, done_with)?;
        done.await.unwrap_or(Err(commitlog::Error::Closed))?;
        Ok(extent)
    }

    /// Waits for a repair on a thread that is not meant to wait; true if it is worth another read.
    pub(crate) fn mended(&self, base: LogOffset) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
            return false;
        }
        let waited = block_in_place(|| runtime.block_on(timeout(READ_PATIENCE, self.mend(base))));
        matches!(waited, Ok(Ok(())))
    }
}

impl Parts {
    /// The other replicas, and the way to them.
    pub(crate) fn others(&self) -> Vec<(NodeId, Link)> {
        let mut members = self.members();
        if members.is_empty() {
            members = self.config.peers.clone().into_iter().collect();
        }
        let own = self.local.node;
        let others = members.into_iter().filter(|(node, _)| *node != own);
        others.map(|(node, addr)| (node, self.links.to(node, &addr))).collect()
    }
}

/// Runs something of the log where nobody else waits for the disk.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, commitlog::Error> + Send + 'static,
) -> Result<T, commitlog::Error> {
    let done = blocking(move || Ok(work())).await;
    done.unwrap_or(Err(commitlog::Error::Closed))
}
