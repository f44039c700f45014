//! raftStatus.

use anyhow::Result;
use clap::Args;
use proto::{
    BrokerName,
    admin::{NodeStatus, PeerStatus, RaftStatusRequest, RaftStatusResponse, SnapshotProgress},
};
use serde_json::{Value, json};

use super::{Session, members::Group};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    group: Group,
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let status = ask(session, &self.group.broker).await?;
        let header = ["node", "role", "raft address", "matched", "lag", "rate", "eta", "heard", ""];
        let mut rows = Rows::new(header);
        for peer in &status.members {
            let node = peer.node.clone().unwrap_or_default();
            rows.push([
                node.node_id.to_string(),
                role(&status, &node).to_owned(),
                node.raft_address.clone(),
                known(peer.matched_index),
                lag(peer),
                format!("{}/s", bytes(peer.bytes_per_second)),
                peer.eta_ms.map_or("-".to_owned(), seconds),
                peer.last_contact_ms
                    .map_or("never".to_owned(), |ms| format!("{} ago", seconds(ms))),
                state(peer),
            ]);
        }
        let mut report = Report::new(as_json(&self.group.broker, &status)).line(format!(
            "broker {}, term {}, last entry {}: {}",
            self.group.broker, status.term, status.last_index, status.survives
        ));
        if !status.change.is_empty() {
            report = report.line(format!("in progress: {}", status.change));
        }
        report = report.rows(rows);
        for one in &status.waiting {
            let text = format!("node {} at {} waits to be added", one.node_id, one.raft_address);
            report = report.line(text);
        }
        Ok(report)
    }
}

/// The leader's word.
pub(super) async fn ask(
    session: &Session,
    broker: &BrokerName,
) -> Result<RaftStatusResponse, Failure> {
    let request = RaftStatusRequest { broker_name: broker.to_string() };
    let answer = session.call(request, |mut c, r| async move { c.raft_status(r).await }).await?;
    Failure::of(answer.error.clone())?;
    Ok(answer)
}

fn as_json(broker: &BrokerName, status: &RaftStatusResponse) -> Value {
    let member = |peer: &PeerStatus| {
        let node = peer.node.clone().unwrap_or_default();
        json!({
            "node_id": node.node_id,
            "role": role(status, &node),
            "raft_address": node.raft_address,
            "client_address": node.client_address,
            "matched_index": peer.matched_index,
            "lag_entries": peer.lag_entries,
            "lag_bytes": peer.lag_bytes,
            "bytes_per_second": peer.bytes_per_second,
            "eta_ms": peer.eta_ms,
            "last_contact_ms": peer.last_contact_ms,
            "connected": peer.connected,
            "drained": peer.drained,
            "snapshot": peer.snapshot.as_ref().map(|snapshot| json!({
                "sent_bytes": snapshot.sent_bytes,
                "total_bytes": snapshot.total_bytes,
                "spared_bytes": snapshot.spared_bytes,
                "bytes_per_second": snapshot.bytes_per_second,
                "eta_ms": snapshot.eta_ms,
            })),
        })
    };
    let waiting: Vec<Value> = status
        .waiting
        .iter()
        .map(|one| {
            json!({
                "node_id": one.node_id,
                "raft_address": one.raft_address,
                "client_address": one.client_address,
            })
        })
        .collect();
    json!({
        "broker": broker.as_str(),
        "term": status.term,
        "leader_id": status.leader_id,
        "last_index": status.last_index,
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "waiting": waiting,
        "change": status.change,
        "survives": status.survives,
    })
}

fn role(status: &RaftStatusResponse, node: &NodeStatus) -> &'static str {
    match (node.node_id == status.leader_id, node.voter) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "learner",
    }
}

fn state(peer: &PeerStatus) -> String {
    let state = match (peer.connected, peer.drained) {
        (false, _) => "not connected",
        (true, true) => "drained",
        (true, false) => "",
    };
    let snapshot = peer.snapshot.as_ref().map(snapshot);
    let parts = [Some(state.to_owned()).filter(|state| !state.is_empty()), snapshot];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How far the snapshot is that is on its way to a replica.
pub(super) fn snapshot(progress: &SnapshotProgress) -> String {
    format!(
        "gets a snapshot: {} of {} at {}/s, left: {}",
        bytes(progress.sent_bytes),
        bytes(progress.total_bytes),
        bytes(progress.bytes_per_second),
        progress.eta_ms.map_or("unknown".to_owned(), seconds),
    )
}

fn known(index: Option<u64>) -> String {
    index.map_or("-".to_owned(), |index| index.to_string())
}

fn lag(peer: &PeerStatus) -> String {
    match (peer.lag_entries, peer.lag_bytes) {
        (Some(entries), Some(lag)) => format!("{entries} ({})", bytes(lag)),
        _ => "-".to_owned(),
    }
}

fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
