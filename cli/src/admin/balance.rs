//! balanceLeaders: spreads leadership of broker groups over the machines.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use proto::admin::{GroupStatus, NodeStatus, TransferLeaderRequest};
use serde_json::json;

use super::Session;
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Balance {
    /// Only this cluster.
    #[arg(short = 'c', long = "clusterName")]
    cluster: Option<String>,
    /// Only says what it would do.
    #[arg(long = "dryRun")]
    dry_run: bool,
}

/// Another node is to lead a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Move {
    broker: String,
    to: u64,
    from_place: String,
    to_place: String,
}

impl Balance {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let mut groups = session.broker_groups().await?;
        groups.retain(|group| self.cluster.as_ref().is_none_or(|name| group.cluster == *name));
        let moves = plan(&groups);
        let mut rows = Rows::new(["broker", "from", "to", "node", "result"]);
        let mut json = Vec::new();
        for wanted in &moves {
            let result = match self.dry_run {
                true => "would lead".to_owned(),
                // One that does not succeed is no reason not to go on.
                false => match transfer(session, wanted).await {
                    Ok(leader) => format!("node {leader} leads"),
                    Err(failure) => failure.to_string(),
                },
            };
            json.push(json!({ "broker": wanted.broker, "node_id": wanted.to, "result": result }));
            rows.push([
                wanted.broker.clone(),
                wanted.from_place.clone(),
                wanted.to_place.clone(),
                wanted.to.to_string(),
                result,
            ]);
        }
        let report = Report::new(json!({ "moves": json }));
        Ok(match moves.is_empty() {
            true => report.line("leadership is spread as evenly as it can be"),
            false => report.rows(rows),
        })
    }
}

async fn transfer(session: &Session, wanted: &Move) -> Result<u64, Failure> {
    let request = TransferLeaderRequest { broker_name: wanted.broker.clone(), node_id: wanted.to };
    let answer =
        session.call(request, |mut c, r| async move { c.transfer_leader(r).await }).await?;
    Failure::of(answer.error)?;
    Ok(answer.leader_id)
}

/// Who should hand over to whom, so that no place leads two groups more than another that could
/// lead one of them.
fn plan(groups: &[GroupStatus]) -> Vec<Move> {
    let by_host = groups.iter().any(|group| {
        let mut hosts = group.members.iter().map(host);
        let first = hosts.next();
        hosts.any(|other| Some(other) != first)
    });
    // On one machine the nodes of equal number stand for machines.
    let place = |node: &NodeStatus| match by_host {
        true => host(node).to_owned(),
        false => format!("node {}", node.node_id),
    };
    let mut leads: BTreeMap<String, usize> = BTreeMap::new();
    let mut leaders: BTreeMap<&str, u64> = BTreeMap::new();
    for group in groups {
        for node in group.members.iter().filter(|node| node.voter) {
            *leads.entry(place(node)).or_default() += usize::from(node.node_id == group.leader_id);
        }
        leaders.insert(&group.broker_name, group.leader_id);
    }
    let mut moves: BTreeMap<&str, Move> = BTreeMap::new();
    let now = |leaders: &BTreeMap<&str, u64>, group: &GroupStatus| {
        let leader = leaders[group.broker_name.as_str()];
        group.members.iter().find(|node| node.node_id == leader).map(place)
    };
    loop {
        let better = groups.iter().find_map(|group| {
            let from = now(&leaders, group)?;
            let voters = group.members.iter().filter(|node| node.voter);
            let to = voters.min_by_key(|node| (leads[&place(node)], node.node_id))?;
            (leads[&place(to)] + 1 < leads[&from]).then_some((group, from, to))
        });
        let Some((group, from_place, to)) = better else { break };
        let to_place = place(to);
        *leads.entry(from_place.clone()).or_default() -= 1;
        *leads.entry(to_place.clone()).or_default() += 1;
        leaders.insert(&group.broker_name, to.node_id);
        let broker = group.broker_name.clone();
        moves.insert(&group.broker_name, Move { broker, to: to.node_id, from_place, to_place });
    }
    moves.into_values().collect()
}

fn host(node: &NodeStatus) -> &str {
    node.client_address.rsplit_once(':').map_or(&*node.client_address, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, leader_id: u64, hosts: &[&str]) -> GroupStatus {
        let node = |(id, host): (u64, &&str)| NodeStatus {
            node_id: id,
            client_address: format!("{host}:8081"),
            voter: true,
            ..Default::default()
        };
        let members = (1..).zip(hosts).map(node).collect();
        GroupStatus { broker_name: name.into(), leader_id, members, ..Default::default() }
    }

    fn leads_after(groups: &[GroupStatus]) -> BTreeMap<String, usize> {
        let moves = plan(groups);
        let mut leads = BTreeMap::new();
        for group in groups {
            let moved = moves.iter().find(|wanted| wanted.broker == group.broker_name);
            let leader = moved.map_or(group.leader_id, |wanted| wanted.to);
            let node = group.members.iter().find(|node| node.node_id == leader).unwrap();
            *leads.entry(host(node).to_owned()).or_default() += 1;
        }
        leads
    }

    #[test]
    fn each_machine_leads_about_as_many() {
        let hosts = ["x", "y", "z"];
        let groups: Vec<_> =
            ["a", "b", "c", "d", "e"].iter().map(|name| group(name, 1, &hosts)).collect();
        let leads: Vec<usize> = leads_after(&groups).into_values().collect();
        assert_eq!(leads.iter().sum::<usize>(), 5);
        assert!(leads.iter().all(|count| (1..=2).contains(count)), "{leads:?}");
        assert_eq!(plan(&[group("a", 1, &hosts), group("b", 2, &hosts)]), []);
    }

    #[test]
    fn on_one_machine_the_nodes_count() {
        let groups = [group("a", 1, &["x", "x"]), group("b", 1, &["x", "x"])];
        assert_eq!(plan(&groups).len(), 1);
        assert_eq!(plan(&groups)[0].to, 2);
    }

    #[test]
    fn a_learner_and_a_group_without_a_leader_are_left_alone() {
        let mut one = group("a", 1, &["x", "y"]);
        one.members[1].voter = false;
        assert_eq!(plan(&[one.clone(), one.clone(), one]), []);
        assert_eq!(plan(&[group("a", 0, &["x", "y"])]), []);
    }
}
