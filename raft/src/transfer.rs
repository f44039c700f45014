//! Handing leadership over on purpose.
//!
//! From the order to hand over on the leader accepts nothing, until its successor leads or the
//! others elect one; so only a replica that can take over at once is asked.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::change::rules::LAG_ENTRIES_MAX;
use crate::network::presence::Presence;
use crate::network::server::RaftNode;
use crate::{NodeId, Role};

/// Why leadership was not handed over. The group has a leader all the same, or elects one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("this node does not lead")]
    NotLeader,
    #[error("no other voter is connected and caught up")]
    NoTarget,
    #[error("node {0} has no vote in this group")]
    NotVoter(NodeId),
    #[error("node {0} is not connected")]
    NotConnected(NodeId),
    #[error("node {0} lags by {1} entries")]
    Lags(NodeId, u64),
    #[error("node {0} is drained; end that first")]
    Drained(NodeId),
    #[error("node {0} did not take over in time")]
    NotTaken(NodeId),
    #[error("the node is stopping")]
    Stopped,
}

/// What a transfer needs.
#[derive(Clone)]
pub(crate) struct Transfer {
    pub(crate) raft: RaftNode,
    pub(crate) presence: Arc<Presence>,
    pub(crate) role: watch::Sender<Role>,
    /// How long the successor may take.
    pub(crate) patience: Duration,
}

impl Transfer {
    /// Hands over to `to`, or to the voter that lags least; returns who leads then.
    pub(crate) async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let mut role = self.role.subscribe();
        let before = *role.borrow();
        if !before.is_leader() {
            return Err(TransferError::NotLeader);
        }
        if let Some(target) = to.filter(|_| to == before.leader) {
            return Ok(target);
        }
        let target = match to {
            Some(target) => self.check(target).map(|_lag| target)?,
            None => self.best_target().ok_or(TransferError::NoTarget)?,
        };
        tracing::info!(to = %target, term = before.term.0, "handing leadership over");
        let told = self.raft.trigger().transfer_leader(target.0).await;
        told.map_err(|_fatal| TransferError::Stopped)?;
        let taken = role.wait_for(|now| now.term > before.term && now.leader.is_some());
        match timeout(self.patience, taken).await {
            Ok(Ok(now)) => now.leader.ok_or(TransferError::NotTaken(target)),
            Ok(Err(_)) => Err(TransferError::Stopped),
            Err(_) => Err(TransferError::NotTaken(target)),
        }
    }

    /// The connected voter that lags least.
    pub(crate) fn best_target(&self) -> Option<NodeId> {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let voters = membership.voter_ids().map(NodeId);
        let able = voters.filter_map(|node| Some((self.check(node).ok()?, node)));
        able.min().map(|(_lag, node)| node)
    }

    /// How many entries a node lags that could take over at once.
    pub(crate) fn check(&self, node: NodeId) -> Result<u64, TransferError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().ok_or(TransferError::NotLeader)?;
        if !metrics.membership_config.voter_ids().any(|id| id == node.0) {
            return Err(TransferError::NotVoter(node));
        }
        if node.0 == metrics.id || !self.presence.is_alive(node) {
            return Err(TransferError::NotConnected(node));
        }
        if self.presence.is_drained(node) {
            return Err(TransferError::Drained(node));
        }
        let stored = matched.get(&node.0).copied().flatten().map_or(0, |matched| matched.index());
        let lag = metrics.last_log_index.unwrap_or(0).saturating_sub(stored);
        if lag > LAG_ENTRIES_MAX {
            return Err(TransferError::Lags(node, lag));
        }
        Ok(lag)
    }
}
