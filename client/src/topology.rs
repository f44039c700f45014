//! Who leads which broker group, where the access point tells it. No IO.

use std::collections::HashMap;

use proto::registry;

use crate::address::Address;

/// The leaders' client addresses by broker name.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    leaders: HashMap<String, Leader>,
    /// Which NameServer process told it; another one may know less for a while.
    boot_id: u64,
    version: u64,
}

#[derive(Debug)]
struct Leader {
    term: u64,
    address: Address,
}

impl Topology {
    pub(crate) fn leader(&self, broker_name: &str) -> Option<&Address> {
        self.leaders.get(broker_name).map(|leader| &leader.address)
    }

    /// Takes over what a NameServer says; whether a leader changed. The highest term wins, since
    /// NameServers hear of a change at different times.
    pub(crate) fn learn(&mut self, said: &registry::SnapshotResponse) -> bool {
        if said.boot_id == self.boot_id && said.version == self.version {
            return false;
        }
        (self.boot_id, self.version) = (said.boot_id, said.version);
        let mut changed = false;
        for group in &said.groups {
            let leader = group.alive.iter().find(|member| member.node_id == group.leader_id);
            let Some(address) = leader.and_then(|member| member.client_address.parse().ok()) else {
                continue;
            };
            let known = self.leaders.get(&group.broker_name);
            if known.is_some_and(|known| known.term > group.term || known.address == address) {
                continue;
            }
            let leader = Leader { term: group.term, address };
            self.leaders.insert(group.broker_name.clone(), leader);
            changed = true;
        }
        changed
    }

    /// Somebody who should lead does not answer: it is not named again before a NameServer says so.
    pub(crate) fn doubt(&mut self, address: &Address) {
        self.leaders.retain(|_, leader| leader.address != *address);
        // What was said last may be said again and must count.
        self.version = u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(version: u64, term: u64, leader_id: u64) -> registry::SnapshotResponse {
        let member = |node_id| registry::Member {
            node_id,
            client_address: format!("10.0.0.{node_id}:8081"),
            ..Default::default()
        };
        let group = registry::GroupRoute {
            broker_name: "broker-a".into(),
            term,
            leader_id,
            alive: vec![member(1), member(2)],
            ..Default::default()
        };
        registry::SnapshotResponse { version, groups: vec![group], ..Default::default() }
    }

    fn leader(topology: &Topology) -> Option<&str> {
        topology.leader("broker-a").map(Address::as_str)
    }

    #[test]
    fn the_highest_term_wins() {
        let mut topology = Topology::default();
        assert_eq!(leader(&topology), None);
        assert!(topology.learn(&said(1, 5, 1)));
        assert_eq!(leader(&topology), Some("10.0.0.1:8081"));
        assert!(!topology.learn(&said(2, 4, 2)), "an old leader");
        assert!(topology.learn(&said(3, 6, 2)));
        assert_eq!(leader(&topology), Some("10.0.0.2:8081"));
    }

    #[test]
    fn a_group_without_a_living_leader_keeps_what_is_known() {
        let mut topology = Topology::default();
        topology.learn(&said(1, 5, 1));
        assert!(!topology.learn(&said(2, 6, 0)));
        assert_eq!(leader(&topology), Some("10.0.0.1:8081"));
    }

    #[test]
    fn a_leader_in_doubt_is_forgotten_until_it_is_named_again() {
        let mut topology = Topology::default();
        topology.learn(&said(1, 5, 1));
        topology.doubt(&"10.0.0.1:8081".parse().unwrap());
        assert_eq!(leader(&topology), None);
        assert!(topology.learn(&said(1, 5, 1)));
    }
}
