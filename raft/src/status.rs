//! What an operator sees of a replica.

use commitlog::position::{LogIndex, Term};

use crate::{GroupId, Member, NodeId, Role};

/// A replica at one moment. `purged <= applied <= committed <= last` holds in every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub node_id: NodeId,
    /// `None` until the node belongs to a group.
    pub group_id: Option<GroupId>,
    pub role: Role,
    pub term: Term,
    /// The leader of `term` as far as this node knows.
    pub leader: Option<NodeId>,
    /// Entries up to here are gone; `None` if none is. The others likewise: index of the last
    /// entry applied here, known to be committed, and in the log.
    pub purged: Option<LogIndex>,
    pub applied: Option<LogIndex>,
    pub committed: Option<LogIndex>,
    pub last: Option<LogIndex>,
    /// The replicated membership by ascending id; empty until the node knows it.
    pub members: Vec<Member>,
    /// Whom a node waits for that cannot take part yet.
    pub waiting_for: Vec<NodeId>,
    /// It came with `join`, and is not a member yet.
    pub waits_to_be_added: bool,
    /// It hands leadership away and does not stand for election.
    pub drained: bool,
    /// It may have lost acknowledged entries, and does not vote until it has caught up.
    pub suspect: bool,
}
