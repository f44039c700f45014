//! Which changes of the membership are allowed. Pure: no clock, no network.
//!
//! A change must leave a majority that can go on at once: voters that are connected and lag so
//! little that they can store the next entry in the time of a heartbeat or two.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, ChangeRefusal};
use crate::NodeId;
use crate::membership::Membership;

/// A voter must not lag by more, or the group would stand still until it has caught up.
pub(crate) const LAG_BYTES_MAX: u64 = 16 << 20;
pub(crate) const LAG_ENTRIES_MAX: u64 = 1_000;

/// How far a replica is behind its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    pub entries: u64,
    /// Of the log.
    pub bytes: u64,
}

impl Lag {
    /// Whether a replica with this lag can vote without holding the group up.
    pub fn is_small(&self) -> bool {
        self.bytes <= LAG_BYTES_MAX && self.entries <= LAG_ENTRIES_MAX
    }
}

/// How the leader sees another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) connected: bool,
    /// `None`: it has not answered yet.
    pub(crate) lag: Option<Lag>,
}

/// The group, as its leader sees it.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) leader: NodeId,
    /// The last one in the log, with one set of voters.
    pub(crate) membership: Membership,
    /// No member ever had a higher id.
    pub(crate) highest: u64,
    pub(crate) standing: BTreeMap<NodeId, Standing>,
}

/// What is to be done, once it is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    AddLearner(NodeId, String),
    /// The voters are to be these; who stops being one stays as a learner.
    Voters(BTreeSet<u64>),
    /// Of a learner.
    Forget(NodeId),
    Readdress(NodeId, String),
    /// Another node must lead first.
    HandOver,
}

/// The steps of `change`, in order; none if it was made before.
///
/// # Errors
/// Why it must not be made now. Nothing has happened.
pub(crate) fn steps(scene: &Scene, change: &Change) -> Result<Vec<Step>, ChangeRefusal> {
    match change {
        Change::AddLearner { node, raft_addr } => scene.add_learner(*node, raft_addr),
        Change::Promote { node } => scene.promote(*node),
        Change::Demote { node } => scene.demote(*node),
        Change::Remove { node } => scene.remove(*node),
        Change::Replace { old, with } => scene.replace(*old, *with),
        Change::UpdateAddress { node, raft_addr } => scene.readdress(*node, raft_addr),
    }
}

impl Scene {
    fn add_learner(&self, node: NodeId, addr: &str) -> Result<Vec<Step>, ChangeRefusal> {
        if let Some(known) = self.membership.get_node(&node.0) {
            if known.raft_addr == addr {
                return Ok(Vec::new());
            }
            let at = known.raft_addr.clone();
            return Err(ChangeRefusal::IsMember { node, at });
        }
        if node.0 <= self.highest {
            return Err(ChangeRefusal::IdUsed { node, free: NodeId(self.highest + 1) });
        }
        self.address_is_free(node, addr)?;
        Ok(vec![Step::AddLearner(node, addr.to_owned())])
    }

    fn promote(&self, node: NodeId) -> Result<Vec<Step>, ChangeRefusal> {
        self.known(node)?;
        let mut voters = self.voters();
        if !voters.insert(node.0) {
            return Ok(Vec::new());
        }
        self.can_vote(node)?;
        self.keeps_quorum(&voters)?;
        Ok(vec![Step::Voters(voters)])
    }

    fn demote(&self, node: NodeId) -> Result<Vec<Step>, ChangeRefusal> {
        self.known(node)?;
        let mut voters = self.voters();
        if !voters.remove(&node.0) {
            return Ok(Vec::new());
        }
        if voters.is_empty() {
            return Err(ChangeRefusal::LastVoter { node });
        }
        self.keeps_quorum(&voters)?;
        if node == self.leader {
            return Ok(vec![Step::HandOver]);
        }
        Ok(vec![Step::Voters(voters)])
    }

    fn remove(&self, node: NodeId) -> Result<Vec<Step>, ChangeRefusal> {
        if self.is_gone(node) {
            return Ok(Vec::new());
        }
        let mut steps = self.demote(node)?;
        if steps != [Step::HandOver] {
            steps.push(Step::Forget(node));
        }
        Ok(steps)
    }

