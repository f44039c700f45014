//! Handing leadership over on purpose.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::network::presence::Presence;
use crate::network::server::RaftNode;
use crate::{NodeId, Role};

/// Why leadership was not handed over. The group has a leader all the same, or elects one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("this node does not lead")]
    NotLeader,
    #[error("no other voter is connected")]
    NoTarget,
    #[error("node {0} did not take over in time")]
    NotTaken(NodeId),
    #[error("the node is stopping")]
    Stopped,
}

/// Hands over to `to`, or to the voter that lags least; returns who leads then.
pub(crate) async fn transfer(
    raft: &RaftNode,
    presence: &Presence,
    mut role: watch::Receiver<Role>,
    to: Option<NodeId>,
    patience: Duration,
) -> Result<NodeId, TransferError> {
    let before = *role.borrow();
    if !before.is_leader() {
        return Err(TransferError::NotLeader);
    }
    let target = match to {
        Some(target) => target,
        None => best_target(raft, presence).ok_or(TransferError::NoTarget)?,
    };
    tracing::info!(to = %target, term = before.term.0, "handing leadership over");
    raft.trigger().transfer_leader(target.0).await.map_err(|_fatal| TransferError::Stopped)?;
    let taken = role.wait_for(|now| now.term > before.term && now.leader.is_some());
    match timeout(patience, taken).await {
        Ok(Ok(now)) => now.leader.ok_or(TransferError::NotTaken(target)),
        Ok(Err(_)) => Err(TransferError::Stopped),
        Err(_) => Err(TransferError::NotTaken(target)),
    }
}

/// The connected voter that holds most of the log.
fn best_target(raft: &RaftNode, presence: &Presence) -> Option<NodeId> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let me = *metrics.vote.leader_id();
    let matched = metrics.replication.as_ref()?;
    metrics
        .membership_config
        .voter_ids()
        .filter(|&id| id != me.voted_for && presence.is_alive(NodeId(id)))
        .max_by_key(|id| matched.get(id).copied().flatten())
        .map(NodeId)
}
