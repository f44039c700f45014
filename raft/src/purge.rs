//! Removes the part of the log that lies below the state's floor: on every node by itself, since
//! equal states have equal floors.
//!
//! Consensus lets go of entries only up to a snapshot, because a replica that lacks them needs one.
//! A new one is made only when the last does not reach as far as what is to go, which is rarely:
//! each reaches to what was then the log's end.

use std::sync::Arc;
use std::time::Duration;

use commitlog::position::{LogId, LogOffset};
use commitlog::{CommitLog, Removable};
use futures::FutureExt as _;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::failure::{Chain, Failure};
use crate::log_view::LogView;
use crate::machine::Machine;
use crate::network::server::RaftNode;
use crate::snapshot;
use crate::snapshot::send::blocking;
use crate::snapshot::store::{Store, Stored};
use crate::types::from_raft;
use crate::upkeep::Counters;
use crate::{ApplyError, Error};

/// How often the floor is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long consensus may take to let go of entries; then it is asked again at the next look.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a snapshot that was not made, for want of space perhaps, before the next try.
const RETRY: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// After so many segments a node that has a snapshot makes a newer one: who gets it has the rest of
/// the log to apply.
const RENEW_SEGMENTS: u64 = 16;

pub(crate) struct Purger {
    pub(crate) raft: RaftNode,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) view: Arc<LogView>,
    pub(crate) store: Arc<Store>,
    pub(crate) segment_size: u64,
    pub(crate) upkeep: Arc<Counters>,
    pub(crate) failure: Failure,
}

impl Purger {
    pub(crate) async fn run(self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed_at = self.log.state().end;
        loop {
            looks.tick().await;
            self.replace_damaged().await;
            let removable = self.log.removable_below(self.view.floor());
            let covers = match removable {
                Some(Removable { purge, .. }) => Some(purge) <= self.store.last(),
                None => self.store.last().is_none() || !self.is_old(renewed_at),
            };
            if !covers {
                renewed_at = self.log.state().end;
                if let Err(error) = self.build().await {
                    tracing::warn!(error = %Chain(&error), "no snapshot was made, the log is kept");
                    sleep(RETRY).await;
                    continue;
                }
            }
            if let Some(removable) = removable
                && self.purged(removable.purge).await
            {
                self.remove(removable.below).await;
            }
        }
    }

    /// Makes the snapshot anew in which somebody has found damage.
    async fn replace_damaged(&self) {
        let Some(damaged) = self.store.current().filter(|stored| stored.is_suspect()) else {
            return;
        };
        self.upkeep.damage_found();
        match make(&self.raft, &self.store, &self.upkeep, Some(damaged)).await {
            Ok(stored) => match blocking(move || stored.check()).await {
                Ok(()) => self.upkeep.damage_repaired(),
                // It shares the file with the state.
                Err(error) => {
                    let source = ApplyError::new(error);
                    self.failure.report(Error::StateDamaged { source });
                }
            },
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "a damaged snapshot was not made anew");
                sleep(RETRY).await;
            }
        }
    }

    fn is_old(&self, since: LogOffset) -> bool {
        self.log.state().end.0.saturating_sub(since.0) > RENEW_SEGMENTS * self.segment_size
    }

    /// Makes a snapshot of what is applied now.
    async fn build(&self) -> Result<(), snapshot::Error> {
        make(&self.raft, &self.store, &self.upkeep, None).await.map(|_made| ())
    }

    /// Whether consensus has let go of everything up to `upto`.
    async fn purged(&self, upto: LogId) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.view.watermarks.marks().purged >= Some(upto.index) {
                return true;
            }
            let metrics = self.raft.data_metrics().borrow_watched().clone();
            let covered = metrics.snapshot.as_ref().map(from_raft) >= Some(upto);
            // It may not have heard of the snapshot yet.
            let asked = match covered {
                true => self.raft.trigger().purge_log(upto.index.0).await,
                false => self.raft.trigger().snapshot().await,
            };
            if asked.is_err() {
                return false;
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL).await;
        }
    }

    async fn remove(&self, below: LogOffset) {
        let (sender, removed) = oneshot::channel();
        let done = Box::new(move |result| {
            // This waits for it.
            let _ = sender.send(result);
        });
        let queued = self.log.remove_below(below, done);
        let result = match queued {
            Ok(()) => removed.await.unwrap_or(Err(commitlog::Error::Closed)),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                tracing::info!(start = %self.log.state().start, "log removed up to its start");
            }
            Err(error) => tracing::warn!(%error, "remove the log's oldest segments"),
        }
    }
}

/// Makes a snapshot of what is applied now; in the place of one that is damaged, if there is one.
pub(crate) async fn make(
    raft: &RaftNode,
    store: &Arc<Store>,
    upkeep: &Counters,
    damaged: Option<Arc<Stored>>,
) -> Result<Arc<Stored>, snapshot::Error> {
    let started = Instant::now();
    let checkpoint = raft.with_state_machine(|machine: &mut Machine| {
        let checkpoint = machine.checkpoint();
        async move { checkpoint }.boxed()
    });
    let checkpoint = checkpoint.await.map_err(|_fatal| snapshot::Error::Stopped)?;
    let store = store.clone();
    let stored = blocking(move || match damaged {
        None => store.build(checkpoint),
        Some(damaged) => store.rebuild(checkpoint, &damaged),
    });
    let stored = stored.await?;
    let took = started.elapsed();
    upkeep.snapshot_made(took);
    tracing::info!(last = %stored.manifest.last, ?took, "snapshot made");
    // Consensus learns of it by asking for one.
    raft.trigger().snapshot().await.map_err(|_fatal| snapshot::Error::Stopped)?;
    Ok(stored)
}
