//! Reads everything that lies on the disk again, slowly, and has what is damaged repaired: the
//! sealed segments, the snapshot, and the state.

use std::sync::Arc;
use std::time::Duration;

use commitlog::CommitLog;
use commitlog::position::LogOffset;
use futures::FutureExt as _;
use tokio::time::{Instant, sleep_until};

use super::{Mender, damaged, off_thread};
use crate::failure::{Chain, Failure};
use crate::machine::Machine;
use crate::network::server::RaftNode;
use crate::snapshot::pace::Pace;
use crate::snapshot::send::blocking;
use crate::snapshot::store::Store;
use crate::state_machine::Scrub;
use crate::upkeep::Counters;
use crate::{ApplyError, Error};

/// Bytes that are read in one go.
const PIECE: u64 = 256 << 10;

pub(crate) struct Scrubber {
    pub(crate) raft: RaftNode,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) store: Arc<Store>,
    pub(crate) mender: Arc<Mender>,
    pub(crate) upkeep: Arc<Counters>,
    pub(crate) failure: Failure,
    /// Bytes per second; 0 for never.
    pub(crate) rate: u64,
    pub(crate) interval: Duration,
}

impl Scrubber {
    pub(crate) async fn run(self) {
        if self.rate == 0 {
            return std::future::pending().await;
        }
        loop {
            let started = Instant::now();
            let mut pace = Pace::new(self.rate, started);
            for base in self.log.reader().sealed() {
                self.segment(base, &mut pace).await;
            }
            self.state(&mut pace).await;
            self.snapshot(&mut pace).await;
            self.upkeep.scrubbed_all();
            tracing::debug!(took = ?started.elapsed(), "everything was read again");
            sleep_until(started + self.interval).await;
        }
    }

    async fn read(&self, bytes: u64, pace: &mut Pace) {
        self.upkeep.scrubbed(bytes);
        let bytes = usize::try_from(bytes).expect("a piece fits memory");
        // Pauses before the next piece, rather than before this one.
        pace.book(bytes, Instant::now());
        sleep_until(pace.book(0, Instant::now())).await;
    }

    async fn segment(&self, base: LogOffset, pace: &mut Pace) {
        let reader = self.log.reader();
        let mut scrub = match off_thread(move || reader.scrub(base)).await {
            Ok(scrub) => scrub,
            // It has gone meanwhile.
            Err(commitlog::Error::Missing { .. }) => return,
            Err(error) => return self.found(&error).await,
        };
        loop {
            let step = off_thread(move || scrub.step(PIECE).map(|read| (scrub, read))).await;
            match step {
                Ok((_, 0)) => return,
                Ok((again, read)) => {
                    scrub = again;
                    self.read(read, pace).await;
                }
                Err(error) => return self.found(&error).await,
            }
        }
    }

    async fn found(&self, error: &commitlog::Error) {
        let Some(base) = damaged(error) else {
            return tracing::warn!(error = %Chain(error), "a segment could not be read again");
        };
        // It tells what became of it; the next round tries again.
        let _ = self.mender.mend(base).await;
    }

    async fn state(&self, pace: &mut Pace) {
        let scrub = self.raft.with_state_machine(|machine: &mut Machine| {
            let scrub = machine.scrub();
            async move { scrub }.boxed()
        });
        // Consensus has stopped, or there is nothing on a disk.
        let Ok(Some(mut scrub)) = scrub.await else { return };
        loop {
            let step = move || -> (Scrub, Result<u64, ApplyError>) {
                let read = scrub(PIECE);
                (scrub, read)
            };
            let Ok((again, read)) = blocking(move || Ok(step())).await else { return };
            scrub = again;
            match read {
                Ok(0) => return,
                Ok(read) => self.read(read, pace).await,
                Err(source) => {
                    self.upkeep.damage_found();
                    return self.failure.report(Error::StateDamaged { source });
                }
            }
        }
    }

    /// A snapshot that is damaged is made anew by who makes them, [`crate::purge`].
    async fn snapshot(&self, pace: &mut Pace) {
        let Some(stored) = self.store.current() else { return };
        for file in 0..stored.manifest.files.len() {
            let len = stored.manifest.files[file].len;
            let checked = stored.clone();
            let check = move || checked.check_file(&checked.manifest.files[file]);
            if let Err(error) = blocking(check).await {
                // A newer one may have taken its place.
                let current = self.store.current();
                if current.is_some_and(|current| Arc::ptr_eq(&current, &stored)) {
                    tracing::error!(error = %Chain(&error), "this node's snapshot is damaged");
                    stored.suspect();
                }
                return;
            }
            let mut left = len;
            while left > 0 {
                let now = left.min(PIECE);
                self.read(now, pace).await;
                left -= now;
            }
        }
    }
}
