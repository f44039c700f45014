//! Who belongs to the group, and who ever did, by what this node has applied.
//!
//! What is applied is committed, so that none of it is ever taken back: a node that is missing here
//! although its id is not above the highest was removed, for good, because no id is used twice. An
//! id that could be used twice would let a node vote that has forgotten for whom it voted before.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::NodeId;
use crate::membership::{Membership, Node, highest_of};

/// The membership that was applied last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// No member ever had a higher id; 0 while there never was a member.
    pub(crate) highest: u64,
}

impl Listed {
    /// Whether the node was a member and is none any more.
    pub(crate) fn has_removed(&self, node: NodeId) -> bool {
        node.0 <= self.highest && !self.nodes.contains_key(&node)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Roster(watch::Sender<Listed>);

impl Roster {
    /// `membership` was applied; `highest` is what was kept with it.
    pub(crate) fn apply(&self, membership: &Membership, highest: u64) {
        let nodes = membership.nodes().map(|(id, node)| (NodeId(*id), node.clone())).collect();
        let highest = highest.max(highest_of(membership));
        self.0.send_if_modified(|listed| {
            assert!(listed.highest <= highest, "the highest id goes back from {}", listed.highest);
            let new = Listed { nodes, highest };
            let differs = *listed != new;
            *listed = new;
            differs
        });
    }

    pub(crate) fn get(&self) -> Listed {
        self.0.borrow().clone()
    }

    pub(crate) fn highest(&self) -> u64 {
        self.0.borrow().highest
    }

    pub(crate) fn has_removed(&self, node: NodeId) -> bool {
        self.0.borrow().has_removed(node)
    }

    pub(crate) fn changed(&self) -> watch::Receiver<Listed> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(ids: &[u64]) -> Membership {
        let nodes: BTreeMap<u64, Node> = ids.iter().map(|id| (*id, Node::default())).collect();
        Membership::new(vec![BTreeSet::from([ids[0]])], nodes).unwrap()
    }

    #[test]
    fn a_member_that_is_gone_was_removed_and_a_node_to_come_was_not() {
        let roster = Roster::default();
        assert!(!roster.has_removed(NodeId(1)), "there is no group yet");
        roster.apply(&of(&[1, 2, 4]), 0);
        assert!(!roster.has_removed(NodeId(4)) && !roster.has_removed(NodeId(5)));
        roster.apply(&of(&[1, 2]), 4);
        assert!(roster.has_removed(NodeId(4)) && !roster.has_removed(NodeId(5)));
        assert!(roster.has_removed(NodeId(3)), "ids below the highest are not given out");
    }
}