    fn replace(&self, old: NodeId, with: NodeId) -> Result<Vec<Step>, ChangeRefusal> {
        if old == with {
            return Err(ChangeRefusal::ReplacedByItself { node: old });
        }
        self.known(with)?;
        let before = self.voters();
        if self.is_gone(old) {
            // What may be left to do is what the first attempt did not come to.
            return self.promote(with);
        }
        self.known(old)?;
        let was_voter = before.contains(&old.0);
        let mut voters = before.clone();
        voters.remove(&old.0);
        if was_voter {
            voters.insert(with.0);
        }
        let mut steps = Vec::new();
        if voters != before {
            if !before.contains(&with.0) {
                self.can_vote(with)?;
            }
            self.keeps_quorum(&voters)?;
            if old == self.leader {
                return Ok(vec![Step::HandOver]);
            }
            steps.push(Step::Voters(voters));
        }
        steps.push(Step::Forget(old));
        Ok(steps)
    }

    fn readdress(&self, node: NodeId, addr: &str) -> Result<Vec<Step>, ChangeRefusal> {
        self.known(node)?;
        let now = self.membership.get_node(&node.0).map(|known| known.raft_addr.as_str());
        if now == Some(addr) {
            return Ok(Vec::new());
        }
        self.address_is_free(node, addr)?;
        Ok(vec![Step::Readdress(node, addr.to_owned())])
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.membership.voter_ids().collect()
    }

    /// It was a member, and is none any more.
    fn is_gone(&self, node: NodeId) -> bool {
        node.0 <= self.highest && self.membership.get_node(&node.0).is_none()
    }

    fn known(&self, node: NodeId) -> Result<(), ChangeRefusal> {
        if self.membership.get_node(&node.0).is_some() {
            return Ok(());
        }
        let members = self.membership.nodes().map(|(id, _)| NodeId(*id)).collect();
        Err(ChangeRefusal::NotMember { node, members })
    }

    fn address_is_free(&self, node: NodeId, addr: &str) -> Result<(), ChangeRefusal> {
        let holder =
            self.membership.nodes().find(|(id, known)| **id != node.0 && known.raft_addr == addr);
        match holder {
            None => Ok(()),
            Some((id, _)) => {
                Err(ChangeRefusal::AddressTaken { addr: addr.to_owned(), by: NodeId(*id) })
            }
        }
    }

    /// Whether a learner is ready to vote.
    fn can_vote(&self, node: NodeId) -> Result<(), ChangeRefusal> {
        match self.standing.get(&node) {
            Some(Standing { connected: true, lag: Some(lag) }) if lag.is_small() => Ok(()),
            Some(Standing { connected: true, lag: Some(lag) }) => {
                Err(ChangeRefusal::Lags { node, lag: *lag })
            }
            Some(_) | None => Err(ChangeRefusal::NotConnected { node }),
        }
    }

    /// Whether a majority of `voters` can go on at once.
    fn keeps_quorum(&self, voters: &BTreeSet<u64>) -> Result<(), ChangeRefusal> {
        let fit = |id: &u64| NodeId(*id) == self.leader || self.can_vote(NodeId(*id)).is_ok();
        let (fit, unfit): (Vec<u64>, Vec<u64>) = voters.iter().copied().partition(fit);
        let needed = voters.len() / 2 + 1;
        if fit.len() >= needed {
            return Ok(());
        }
        let unfit = unfit.into_iter().map(NodeId).collect();
        Err(ChangeRefusal::NoQuorum { voters: voters.len(), needed, fit: fit.len(), unfit })
    }
}

/// What a group of so many voters does not survive, where it is worth a warning.
pub(crate) fn survives(voters: usize) -> String {
    let may_fail = voters.saturating_sub(1) / 2;
    match (voters, may_fail) {
        (1, _) => "1 voter: the group stops when it fails, and its disk is the only copy that \
                   counts"
            .to_owned(),
        (2, _) => "2 voters: the group stops when either of them fails; add a third".to_owned(),
        (voters, 1) => format!("{voters} voters: the group goes on when one of them fails"),
        (voters, may_fail) => {
            format!("{voters} voters: the group goes on when {may_fail} of them fail")
        }
    }
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
