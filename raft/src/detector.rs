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
use tokio::time::{Instant, sleep, timeout};

use crate::NodeId;
use crate::drain::Drain;
use crate::log_view::LogView;
use crate::membership::{self, Membership};
use crate::network::auth::Method;
use crate::network::convert;
use crate::network::links::Links;
use crate::network::presence::Presence;
use crate::network::server::RaftNode;
use crate::suspect::Suspicion;
use crate::types::{RaftLogId, RaftVote, to_raft};

/// How long another voter may take to say what it sees.
const WITNESS_TIMEOUT: Duration = Duration::from_millis(100);
/// Elections repeat at random intervals in this range, in ms, until there is a leader.
const REPEAT_MS: std::ops::Range<u64> = 30..60;
/// How long a vote given to another candidate keeps this node from standing itself.
const RESPECT: Duration = Duration::from_millis(150);

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
    suspicion: Arc<Suspicion>,
    /// The last leader heard.
    heard: Mutex<Option<Leader>>,
}

impl Detector {
    pub(crate) fn new(
        node: NodeId,
        presence: Arc<Presence>,
        log: Arc<LogView>,
        suspicion: Arc<Suspicion>,
    ) -> Detector {
        Detector { node, presence, log, suspicion, heard: Mutex::new(None) }
    }

    /// A message of a leader arrived.
    pub(crate) fn heard_leader(&self, from: NodeId, vote: Option<&rpc::Vote>, boot_id: u64) {
        let Some(vote) = vote.filter(|vote| vote.committed && vote.node_id == from.0) else {
            return;
        };
        self.presence.heard_from(from, boot_id);
        let leader = Leader { term: vote.term, node: from, boot_id: Some(boot_id) };
        let mut heard = self.heard.lock().expect("no holder panics");
        if heard.is_none_or(|last| last.term <= leader.term) {
            *heard = Some(leader);
        }
    }

    /// The leader that this node has voted for or accepted, with its process if it was heard.
    fn leader(&self) -> Option<Leader> {
        let vote = self.log.vote().filter(RaftVote::is_committed)?;
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
        // A suspect node cannot vote, so that its agreement would be worth nothing.
        let gone =
            !self.suspicion.is_suspect() && self.presence.is_gone(NodeId(about.leader), boot_id);
        let last_log_id = self.log.last().map(|id| convert::log_id(&to_raft(id)));
        rpc::WitnessResponse { gone, last_log_id }
    }
}

/// The loop around a [`Detector`].
pub(crate) struct Watch {
    pub(crate) detector: Arc<Detector>,
    pub(crate) raft: RaftNode,
    pub(crate) links: Arc<Links>,
    pub(crate) drain: Arc<Drain>,
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
        if self.detector.suspicion.is_suspect() || self.drain.is_on() {
            return false;
        }
        match self.raft.server_metrics().borrow_watched().state {
            ServerState::Follower | ServerState::Candidate => true,
            ServerState::Leader | ServerState::Learner | ServerState::Shutdown => false,
        }
    }

    /// Calls elections until somebody leads a later term, or the lost leader turns out to live.
    ///
    /// Of those that agree only the first in line stands: two candidates would split the votes, and
    /// one with a shorter log could not win but would outrun the term of the one that can. Should
    /// the first fail all the same, the timers are still there.
    async fn replace(&self, lost: Leader) {
        tracing::info!(leader = %lost.node, term = lost.term, "leader's process is gone");
        let mut ballot = Ballot::default();
        while !self.is_over(lost) {
            let testimony = self.ask(lost).await;
            let stands = testimony.is_quorum
                && testimony.first_in_line
                && ballot.is_free(self.voted_for(), Instant::now())
                && !self.is_over(lost);
            if stands && self.raft.trigger().elect(false).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(rand::random_range(REPEAT_MS))).await;
        }
    }

    /// The candidate and term that this node's vote went to, unless it was itself.
    fn voted_for(&self) -> Option<(u64, u64)> {
        let vote = self.detector.log.vote().filter(|vote| !vote.is_committed())?;
        let candidate = vote.leader_id();
        (candidate.voted_for != self.detector.node.0)
            .then_some((candidate.term, candidate.voted_for))
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
        let agree: Vec<Witness> = answers.into_iter().flatten().collect();
        let own = Witness { node: me, last_log_id: self.detector.log.last().map(to_raft) };
        weigh(membership, own, &agree)
    }

    /// The node and the end of its log, if it agrees.
    async fn ask_one(&self, node: NodeId, addr: String, lost: Leader) -> Option<Witness> {
        let link = self.links.to(node, &addr);
        let message =
            rpc::WitnessRequest { leader: lost.node.0, boot_id: lost.boot_id.unwrap_or(0) };
        let request = link.request(Method::Witness, message);
        let mut client = link.control();
        let response = timeout(WITNESS_TIMEOUT, client.witness(request)).await.ok()?.ok()?;
        let response = response.into_inner();
        let last_log_id = response.last_log_id.map(convert::to_log_id);
        response.gone.then_some(Witness { node, last_log_id })
    }
}

/// Keeps a node from standing against a candidate that it has just voted for: the new leader may
/// be there already, and not have been heard.
#[derive(Debug, Default)]
struct Ballot {
    given: Option<((u64, u64), Instant)>,
}

impl Ballot {
    fn is_free(&mut self, voted_for: Option<(u64, u64)>, now: Instant) -> bool {
        let Some(candidate) = voted_for else {
            self.given = None;
            return true;
        };
        match self.given {
            Some((before, since)) if before == candidate => now >= since + RESPECT,
            _ => {
                self.given = Some((candidate, now));
                false
            }
        }
    }
}

