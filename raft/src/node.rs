//! Who is in a broker group, and in which role.

use std::fmt;
use std::str::FromStr;

use commitlog::position::Term;

/// Number of a replica within its broker group. Never reused for other data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(NodeId)
    }
}

/// A replica, as the replicated membership knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub node_id: NodeId,
    /// Where its peers reach it.
    pub raft_addr: String,
    /// Where clients reach it: what it last told its peers.
    pub client_addr: String,
    /// Counts for quorums. A learner only follows.
    pub voter: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// Won its term, and has applied everything that was committed before.
    Leader,
    Follower,
    /// Replicates, does not vote. Also: a node whose group has not formed yet.
    Learner,
    /// Standing for election.
    Candidate,
}

impl RoleKind {
    /// As the status page spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleKind::Leader => "leader",
            RoleKind::Follower => "follower",
            RoleKind::Learner => "learner",
            RoleKind::Candidate => "candidate",
        }
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What this node is at the moment, and whom it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    pub kind: RoleKind,
    pub term: Term,
    /// The leader of `term` as far as this node knows; itself when it leads. A node that won but
    /// has not caught up yet names itself here while its `kind` is still `Follower`.
    pub leader: Option<NodeId>,
}

impl Role {
    pub fn is_leader(&self) -> bool {
        self.kind == RoleKind::Leader
    }
}

/// Space of the file system under a node's log, in bytes; all 0 while nobody has looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// What is in use, and what the node can still use.
    pub total: u64,
    /// What the node can still use.
    pub free: u64,
}
