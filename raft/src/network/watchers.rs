//! Which peers are watched: the configured ones until the group has formed, then its members,
//! whoever they are at the moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::auth::Credentials;
use super::links::Links;
use super::presence::{Presence, Watcher};
use crate::failure::Failure;
use crate::local::Local;
use crate::{NodeId, Refusal};

/// What is not announced is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps one [`Watcher`] for each peer.
pub(crate) struct Watchers {
    pub(crate) local: Arc<Local>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) links: Arc<Links>,
    pub(crate) credentials: Credentials,
    pub(crate) failure: Failure,
}

impl Watchers {
    pub(crate) async fn run(self) {
        let mut members = self.local.members();
        let mut roster = self.local.roster.changed();
        let mut watched: BTreeMap<NodeId, (String, JoinSet<()>)> = BTreeMap::new();
        loop {
            if roster.borrow_and_update().has_removed(self.local.node) {
                return self.failure.report(Refusal::Removed { node: self.local.node }.into());
            }
            let known = members.borrow_and_update().clone();
            let mut wanted = if known.is_empty() { self.local.peers.clone() } else { known };
            wanted.remove(&self.local.node);
            self.unwatch(&mut watched, &wanted);
            for (node, addr) in wanted {
                let (at, watching) = watched.entry(node).or_default();
                if watching.is_empty() {
                    addr.clone_into(at);
                    watching.spawn(self.watcher(node, &addr).run());
                }
            }
            // Both senders live in `local`.
            tokio::select! {
                _ = members.changed() => {}
                _ = roster.changed() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Lets go of those that are gone, or are somewhere else now.
    fn unwatch(
        &self,
        watched: &mut BTreeMap<NodeId, (String, JoinSet<()>)>,
        wanted: &BTreeMap<NodeId, String>,
    ) {
        watched.retain(|node, (at, _)| {
            let stays = wanted.get(node) == Some(at);
            if !stays && !wanted.contains_key(node) {
                tracing::info!(peer = %node, addr = %at, "no member any more");
                self.links.forget(*node);
            }
            if !stays {
                self.presence.forget(*node);
            }
            stays
        });
    }

    fn watcher(&self, node: NodeId, addr: &str) -> Watcher {
        Watcher {
            link: self.links.to(node, addr),
            local: self.local.clone(),
            presence: self.presence.clone(),
            credentials: self.credentials.clone(),
            failure: self.failure.clone(),
        }
    }
}
