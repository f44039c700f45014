//! Notices at once that a leader's process is gone, and sees to it that it is replaced.
//!
//! Timers find a silent death; this finds the common one, where the operating system closes the
//! dead process's connections and refuses new ones. A node acts only if a quorum of voters, itself
//! included, sees the same: one cut link never deposes a leader. Voters that see it grant the vote
//! in spite of the lease that the dead leader had renewed, which is safe because reads never rely
//! on a lease.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use proto::raft_rpc as rpc;
use tokio::time::{sleep, timeout};

use crate::NodeId;
use crate::log_view::LogView;
use crate::membership::{self, Membership};
use crate::network::auth::Method;
use crate::network::convert;
use crate::network::links::Links;
use crate::network::presence::Presence;
use crate::network::server::RaftNode;
use crate::types::{RaftLogId, to_raft};

/// How long another voter may take to say what it sees.
const WITNESS_TIMEOUT: Duration = Duration::from_millis(100);
/// Elections repeat at random intervals in this range, in ms, until there is a leader.
const REPEAT_MS: std::ops::Range<u64> = 30..60;
/// A node that is not the first in line gives the first this head start, so that they do not split
/// the votes.
const HEAD_START: Duration = Duration::from_millis(40);

/// A leader, and the process it was heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leader {
    term: u64,
    node: NodeId,
    /// `None` if it was never heard directly.
    boot_id: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Detector {
    node: NodeId,
    presence: Arc<Presence>,
    log: Arc<LogView>,
    /// The last leader heard.
    heard: Mutex<Option<Leader>>,
}

impl Detector {
    pub(crate) fn new(node: NodeId, presence: Arc<Presence>, log: Arc<LogView>) -> Detector {
        Detector { node, presence, log, heard: Mutex::new(None) }
    }

    /// A message of a leader arrived.
    pub(crate) fn heard_leader(&self, from: NodeId, vote: Option<&rpc::Vote>, boot_id: u64) {
        let Some(vote) = vote.filter(|vote| vote.committed && vote.node_id == from.0) else {
            return;
        };
        let leader = Leader { term: vote.term, node: from, boot_id: Some(boot_id) };
        let mut heard = self.heard.lock().expect("no holder panics");
        if heard.is_none_or(|last| last.term <= leader.term) {
            *heard = Some(leader);
        }
    }

    /// The leader that this node has voted for or accepted, with its process if it was heard.
    fn leader(&self) -> Option<Leader> {
        let vote = self.log.vote().filter(|vote| vote.is_committed())?;
        let (term, node) = (vote.leader_id().term, NodeId(vote.leader_id().voted_for));
        let heard = *self.heard.lock().expect("no holder panics");
        let boot_id = heard
            .filter(|heard| heard.term == term && heard.node == node)
            .and_then(|heard| heard.boot_id);
        Some(Leader { term, node, boot_id })
    }

    fn gone(&self) -> Option<Leader> {
        let leader = self.leader().filter(|leader| leader.node != self.node)?;
        self.presence.is_gone(leader.node, leader.boot_id).then_some(leader)
    }

    /// Whether the leader that this node follows is certainly gone.
    pub(crate) fn leader_is_gone(&self) -> bool {
        self.gone().is_some()
    }

    /// What this node knows about a leader that another one misses.
    pub(crate) fn testify(&self, about: &rpc::WitnessRequest) -> rpc::WitnessResponse {
        let boot_id = Some(about.boot_id).filter(|&boot_id| boot_id != 0);
        let gone = self.presence.is_gone(NodeId(about.leader), boot_id);
        let last_log_id = self.log.last().map(|id| convert::log_id(&to_raft(id)));
        rpc::WitnessResponse { gone, last_log_id }
    }
}

/// The loop around a [`Detector`].
pub(crate) struct Watch {
    pub(crate) detector: Arc<Detector>,
    pub(crate) raft: RaftNode,
    pub(crate) links: Arc<Links>,
}