/// A voter that sees the leader's process gone.
#[derive(Debug, Clone, Copy)]
struct Witness {
    node: NodeId,
    last_log_id: Option<RaftLogId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Testimony {
    is_quorum: bool,
    /// No other voter that agrees has a longer log, or as long a log and a lower id.
    first_in_line: bool,
}

/// What this node's own view and those that agree with it amount to.
fn weigh(membership: &Membership, own: Witness, others: &[Witness]) -> Testimony {
    let all = || others.iter().chain([&own]);
    let agree: BTreeSet<u64> = all().map(|witness| witness.node.0).collect();
    let best = all().max_by_key(|witness| (witness.last_log_id, Reverse(witness.node)));
    Testimony {
        is_quorum: membership::is_quorum(membership, &agree),
        first_in_line: best.map(|witness| witness.node) == Some(own.node),
    }
}

fn voters(membership: &Membership) -> impl Iterator<Item = (NodeId, String)> {
    membership.voter_ids().filter_map(|id| {
        let node = membership.get_node(&id)?;
        Some((NodeId(id), node.raft_addr.clone()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use commitlog::position::LogId;

    use super::*;
    use crate::membership::Node;
    use crate::network::presence::Process;
    use crate::watermarks::Watermarks;

    const LEADER: NodeId = NodeId(1);
    const BOOT: u64 = 77;

    /// Node 2, which follows node 1 in term 5.
    fn follower() -> Detector {
        let marks = Arc::new(Watermarks::opened(None, None, None));
        let vote = Some(RaftVote::new_committed(5, LEADER.0));
        let log = Arc::new(LogView::new(marks, vote, None, 0));
        Detector::new(NodeId(2), Arc::default(), log, Arc::default())
    }

    fn heartbeat(detector: &Detector, term: u64, boot_id: u64) {
        let vote = rpc::Vote { term, node_id: LEADER.0, committed: true };
        detector.heard_leader(LEADER, Some(&vote), boot_id);
    }

    fn sees(detector: &Detector, process: Process) -> bool {
        detector.presence.process(LEADER, process);
        detector.leader_is_gone()
    }

    #[test]
    fn a_leader_is_gone_when_its_address_refuses_or_another_process_answers() {
        let detector = follower();
        heartbeat(&detector, 5, BOOT);
        assert!(!sees(&detector, Process::Alive { boot_id: BOOT }));
        assert!(sees(&detector, Process::Refused));
        assert!(sees(&detector, Process::Alive { boot_id: BOOT + 1 }));
    }

    #[test]
    fn a_message_proves_that_an_address_which_refused_does_so_no_more() {
        let detector = follower();
        assert!(sees(&detector, Process::Refused), "it has not been started yet");
        heartbeat(&detector, 5, BOOT);
        assert!(!detector.leader_is_gone());
        assert!(sees(&detector, Process::Refused), "dialled again");
    }

    #[test]
    fn a_connection_that_merely_broke_proves_nothing() {
        let detector = follower();
        heartbeat(&detector, 5, BOOT);
        assert!(!sees(&detector, Process::Unknown));
    }

    #[test]
    fn a_restarted_process_that_leads_again_is_not_gone() {
        let detector = follower();
        heartbeat(&detector, 4, BOOT);
        heartbeat(&detector, 5, BOOT + 1);
        assert!(!sees(&detector, Process::Alive { boot_id: BOOT + 1 }));
    }

    #[test]
    fn a_process_that_was_never_heard_counts_as_gone_only_when_nobody_answers() {
        let detector = follower();
        heartbeat(&detector, 4, BOOT);
        assert!(!sees(&detector, Process::Alive { boot_id: BOOT + 1 }), "term 5 was not heard");
        assert!(sees(&detector, Process::Refused));
    }

    #[test]
    fn a_candidate_is_not_taken_for_a_leader() {
        let detector = follower();
        let vote = rpc::Vote { term: 5, node_id: LEADER.0, committed: false };
        detector.heard_leader(LEADER, Some(&vote), BOOT);
        assert!(!sees(&detector, Process::Alive { boot_id: BOOT + 1 }));
    }

    fn three() -> Membership {
        let nodes: BTreeMap<u64, Node> = (1..=3).map(|id| (id, Node::default())).collect();
        Membership::new(vec![BTreeSet::from([1, 2, 3])], nodes).unwrap()
    }

    fn witness(node: u64, index: u64) -> Witness {
        let last_log_id = Some(to_raft(LogId::new(5, index)));
        Witness { node: NodeId(node), last_log_id }
    }

    #[test]
    fn a_vote_given_to_another_is_respected_for_a_while() {
        let mut ballot = Ballot::default();
        let start = Instant::now();
        assert!(ballot.is_free(None, start));
        assert!(!ballot.is_free(Some((6, 3)), start));
        assert!(!ballot.is_free(Some((6, 3)), start + RESPECT / 2));
        assert!(ballot.is_free(Some((6, 3)), start + RESPECT));
        assert!(!ballot.is_free(Some((7, 3)), start + RESPECT), "a new candidacy");
        assert!(ballot.is_free(None, start + RESPECT));
    }

    #[test]
    fn one_cut_link_is_no_quorum() {
        let alone = weigh(&three(), witness(2, 9), &[]);
        assert!(!alone.is_quorum);
        let agreed = weigh(&three(), witness(2, 9), &[witness(3, 9)]);
        assert!(agreed.is_quorum);
    }

    #[test]
    fn the_longest_log_goes_first_then_the_lowest_id() {
        let first = |own, other| weigh(&three(), own, &[other]).first_in_line;
        assert!(first(witness(3, 10), witness(2, 9)));
        assert!(!first(witness(2, 9), witness(3, 10)));
        assert!(first(witness(2, 9), witness(3, 9)));
        assert!(!first(witness(3, 9), witness(2, 9)));
    }
}
