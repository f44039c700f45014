//! Changes of the membership while the group works: by its leader, one at a time.
//!
//! [`rules`] decides what is allowed, [`changer`] does it. A node becomes a voter only after it has caught
//! up as a learner, and a voter that goes becomes a learner first, so that a change that a crash
//! interrupts leaves a group that works, and can simply be made again. What a dead leader left half
//! done, two sets of voters at once, its successor finishes ([`finish`]).

pub(crate) mod changer;
pub(crate) mod finish;
pub(crate) mod progress;
pub(crate) mod reception;
mod report;
pub(crate) mod rules;
pub(crate) mod turn;

use std::fmt;

pub use self::progress::{MemberProgress, Replication, Waiting};
pub use self::rules::Lag;

use crate::transfer::TransferError;
use crate::{Member, NodeId};

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a node that waits at this address (`--join`). It follows, and has no vote.
    AddLearner { node: NodeId, raft_addr: String },
    /// Gives a learner that has caught up a vote.
    Promote { node: NodeId },
    /// Takes a voter's vote; it goes on following.
    Demote { node: NodeId },
    /// Takes a node out for good.
    Remove { node: NodeId },
    /// Gives `old`'s vote to the learner `with`, and takes `old` out for good.
    Replace { old: NodeId, with: NodeId },
    /// A member that is the same node with the same data is reached at another address.
    UpdateAddress { node: NodeId, raft_addr: String },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddLearner { node, raft_addr } => {
                write!(f, "add node {node} at {raft_addr} as a learner")
            }
            Change::Promote { node } => write!(f, "promote node {node}"),
            Change::Demote { node } => write!(f, "demote node {node}"),
            Change::Remove { node } => write!(f, "remove node {node}"),
            Change::Replace { old, with } => write!(f, "replace node {old} with node {with}"),
            Change::UpdateAddress { node, raft_addr } => {
                write!(f, "change the address of node {node} to {raft_addr}")
            }
        }
    }
}

/// How a change that was made, or had been made before, has left the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub members: Vec<Member>,
    /// What the group survives now.
    pub survives: String,
}

/// Why a change was not made, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Not done: another node leads, or is about to because this one has handed over for the change.
    #[error("this node does not lead")]
    NotLeader,
    /// Not done: another change is being made.
    #[error("another change of the membership is being made: {0}")]
    Busy(String),
    /// Not done, and not to be done as things are.
    #[error(transparent)]
    Refused(#[from] ChangeRefusal),
    /// Not done: the leader is to go, and nobody took over.
    #[error("hand leadership over first")]
    NotHandedOver(#[source] TransferError),
    /// It was begun and may still be made. The next try goes on where it stopped.
    #[error("{0}: begun, and not known to be done")]
    Unfinished(String),
    #[error("the node is stopping")]
    Stopped,
}

/// Why a change must not be made as things are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    #[error("node {node} is not a member; the members are {}", list(members))]
    NotMember { node: NodeId, members: Vec<NodeId> },
    #[error("node {node} is a member already, at {at}")]
    IsMember { node: NodeId, at: String },
    #[error(
        "node id {node} was used before or is below one that was, and no id is used twice: a node \
         that lost its data would vote as if it had not; {free} is free"
    )]
    IdUsed { node: NodeId, free: NodeId },
    #[error("{addr} is the address of node {by}")]
    AddressTaken { addr: String, by: NodeId },
    #[error("node {node} lags by {} entries and {} bytes; wait until it has caught up", lag.entries, lag.bytes)]
    Lags { node: NodeId, lag: Lag },
    #[error("node {node} is not connected, or has not answered yet")]
    NotConnected { node: NodeId },
    #[error(
        "{needed} of the {voters} voters that there would be are needed, and only {fit} are \
         connected and caught up; not node {}",
        list(unfit)
    )]
    NoQuorum { voters: usize, needed: usize, fit: usize, unfit: Vec<NodeId> },
    #[error("node {node} is the only voter")]
    LastVoter { node: NodeId },
    #[error(
        "node {node} cannot be replaced by itself; a machine that lost its data needs a new id"
    )]
    ReplacedByItself { node: NodeId },
    #[error("{addr} does not answer as node {node}: {reason}")]
    NotThere { node: NodeId, addr: String, reason: String },
    #[error("consensus does not take it: {reason}")]
    Consensus { reason: String },
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}