impl Watch {
    pub(crate) async fn run(self) {
        let mut presence = self.detector.presence.changed();
        let mut server = self.raft.server_metrics();
        loop {
            if let Some(leader) = self.detector.gone()
                && self.may_stand()
            {
                self.replace(leader).await;
            }
            // Both senders live as long as the node does.
            let alive = tokio::select! {
                changed = presence.changed() => changed.is_ok(),
                changed = server.changed() => changed.is_ok(),
            };
            if !alive {
                return;
            }
        }
    }

    fn may_stand(&self) -> bool {
        match self.raft.server_metrics().borrow_watched().state {
            ServerState::Follower | ServerState::Candidate => true,
            ServerState::Leader | ServerState::Learner | ServerState::Shutdown => false,
        }
    }

    /// Calls elections until somebody leads a later term, or the lost leader turns out to live.
    async fn replace(&self, lost: Leader) {
        tracing::info!(leader = %lost.node, term = lost.term, "leader's process is gone");
        while !self.is_over(lost) {
            let testimony = self.ask(lost).await;
            if testimony.is_quorum {
                if !testimony.first_in_line {
                    sleep(HEAD_START).await;
                }
                if self.is_over(lost) {
                    return;
                }
                if self.raft.trigger().elect(false).await.is_err() {
                    return;
                }
            }
            sleep(Duration::from_millis(rand::random_range(REPEAT_MS))).await;
        }
    }

    fn is_over(&self, lost: Leader) -> bool {
        let server = self.raft.server_metrics();
        let metrics = server.borrow_watched();
        let term = metrics.vote.leader_id().term;
        let has_leader = metrics.current_leader.is_some() && term > lost.term;
        let lives = !self.detector.presence.is_gone(lost.node, lost.boot_id);
        drop(metrics);
        has_leader || lives || !self.may_stand()
    }

    /// Asks the other voters what they see.
    async fn ask(&self, lost: Leader) -> Testimony {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let membership = membership.membership();
        let me = self.detector.node;
        let asked = voters(membership).filter(|(node, _)| *node != me && *node != lost.node);
        let answers = join_all(asked.map(|(node, addr)| self.ask_one(node, addr, lost))).await;
        let mut agree = BTreeSet::from([me.0]);
        let mut standing = vec![(self.last_log_id(), Reverse(me))];
        for (node, last_log_id) in answers.into_iter().flatten() {
            agree.insert(node.0);
            standing.push((last_log_id, Reverse(node)));
        }
        let best = standing.iter().max().map(|(_, Reverse(node))| *node);
        Testimony {
            is_quorum: membership::is_quorum(membership, &agree),
            first_in_line: best == Some(me),
        }
    }

    /// The node and the end of its log, if it agrees.
    async fn ask_one(
        &self,
        node: NodeId,
        addr: String,
        lost: Leader,
    ) -> Option<(NodeId, Option<RaftLogId>)> {
        let link = self.links.to(node, &addr);
        let message =
            rpc::WitnessRequest { leader: lost.node.0, boot_id: lost.boot_id.unwrap_or(0) };
        let request = link.request(Method::Witness, message);
        let mut client = link.control();
        let response = timeout(WITNESS_TIMEOUT, client.witness(request)).await.ok()?.ok()?;
        let response = response.into_inner();
        response.gone.then(|| (node, response.last_log_id.map(convert::to_log_id)))
    }

    fn last_log_id(&self) -> Option<RaftLogId> {
        self.detector.log.last().map(to_raft)
    }
}

struct Testimony {
    is_quorum: bool,
    /// No other voter that agrees has a longer log, or as long a log and a lower id.
    first_in_line: bool,
}

fn voters(membership: &Membership) -> impl Iterator<Item = (NodeId, String)> {
    membership.voter_ids().filter_map(|id| {
        let node = membership.get_node(&id)?;
        Some((NodeId(id), node.raft_addr.clone()))
    })
}
