//! Members of this broker group, as administrators see and change them over the wire.

use std::time::Duration;

use proto::{
    admin::{
        ChangeMembershipRequest, ChangeMembershipResponse, DrainRequest, DrainResponse,
        Error as WireError, NodeStatus, PeerStatus, RaftStatusResponse, SnapshotProgress,
        WaitingNode, change_membership_request::Change as Wire, error::Fate,
    },
    clock::millis,
};
use raft::{Change, ChangeError, ChangeRefusal, Member, MemberProgress, NodeId, Replication};

use super::admin::deadline;
use crate::ops::Broker;

/// Another node may do better.
pub(super) struct NotLeading;

pub(super) async fn change(
    broker: &Broker,
    request: ChangeMembershipRequest,
) -> Result<ChangeMembershipResponse, NotLeading> {
    let refused = |fate, message| {
        let error = Some(error(fate, message));
        Ok(ChangeMembershipResponse { error, ..Default::default() })
    };
    let change = match wanted(broker, request) {
        Ok(change) => change,
        Err(message) => return refused(Fate::Rejected, message),
    };
    let made = match broker.group.change(change, deadline()).await {
        Ok(changed) => {
            return Ok(ChangeMembershipResponse {
                error: None,
                members: changed.members.iter().map(node).collect(),
                survives: changed.survives,
            });
        }
        Err(made) => made,
    };
    let fate = match &made {
        ChangeError::NotLeader => return Err(NotLeading),
        ChangeError::Busy(_) | ChangeError::NotHandedOver(_) | ChangeError::Stopped => {
            Fate::NotDone
        }
        // It comes by itself.
        ChangeError::Refused(ChangeRefusal::Lags { .. } | ChangeRefusal::NotConnected { .. }) => {
            Fate::NotDone
        }
        ChangeError::Refused(_) => Fate::Rejected,
        ChangeError::Unfinished(_) => Fate::Unknown,
    };
    let message = match &made {
        ChangeError::NotHandedOver(source) => format!("{made}: {source}"),
        made => made.to_string(),
    };
    refused(fate, message)
}

fn wanted(broker: &Broker, request: ChangeMembershipRequest) -> Result<Change, String> {
    Ok(match request.change.ok_or("the change is missing")? {
        Wire::AddLearner(add) => {
            let node = id(add.node_id)?;
            let raft_addr = match add.raft_address {
                given if !given.is_empty() => given,
                _ => waits_at(broker, node)?,
            };
            Change::AddLearner { node, raft_addr }
        }
        Wire::Promote(node) => Change::Promote { node: id(node)? },
        Wire::Demote(node) => Change::Demote { node: id(node)? },
        Wire::Remove(node) => Change::Remove { node: id(node)? },
        Wire::Replace(replace) => {
            Change::Replace { old: id(replace.old)?, with: id(replace.with)? }
        }
        Wire::Update(update) if update.raft_address.is_empty() => {
            return Err("the new address is missing".to_owned());
        }
        Wire::Update(update) => {
            Change::UpdateAddress { node: id(update.node_id)?, raft_addr: update.raft_address }
        }
    })
}

fn id(node: u64) -> Result<NodeId, String> {
    if node == 0 {
        return Err("a node id is at least 1".to_owned());
    }
    Ok(NodeId(node))
}

/// Where a node said that it waits, or is a member already.
fn waits_at(broker: &Broker, node: NodeId) -> Result<String, String> {
    let replication = broker.group.replication();
    let waiting = replication.map(|replication| replication.waiting).unwrap_or_default();
    let waits = waiting.iter().find(|one| one.node_id == node).map(|one| one.raft_addr.clone());
    let member = || {
        let members = broker.group.status().members;
        members.into_iter().find(|member| member.node_id == node).map(|member| member.raft_addr)
    };
    waits.or_else(member).ok_or_else(|| {
        let others: Vec<String> = waiting.iter().map(|one| one.node_id.to_string()).collect();
        let others = if others.is_empty() { "none does".into() } else { others.join(", ") };
        format!(
            "no node {node} waits to be added (waiting: {others}); start it with --join, an empty \
             data directory and --node-id {node}"
        )
    })
}

/// `None` unless this node leads.
pub(super) fn status(broker: &Broker) -> Option<RaftStatusResponse> {
    let Replication { term, leader, last, members, waiting, change, survives } =
        broker.group.replication()?;
    let waiting = waiting.into_iter().map(|one| WaitingNode {
        node_id: one.node_id.0,
        raft_address: one.raft_addr,
        client_address: one.client_addr,
    });
    Some(RaftStatusResponse {
        error: None,
        term: term.0,
        leader_id: leader.0,
        last_index: last.map_or(0, |last| last.0),
        members: members.iter().map(peer).collect(),
        waiting: waiting.collect(),
        change: change.unwrap_or_default(),
        survives,
    })
}

fn peer(progress: &MemberProgress) -> PeerStatus {
    let ms = |duration: Option<Duration>| duration.map(millis);
    PeerStatus {
        node: Some(node(&progress.member)),
        matched_index: progress.matched.map(|matched| matched.0),
        lag_entries: progress.lag.map(|lag| lag.entries),
        lag_bytes: progress.lag.map(|lag| lag.bytes),
        bytes_per_second: progress.bytes_per_second,
        eta_ms: ms(progress.eta),
        last_contact_ms: ms(progress.last_contact),
        connected: progress.connected,
        drained: progress.drained,
        snapshot: progress.snapshot.map(|snapshot| SnapshotProgress {
            sent_bytes: snapshot.sent,
            total_bytes: snapshot.total,
            spared_bytes: snapshot.spared,
            bytes_per_second: snapshot.bytes_per_second,
            eta_ms: ms(snapshot.eta),
        }),
    }
}

fn node(member: &Member) -> NodeStatus {
    NodeStatus {
        node_id: member.node_id.0,
        raft_address: member.raft_addr.clone(),
        client_address: member.client_addr.clone(),
        voter: member.voter,
    }
}

pub(super) async fn drain(broker: &Broker, request: DrainRequest) -> DrainResponse {
    let own = broker.group.status().node_id;
    if request.broker_name != broker.name().as_str() || request.node_id != own.0 {
        let text = format!("this is node {own} of broker {}", broker.name());
        return DrainResponse { error: Some(error(Fate::Rejected, text)) };
    }
    let drained = broker.group.drain(request.on).await;
    let error = drained.err().map(|problem| {
        let source = std::error::Error::source(&problem).map(|source| format!(": {source}"));
        error(Fate::NotDone, format!("{problem}{}", source.unwrap_or_default()))
    });
    DrainResponse { error }
}

fn error(fate: Fate, message: String) -> WireError {
    WireError { fate: fate.into(), message }
}
