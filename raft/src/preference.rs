//! Hands leadership to a node that is to lead whenever it can.
//!
//! Not at once: a preferred node that comes and goes would take the group's leader with it each
//! time. It must be able to take over for a while, and leadership moves for it only now and then.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::network::presence::Presence;
use crate::transfer::Transfer;
use crate::{NodeId, Role};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A preferred node must be fit for so long.
const FIT_FOR: Duration = Duration::from_secs(5);
/// Between two attempts of one leader.
const PAUSE: Duration = Duration::from_secs(30);

/// The loop on every node; only a leader that is not preferred itself does anything.
pub(crate) struct Preference {
    pub(crate) transfer: Transfer,
    pub(crate) role: watch::Receiver<Role>,
    /// This node is preferred itself.
    pub(crate) own: bool,
}

impl Preference {
    pub(crate) async fn run(self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut patience = Patience::default();
        loop {
            looks.tick().await;
            let leads = self.role.borrow().is_leader();
            let fit = if leads && !self.own { self.fit(&self.transfer.presence) } else { None };
            if let Some(node) = patience.choose(fit, Instant::now()) {
                match self.transfer.hand_over(Some(node)).await {
                    Ok(leader) => {
                        tracing::info!(%leader, "leadership handed to the preferred node");
                    }
                    Err(error) => {
                        tracing::info!(%node, %error, "the preferred node does not lead");
                    }
                }
            }
        }
    }

    fn fit(&self, presence: &Presence) -> Option<NodeId> {
        presence.preferred().into_iter().find(|node| self.transfer.check(*node).is_ok())
    }
}

/// How long a node has been fit, and when leadership moved last.
#[derive(Debug, Default)]
struct Patience {
    fit: Option<(NodeId, Instant)>,
    tried: Option<Instant>,
}

impl Patience {
    /// The node to hand over to now, given the one that could take over.
    fn choose(&mut self, fit: Option<NodeId>, now: Instant) -> Option<NodeId> {
        let node = fit.or_else(|| {
            self.fit = None;
            None
        })?;
        let since = match self.fit {
            Some((before, since)) if before == node => since,
            _ => {
                self.fit = Some((node, now));
                now
            }
        };
        let rested = self.tried.is_none_or(|tried| now >= tried + PAUSE);
        if now < since + FIT_FOR || !rested {
            return None;
        }
        self.tried = Some(now);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_must_be_fit_for_a_while_and_leadership_moves_rarely() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let two = Some(NodeId(2));
        assert_eq!(patience.choose(two, start), None);
        assert_eq!(patience.choose(None, start + FIT_FOR / 2), None);
        assert_eq!(patience.choose(two, start + FIT_FOR), None, "it was away in between");
        let fit = start + 2 * FIT_FOR;
        assert_eq!(patience.choose(two, fit), two);
        assert_eq!(patience.choose(two, fit + PAUSE / 2), None);
        assert_eq!(patience.choose(two, fit + PAUSE), two);
    }

    #[test]
    fn another_preferred_node_begins_anew() {
        let mut patience = Patience::default();
        let start = Instant::now();
        assert_eq!(patience.choose(Some(NodeId(2)), start), None);
        assert_eq!(patience.choose(Some(NodeId(3)), start + FIT_FOR), None);
        assert_eq!(patience.choose(Some(NodeId(3)), start + 2 * FIT_FOR), Some(NodeId(3)));
    }
}
