//! clusterList, transferLeader.

use anyhow::{Result, bail};
use clap::Args;
use proto::{
    BrokerName,
    admin::{GroupStatus, NodeStatus, TransferLeaderRequest},
};
use serde_json::{Value, json};

use super::Session;
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct List {
    /// Only this cluster.
    #[arg(short = 'c', long = "clusterName")]
    cluster: Option<String>,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let mut groups = session.broker_groups().await?;
        groups.retain(|group| self.cluster.as_ref().is_none_or(|name| group.cluster == *name));
        groups.sort_by(|a, b| (&a.cluster, &a.broker_name).cmp(&(&b.cluster, &b.broker_name)));
        let header = [
            "cluster",
            "broker",
            "node",
            "role",
            "client address",
            "raft address",
            "term",
            "flush",
        ];
        let mut rows = Rows::new(header);
        for group in &groups {
            if group.members.is_empty() {
                let unheard = ["", &group.broker_name, "", "not heard of", "", "", "", ""];
                rows.push(unheard.map(str::to_owned));
            }
            for node in &group.members {
                rows.push([
                    group.cluster.clone(),
                    group.broker_name.clone(),
                    node.node_id.to_string(),
                    role(group, node).into(),
                    node.client_address.clone(),
                    node.raft_address.clone(),
                    group.term.to_string(),
                    group.flush.clone(),
                ]);
            }
        }
        let json = groups.iter().map(as_json).collect::<Vec<_>>();
        Ok(Report::new(json!({ "brokers": json })).rows(rows))
    }
}

fn role(group: &GroupStatus, node: &NodeStatus) -> &'static str {
    if node.node_id == group.leader_id {
        "leader"
    } else if node.voter {
        "follower"
    } else {
        "learner"
    }
}

fn as_json(group: &GroupStatus) -> Value {
    let node = |node: &NodeStatus| {
        json!({
            "node_id": node.node_id,
            "role": role(group, node),
            "client_address": node.client_address,
            "raft_address": node.raft_address,
        })
    };
    json!({
        "cluster": group.cluster,
        "broker": group.broker_name,
        "group_id": group.group_id,
        "term": group.term,
        "leader_id": group.leader_id,
        "flush": group.flush,
        "members": group.members.iter().map(node).collect::<Vec<_>>(),
    })
}

/// The names of all brokers of a cluster.
pub(super) async fn brokers_of(session: &Session, cluster: &str) -> Result<Vec<String>> {
    let groups = session.broker_groups().await?;
    let names: Vec<_> = groups
        .iter()
        .filter(|group| group.cluster == cluster)
        .map(|group| group.broker_name.clone())
        .collect();
    if names.is_empty() {
        let mut known: Vec<_> = groups.into_iter().map(|group| group.cluster).collect();
        known.sort_unstable();
        known.dedup();
        bail!(Failure::Rejected(format!(
            "there is no cluster {cluster:?}; {} knows: {}",
            session.address,
            if known.is_empty() { "none".into() } else { known.join(", ") }
        )));
    }
    Ok(names)
}

/// Broker names from a list of names and client addresses.
pub(super) async fn broker_names(session: &Session, list: &str) -> Result<Vec<String>> {
    let groups = session.broker_groups().await?;
    let mut names = Vec::new();
    for wanted in list.split(',').map(str::trim).filter(|wanted| !wanted.is_empty()) {
        let is_it = |group: &&GroupStatus| {
            group.broker_name == wanted
                || group.members.iter().any(|node| node.client_address == wanted)
        };
        let Some(group) = groups.iter().find(is_it) else {
            let known: Vec<_> = groups.iter().map(|group| group.broker_name.as_str()).collect();
            bail!(Failure::Rejected(format!(
                "there is no broker {wanted:?}; {} knows: {}",
                session.address,
                if known.is_empty() { "none".into() } else { known.join(", ") }
            )));
        };
        names.push(group.broker_name.clone());
    }
    if names.is_empty() {
        bail!("-b names no broker; write broker-a, or HOST:PORT of one of its replicas");
    }
    Ok(names)
}

#[derive(Debug, Args)]
pub struct Transfer {
    /// The broker's name.
    #[arg(short = 'b', long = "brokerName")]
    broker: BrokerName,
    /// The node that is to lead; without it, the follower that has most of the log.
    #[arg(short = 'i', long = "nodeId", default_value_t = 0)]
    node_id: u64,
}

impl Transfer {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let request =
            TransferLeaderRequest { broker_name: self.broker.to_string(), node_id: self.node_id };
        let answer =
            session.call(request, |mut c, r| async move { c.transfer_leader(r).await }).await?;
        Failure::of(answer.error)?;
        let json = json!({ "broker": self.broker.as_str(), "leader_id": answer.leader_id });
        let text = format!("broker {}: node {} leads", self.broker, answer.leader_id);
        Ok(Report::new(json).line(text))
    }
}
