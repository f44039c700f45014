//! A node that is to be maintained: it hands leadership away and does not stand for election.
//!
//! The mark belongs to the running process: a restart ends it, which is what maintenance mostly
//! ends with. Peers are told, so that nobody hands over to a drained node. It still votes, and
//! stores what the group decides: draining costs no safety. Nor does it cost the group its leader:
//! a drained node that hears of none for a while stands after all, and hands over again as soon as
//! somebody can take over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Role;
use crate::suspect::Suspicion;
use crate::transfer::{Transfer, TransferError};

/// How often a drained node looks whether it leads, or nobody does.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Without a leader for so long, a drained node stands.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Drain(AtomicBool);

impl Drain {
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Release);
    }
}

/// Why a node that leads cannot be drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    #[error("this node does not belong to a group yet")]
    NoGroup,
    #[error("nobody takes over from this node")]
    NotHandedOver(#[from] TransferError),
}

/// Sees to it that a drained node does not lead.
pub(crate) struct Keeper {
    pub(crate) drain: Arc<Drain>,
    pub(crate) transfer: Transfer,
    pub(crate) suspicion: Arc<Suspicion>,
    pub(crate) role: watch::Receiver<Role>,
}

impl Keeper {
    pub(crate) async fn run(self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut led_at = Instant::now();
        let mut stands = true;
        loop {
            looks.tick().await;
            let role = *self.role.borrow();
            let now = Instant::now();
            // A dead leader is still the one that this node has voted for.
            let leads = |leader| role.is_leader() || self.transfer.presence.is_alive(leader);
            if role.leader.is_some_and(leads) {
                led_at = now;
            }
            let drained = self.drain.is_on();
            if drained && role.is_leader() && self.transfer.best_target().is_some() {
                match self.transfer.hand_over(None).await {
                    Ok(leader) => tracing::info!(%leader, "drained: leadership handed over"),
                    Err(error) => tracing::warn!(%error, "drained, and still leading"),
                }
            }
            let may_stand = !drained || now >= led_at + LEADERLESS_MAX;
            // A node that may have lost entries stands when it has caught up.
            if may_stand != stands && !self.suspicion.is_suspect() {
                stands = may_stand;
                self.transfer.raft.runtime_config().elect(may_stand);
                tracing::info!(drained, may_stand, "standing for election");
            }
        }
    }
}
