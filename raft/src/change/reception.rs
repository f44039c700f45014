//! Who may wait to be added: answers of members to a node that comes with `--join`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use proto::raft_rpc as rpc;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::progress::Waiting;
use crate::bootstrap::decision::{Answer, Holding};
use crate::local::{self, Local};
use crate::read_barrier::ReadBarrier;
use crate::roster::Listed;
use crate::{GroupId, NodeId, Role};

/// How long a quorum may take to confirm that this node leads.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that waits asks again sooner than this.
const WAITS_FOR: Duration = Duration::from_secs(5);

/// Those who asked to be added, and when they asked last.
pub(crate) struct Reception {
    pub(crate) local: Arc<Local>,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) barrier: Arc<OnceLock<ReadBarrier>>,
    pub(crate) segment_size: u64,
    waiting: Mutex<BTreeMap<NodeId, (Waiting, Instant)>>,
}

impl Reception {
    pub(crate) fn new(
        local: Arc<Local>,
        role: watch::Receiver<Role>,
        barrier: Arc<OnceLock<ReadBarrier>>,
        segment_size: u64,
    ) -> Reception {
        Reception { local, role, barrier, segment_size, waiting: Mutex::default() }
    }

    /// Who waits now, by ascending id.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let now = Instant::now();
        let members = self.local.members().borrow().clone();
        let mut waiting = self.waiting.lock().expect("no holder panics");
        waiting.retain(|node, (_, at)| now < *at + WAITS_FOR && !members.contains_key(node));
        waiting.values().map(|(waiting, _)| waiting.clone()).collect()
    }

    /// # Errors
    /// The request is malformed, or a quorum did not confirm that this node leads.
    pub(crate) async fn receive(
        &self,
        request: rpc::JoinRequest,
    ) -> Result<rpc::JoinResponse, Status> {
        let from = request.from.ok_or_else(|| Status::invalid_argument("no introduction"))?;
        let answer = local::answer(&from)
            .ok_or_else(|| Status::invalid_argument("a group id has 16 bytes"))?;
        if answer.broker_name != self.local.broker_name {
            let reason = format!("it belongs to broker {}", self.local.broker_name);
            return Ok(refused(reason));
        }
        let group = match self.local.holding() {
            Holding::Formed(group) => group,
            Holding::Nothing | Holding::Adopted(_) => return Ok(self.others()),
        };
        if !self.role.borrow().is_leader() {
            return Ok(self.others());
        }
        // Another leader may have been elected, and have changed the membership.
        let barrier = self.barrier.get().ok_or_else(|| Status::unavailable("not open yet"))?;
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        barrier
            .pass(deadline)
            .await
            .map_err(|_failed| Status::unavailable("a quorum does not confirm that it leads"))?;
        let asking = Asking { answer: &answer, addr: &from.raft_addr, group };
        let members = self.local.members().borrow().clone();
        let waiting = self.waiting();
        let known =
            Known { members: &members, listed: &self.local.roster.get(), waiting: &waiting };
        if request.segment_size != self.segment_size {
            let (ours, theirs) = (self.segment_size, request.segment_size);
            return Ok(refused(format!(
                "log.segment_size is {ours} bytes in this group, and {theirs} there"
            )));
        }
        if let Err(reason) = may_wait(&known, &asking) {
            return Ok(refused(reason));
        }
        let waits = Waiting {
            node_id: answer.node,
            raft_addr: from.raft_addr.clone(),
            client_addr: from.client_addr.clone(),
        };
        let mut waiting = self.waiting.lock().expect("no holder panics");
        if waiting.insert(answer.node, (waits, Instant::now())).is_none() {
            tracing::info!(node = %answer.node, addr = %from.raft_addr, "a node waits to be added");
        }
        let group_id = Bytes::copy_from_slice(&group.0.to_be_bytes());
        Ok(rpc::JoinResponse { group_id, ..Default::default() })
    }

    /// Everybody else who may know.
    fn others(&self) -> rpc::JoinResponse {
        let leader = self.role.borrow().leader;
        let members = self.local.members().borrow().clone();
        let members = if members.is_empty() { self.local.peers.clone() } else { members };
        let mut members: Vec<_> =
            members.into_iter().filter(|(node, _)| *node != self.local.node).collect();
        members.sort_by_key(|(node, _)| (Some(*node) != leader, *node));
        let peer = |(node, raft_addr): (NodeId, String)| rpc::Peer { node_id: node.0, raft_addr };
        let members = members.into_iter().map(peer).collect();
        rpc::JoinResponse { members, ..Default::default() }
    }
}

