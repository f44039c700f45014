//! How much may be broken at a time.

use std::collections::{BTreeMap, BTreeSet};

/// Which nodes are impaired by which fault.
#[derive(Debug)]
pub(super) struct Budget {
    nodes: usize,
    held: BTreeMap<u64, Share>,
}

#[derive(Debug)]
struct Share {
    nodes: BTreeSet<usize>,
    /// Nothing else that impairs nodes may go on beside it.
    alone: bool,
}

impl Budget {
    pub(super) fn of(nodes: usize) -> Self {
        Self { nodes, held: BTreeMap::new() }
    }

    /// Nodes that are impaired now.
    pub(super) fn impaired(&self) -> BTreeSet<usize> {
        self.held.values().flat_map(|share| share.nodes.iter().copied()).collect()
    }

    /// Takes the nodes for a fault, if a majority is then still left alone, or if the fault is
    /// meant to take it and nobody else breaks anything.
    pub(super) fn take(&mut self, fault: u64, nodes: &BTreeSet<usize>, alone: bool) -> bool {
        let others = !self.impaired().is_empty() || self.held.values().any(|share| share.alone);
        let together: BTreeSet<usize> = self.impaired().union(nodes).copied().collect();
        let majority_lives = together.len() * 2 < self.nodes;
        let safe = match (alone, nodes.is_empty()) {
            (true, _) => !others,
            (false, true) => true,
            (false, false) => !self.held.values().any(|s| s.alone) && majority_lives,
        };
        if safe {
            self.held.insert(fault, Share { nodes: nodes.clone(), alone });
        }
        safe
    }

    pub(super) fn give_back(&mut self, fault: u64) {
        self.held.remove(&fault);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Budget;

    #[test]
    fn a_majority_is_left_alone_unless_the_fault_is_meant_to_take_it() {
        let mut budget = Budget::of(3);
        let (one, two, all) = (BTreeSet::from([0]), BTreeSet::from([1]), BTreeSet::from([0, 1, 2]));
        assert!(budget.take(1, &one, false));
        assert!(!budget.take(2, &two, false), "two of three");
        assert!(budget.take(3, &BTreeSet::new(), false), "it impairs nobody");
        assert!(!budget.take(4, &all, true), "something else is broken");
        budget.give_back(1);
        assert!(budget.take(4, &all, true));
        assert!(!budget.take(5, &one, false));
        assert!(budget.take(6, &BTreeSet::new(), false), "it impairs nobody");
        budget.give_back(4);
        assert!(budget.take(5, &one, false));
        let mut five = Budget::of(5);
        assert!(five.take(1, &one, false) && five.take(2, &two, false));
        assert!(!five.take(3, &BTreeSet::from([2]), false));
    }
}
