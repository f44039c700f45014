//! How a node comes to its group: with the others that found it, or later.

use std::sync::Arc;

use super::Bootstrap;
use super::adoption::Adoption;
use super::decision::Holding;
use super::join::Joining;
use crate::GroupId;
use crate::network::server::RaftNode;
use crate::parts::Parts;

pub(crate) enum Arrival {
    /// With the others that found it.
    Founds(Bootstrap),
    /// Later. Once it is a member it is like any other.
    Joins(Joining, Bootstrap),
}

impl Arrival {
    /// `joined`: this node came to a group that existed, when it was started before.
    pub(crate) fn of(parts: &Parts, adoption: Arc<Adoption>, joined: bool) -> Arrival {
        let bootstrap = Bootstrap {
            local: parts.local.clone(),
            presence: parts.presence.clone(),
            links: parts.links.clone(),
            adoption: adoption.clone(),
            waiting_for: parts.waiting_for.clone(),
            failure: parts.failure.clone(),
        };
        if !joined && parts.config.join.is_empty() {
            return Arrival::Founds(bootstrap);
        }
        let others = parts.config.peers.iter().filter(|(node, _)| **node != parts.local.node);
        let seeds = parts.config.join.iter().chain(others.map(|(_, addr)| addr));
        let joining = Joining {
            local: parts.local.clone(),
            links: parts.links.clone(),
            credentials: parts.credentials.clone(),
            adoption,
            failure: parts.failure.clone(),
            seeds: seeds.cloned().collect(),
            segment_size: parts.config.segment_size,
        };
        Arrival::Joins(joining, bootstrap)
    }

    /// Returns once this node belongs to a group; `None` if it must not take part, which then was
    /// reported.
    pub(crate) async fn find_group(&self) -> Option<GroupId> {
        match self {
            Arrival::Founds(bootstrap) => bootstrap.find_group().await,
            Arrival::Joins(joining, _) => joining.find_group().await,
        }
    }

    /// Sees the node through to where it is a member, and keeps watching for peers of another
    /// group. Returns only if the node must stop, which then was reported.
    pub(crate) async fn settle(&self, raft: &RaftNode) {
        match self {
            Arrival::Founds(bootstrap) => bootstrap.form(raft).await,
            Arrival::Joins(joining, bootstrap) => {
                joining.wait().await;
                if matches!(joining.local.holding(), Holding::Formed(_)) {
                    bootstrap.form(raft).await;
                }
            }
        }
    }
}