fn refused(reason: String) -> rpc::JoinResponse {
    rpc::JoinResponse { refused: reason, ..Default::default() }
}

/// Who asks to be let in.
struct Asking<'a> {
    answer: &'a Answer,
    /// Where its peers are to reach it.
    addr: &'a str,
    /// Which group it asks.
    group: GroupId,
}

/// What a confirmed leader knows.
struct Known<'a> {
    members: &'a BTreeMap<NodeId, String>,
    listed: &'a Listed,
    waiting: &'a [Waiting],
}

/// Why the node must not wait in this group, or wait any longer.
fn may_wait(known: &Known<'_>, asking: &Asking<'_>) -> Result<(), String> {
    let Asking { answer, addr, group } = asking;
    let node = answer.node;
    if let Some(theirs) = answer.holding.group().filter(|theirs| theirs != group) {
        return Err(format!("this is group {group}, and the data directory belongs to {theirs}"));
    }
    match (known.members.get(&node), answer.holding) {
        // It was just added.
        (Some(at), Holding::Adopted(_)) if at == addr => return Ok(()),
        (Some(at), Holding::Nothing) => {
            return Err(format!(
                "node {node} at {at} is a member, and this data directory is empty; a node that \
                 lost its data must come back under a new id"
            ));
        }
        (Some(at), Holding::Adopted(_) | Holding::Formed(_)) => {
            return Err(format!("node {node} is a member already, at {at}"));
        }
        (None, _) => {}
    }
    let highest = known.members.keys().map(|node| node.0).max();
    let highest = highest.unwrap_or(0).max(known.listed.highest);
    if node.0 <= highest {
        let free = highest + 1;
        return Err(format!(
            "node id {node} was used before or is below one that was, and no id is used twice; \
             {free} is free"
        ));
    }
    if let Some((by, _)) = known.members.iter().find(|(_, at)| at == addr) {
        return Err(format!("{addr} is the address of node {by}"));
    }
    let other = known.waiting.iter().find(|one| one.node_id == node && one.raft_addr != *addr);
    if let Some(other) = other {
        return Err(format!("another node waits under the id {node}, at {}", other.raft_addr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: GroupId = GroupId(7);

    fn answer(node: u64, holding: Holding) -> Answer {
        let (broker_name, peers) = ("broker-a".into(), BTreeMap::new());
        Answer { node: NodeId(node), broker_name, peers, holding, members: [].into() }
    }

    /// What members 1 to 3 say, node 5 having been removed, and node 6 waiting.
    fn asks(node: u64, holding: Holding, addr: &str) -> Result<(), String> {
        let members = (1..=3).map(|id| (NodeId(id), format!("r{id}"))).collect();
        let listed = Listed { nodes: BTreeMap::new(), highest: 5 };
        let (raft_addr, client_addr) = ("r6".into(), String::new());
        let waiting = [Waiting { node_id: NodeId(6), raft_addr, client_addr }];
        let known = Known { members: &members, listed: &listed, waiting: &waiting };
        may_wait(&known, &Asking { answer: &answer(node, holding), addr, group: OURS })
    }

    #[test]
    fn a_fresh_id_may_wait_and_may_ask_again() {
        assert_eq!(asks(7, Holding::Nothing, "r7"), Ok(()));
        assert_eq!(asks(6, Holding::Adopted(OURS), "r6"), Ok(()));
        assert_eq!(asks(3, Holding::Adopted(OURS), "r3"), Ok(()), "just added");
    }

    #[test]
    fn a_wiped_member_and_every_id_that_was_used_are_refused() {
        assert!(asks(3, Holding::Nothing, "r3").unwrap_err().contains("lost its data"));
        assert!(asks(5, Holding::Nothing, "r5").unwrap_err().contains("6 is free"));
        assert!(asks(4, Holding::Nothing, "r4").unwrap_err().contains("no id is used twice"));
        assert!(asks(5, Holding::Formed(OURS), "r5").is_err());
    }

    #[test]
    fn another_groups_node_and_an_address_in_use_are_refused() {
        let other = GroupId(8);
        assert!(asks(7, Holding::Formed(other), "r7").unwrap_err().contains("group"));
        assert!(asks(7, Holding::Nothing, "r2").unwrap_err().contains("address of node 2"));
        assert!(asks(6, Holding::Nothing, "r7").unwrap_err().contains("another node waits"));
    }
}
