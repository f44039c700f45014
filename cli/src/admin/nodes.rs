//! Which brokers a command is about, and asking each of their nodes by itself.

use anyhow::{Result, bail};
use clap::Args;
use proto::admin::{GroupStatus, admin_client::AdminClient};

use super::{Session, cluster};
use crate::{connect, failure::Failure};

/// Without either: every broker.
#[derive(Debug, Default, Args)]
pub(super) struct Chosen {
    /// This broker, by its name or by HOST:PORT of one of its nodes; several with commas.
    #[arg(short = 'b', long = "brokerAddr", alias = "brokerName", conflicts_with = "cluster")]
    broker: Option<String>,
    /// All brokers of this cluster.
    #[arg(short = 'c', long = "clusterName")]
    cluster: Option<String>,
}

/// A node to be asked.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) broker: String,
    pub(super) node_id: u64,
    pub(super) address: String,
    pub(super) leads: bool,
}

impl Chosen {
    /// The names of the brokers.
    pub(super) async fn brokers(&self, session: &Session) -> Result<Vec<String>> {
        match (&self.broker, &self.cluster) {
            (Some(list), _) => cluster::broker_names(session, list).await,
            (None, Some(cluster)) => cluster::brokers_of(session, cluster).await,
            (None, None) => {
                let groups = session.broker_groups().await?;
                Ok(groups.into_iter().map(|group| group.broker_name).collect())
            }
        }
    }

    /// The nodes that are named by their addresses; of other brokers, all nodes.
    pub(super) async fn nodes(&self, session: &Session) -> Result<Vec<Node>> {
        let (names, groups) = (self.brokers(session).await?, session.broker_groups().await?);
        let all = groups.iter().filter(|group| names.contains(&group.broker_name)).flat_map(nodes);
        let named = |node: &Node| {
            let list = self.broker.as_deref().unwrap_or_default();
            list.split(',').any(|one| one.trim() == node.address)
        };
        let mut all: Vec<Node> = all.collect();
        let some: Vec<&str> =
            all.iter().filter(|node| named(node)).map(|node| node.broker.as_str()).collect();
        let some: Vec<String> = some.into_iter().map(str::to_owned).collect();
        all.retain(|node| named(node) || !some.contains(&node.broker));
        if all.is_empty() {
            bail!(Failure::NotDone(format!("no node of {} is known", names.join(", "))));
        }
        all.sort_by(|a, b| (&a.broker, a.node_id).cmp(&(&b.broker, b.node_id)));
        Ok(all)
    }

    /// The node that leads each of the brokers.
    pub(super) async fn leaders(&self, session: &Session) -> Result<Vec<Node>> {
        let names = self.brokers(session).await?;
        let groups = session.broker_groups().await?;
        let mut leaders: Vec<Node> =
            groups.iter().flat_map(nodes).filter(|node| node.leads).collect();
        leaders.retain(|node| names.contains(&node.broker));
        match names.iter().find(|name| !leaders.iter().any(|node| node.broker == **name)) {
            Some(name) => bail!(Failure::NotDone(format!("broker {name} has no leader"))),
            None => Ok(leaders),
        }
    }
}

impl Node {
    /// A session with this very node, for who has the other one.
    pub(super) async fn session(&self, through: &Session) -> Result<Session> {
        let channel = connect::dial_one(&self.address).await?;
        let (client, address) = (AdminClient::new(channel.clone()), self.address.clone());
        Ok(Session { client, channel, address, operator: through.operator.clone() })
    }

    /// For people.
    pub(super) fn title(&self) -> String {
        let role = if self.leads { "leader" } else { "follower" };
        format!("broker {}, node {} at {} ({role})", self.broker, self.node_id, self.address)
    }
}

/// The nodes of a broker that can be reached.
fn nodes(group: &GroupStatus) -> impl Iterator<Item = Node> {
    group.members.iter().filter(|member| !member.client_address.is_empty()).map(|member| Node {
        broker: group.broker_name.clone(),
        node_id: member.node_id,
        address: member.client_address.clone(),
        leads: member.node_id == group.leader_id,
    })
}
