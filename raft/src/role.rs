//! What this node is, as the layers above may rely on it.

use std::sync::Arc;

use commitlog::position::Term;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::watch;

use crate::failure::Failure;
use crate::local::Local;
use crate::network::server::RaftNode;
use crate::proposals::Proposals;
use crate::{Error, NodeId, ProposeError, Role, RoleKind};

/// The role of a node whose group has not formed.
pub(crate) const UNFORMED: Role = Role { kind: RoleKind::Learner, term: Term(0), leader: None };

/// Publishes the role whenever it changes.
pub(crate) struct RoleKeeper<O> {
    pub(crate) local: Arc<Local>,
    pub(crate) raft: RaftNode,
    pub(crate) role: watch::Sender<Role>,
    pub(crate) proposals: Arc<Proposals<O>>,
    pub(crate) failure: Failure,
    pub(crate) stop: watch::Receiver<bool>,
}

impl<O: Send + 'static> RoleKeeper<O> {
    pub(crate) async fn run(self) {
        let mut server = self.raft.server_metrics();
        let mut data = self.raft.data_metrics();
        loop {
            let (role, catching_up) = self.look();
            self.publish(role);
            let alive = tokio::select! {
                changed = server.changed() => changed.is_ok(),
                changed = data.changed(), if catching_up => changed.is_ok(),
            };
            if !alive {
                break;
            }
        }
        let term = self.role.borrow().term;
        self.publish(Role { kind: RoleKind::Follower, term, leader: None });
        self.report_end();
    }

    /// The role, and whether the node has won and still applies what was committed before.
    fn look(&self) -> (Role, bool) {
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        let members = server.membership_config.membership().nodes();
        let members = members.map(|(id, node)| (NodeId(*id), node.raft_addr.clone()));
        self.local.set_members(members.collect());
        let term = server.vote.leader_id().term;
        // The first entry of its own term comes after everything committed before.
        let applied = self.raft.data_metrics().borrow_watched().last_applied;
        let ready = applied.is_some_and(|applied| **applied.committed_leader_id() == term);
        let won = server.state == ServerState::Leader;
        let kind = match server.state {
            ServerState::Leader if ready => RoleKind::Leader,
            ServerState::Leader | ServerState::Follower | ServerState::Shutdown => {
                RoleKind::Follower
            }
            ServerState::Candidate => RoleKind::Candidate,
            ServerState::Learner => RoleKind::Learner,
        };
        let leader = server.current_leader.map(NodeId);
        (Role { kind, term: Term(term), leader }, won && !ready)
    }

    fn publish(&self, role: Role) {
        let before = self.role.send_replace(role);
        if before == role {
            return;
        }
        tracing::info!(
            role = %role.kind,
            term = role.term.0,
            leader = role.leader.map(|leader| leader.0),
            "role"
        );
        if before.is_leader() && !role.is_leader() {
            self.proposals.abort(&ProposeError::NotLeader { leader: None });
        }
    }

    /// Consensus has ended. Unless the node is stopping, that is why it stops.
    fn report_end(&self) {
        if *self.stop.borrow() {
            return;
        }
        let running = self.raft.metrics().borrow_watched().running_state.clone();
        let reason = match running {
            Ok(()) => "it ended without a reason".to_owned(),
            Err(fatal) => fatal.to_string(),
        };
        self.failure.report(Error::Consensus { reason });
    }
}
