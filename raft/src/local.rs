//! What this node tells others about itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use proto::raft_rpc as rpc;
use proto::wire;
use tokio::sync::watch;

use crate::bootstrap::decision::{Answer, Holding};
use crate::drain::Drain;
use crate::log_view::LogView;
use crate::roster::Roster;
use crate::watermarks::Marks;
use crate::{Config, DiskSpace, GroupId, NodeId};

#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) node: NodeId,
    pub(crate) broker_name: String,
    pub(crate) client_addr: String,
    /// As configured.
    pub(crate) peers: BTreeMap<NodeId, String>,
    /// Drawn when the process started: tells it from its successors.
    pub(crate) boot_id: u64,
    pub(crate) group: Arc<OnceLock<GroupId>>,
    pub(crate) feature_level: u32,
    /// Of the disk under the log, as last told by the layer above.
    disk: Mutex<DiskSpace>,
    /// Once the log is open.
    log: OnceLock<Arc<LogView>>,
    /// Where this node's peers reach it; empty if it does not know.
    pub(crate) raft_addr: String,
    /// It waits, or waited, to be added to a group that exists.
    pub(crate) joins: bool,
    /// The replicated membership with Raft addresses, committed or not.
    members: watch::Sender<BTreeMap<NodeId, String>>,
    /// The membership that was applied.
    pub(crate) roster: Arc<Roster>,
    pub(crate) drain: Arc<Drain>,
    /// It is to lead whenever it can.
    pub(crate) preferred: bool,
}

impl Local {
    pub(crate) fn new(config: &Config, group: Option<GroupId>) -> Local {
        let cell = OnceLock::new();
        if let Some(group) = group {
            cell.set(group).expect("just created");
        }
        Local {
            node: config.node_id,
            broker_name: config.broker_name.clone(),
            client_addr: config.client_addr.clone(),
            peers: config.peers.clone(),
            boot_id: rand::random(),
            group: Arc::new(cell),
            feature_level: config.feature_level,
            disk: Mutex::default(),
            log: OnceLock::new(),
            raft_addr: config.raft_addr().to_owned(),
            joins: !config.join.is_empty(),
            members: watch::Sender::default(),
            roster: Arc::default(),
            drain: Arc::default(),
            preferred: config.preferred_leader,
        }
    }

    pub(crate) fn log_opened(&self, log: Arc<LogView>) {
        self.log.set(log).expect("a log is opened once");
    }

    pub(crate) fn set_disk(&self, space: DiskSpace) {
        *self.disk.lock().expect("no holder panics") = space;
    }

    pub(crate) fn disk(&self) -> DiskSpace {
        *self.disk.lock().expect("no holder panics")
    }

    pub(crate) fn set_members(&self, members: BTreeMap<NodeId, String>) {
        self.members.send_if_modified(|before| {
            let differs = *before != members;
            *before = members;
            differs
        });
    }

    /// The replicated membership as far as this node knows it.
    pub(crate) fn members(&self) -> watch::Receiver<BTreeMap<NodeId, String>> {
        self.members.subscribe()
    }

    /// Whether a node is a peer of this one.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.peers.contains_key(&node) || self.members.borrow().contains_key(&node)
    }

    /// How far the log has come; nowhere before it is open.
    pub(crate) fn marks(&self) -> Marks {
        self.log.get().map(|log| log.watermarks.marks()).unwrap_or_default()
    }

    /// A node whose log is not open yet says that it holds no more than the identity; it then also
    /// takes no part in anything.
    pub(crate) fn holding(&self) -> Holding {
        let formed = self.log.get().is_some_and(|log| log.formed());
        match self.group.get() {
            None => Holding::Nothing,
            Some(&group) if formed => Holding::Formed(group),
            Some(&group) => Holding::Adopted(group),
        }
    }

    pub(crate) fn introduction(&self) -> rpc::Introduction {
        let holding = self.holding();
        let members = self.members.borrow();
        rpc::Introduction {
            node_id: self.node.0,
            broker_name: self.broker_name.clone(),
            boot_id: self.boot_id,
            client_addr: self.client_addr.clone(),
            peers: self
                .peers
                .iter()
                .map(|(id, addr)| rpc::Peer { node_id: id.0, raft_addr: addr.clone() })
                .collect(),
            group_id: holding
                .group()
                .map(|group| bytes::Bytes::copy_from_slice(&group.0.to_be_bytes()))
                .unwrap_or_default(),
            formed: matches!(holding, Holding::Formed(_)),
            members: members.keys().map(|node| node.0).collect(),
            raft_addr: self.raft_addr.clone(),
            wire_oldest: wire::ours().oldest(),
            wire_newest: wire::ours().newest(),
            feature_level: self.feature_level,
        }
    }
}

/// Refuses a peer that speaks no version of ours.
pub(crate) fn check_wire(from: &rpc::Introduction) -> Result<(), String> {
    let theirs = wire::Versions::told(from.wire_oldest, from.wire_newest);
    match wire::ours().meet(theirs) {
        Ok(_) => Ok(()),
        Err(mismatch) => Err(format!("node {}: {mismatch}", from.node_id)),
    }
}

/// A peer's introduction, as the decision takes it. `None` if its group id is malformed.
pub(crate) fn answer(from: &rpc::Introduction) -> Option<Answer> {
    let group = match from.group_id.len() {
        0 => None,
        _ => Some(group_id(&from.group_id)?),
    };
    let holding = match group {
        None => Holding::Nothing,
        Some(group) if from.formed => Holding::Formed(group),
        Some(group) => Holding::Adopted(group),
    };
    Some(Answer {
        node: NodeId(from.node_id),
        broker_name: from.broker_name.clone(),
        peers: from.peers.iter().map(|p| (NodeId(p.node_id), p.raft_addr.clone())).collect(),
        holding,
        members: from.members.iter().copied().map(NodeId).collect(),
    })
}

pub(crate) fn group_id(bytes: &[u8]) -> Option<GroupId> {
    Some(GroupId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_speaks_only_newer_versions_is_refused() {
        let says = |wire_oldest, wire_newest| {
            let from =
                rpc::Introduction { node_id: 3, wire_oldest, wire_newest, ..Default::default() };
            check_wire(&from)
        };
        assert_eq!((says(0, 0), says(1, 2)), (Ok(()), Ok(())));
        let text = says(2, 2).unwrap_err();
        assert!(text.contains("node 3") && text.contains("versions 2"), "{text}");
    }
}
