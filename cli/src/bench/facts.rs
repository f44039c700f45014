//! What the cluster says of itself: without it a figure means little.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use proto::{
    Topic,
    admin::{
        ClusterStatusRequest, GroupStatus, ListTopicsRequest, PutTopicRequest, TopicConfig,
        admin_client::AdminClient,
    },
    v2,
};
use serde::Serialize;
use tonic::Request;

use super::load::{Flush, LoadArgs};
use crate::{connect, failure::Failure};

/// No question to the cluster waits longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The conditions of a figure that the cluster decides.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    /// Voters of the broker with the fewest; `None` when nobody knows.
    pub(super) replicas: Option<u32>,
    /// `sync`, `async`, `mixed`, `unknown`; `none` where nothing is stored.
    pub(super) flush: String,
}

impl Facts {
    /// Those of a server that stores nothing.
    pub(super) fn of_an_echo() -> Self {
        Self { replicas: Some(0), flush: "none".into() }
    }

    /// What the cluster tells, or else what the flags say.
    pub(super) async fn gather(address: &str, load: &LoadArgs) -> Self {
        // Another product, or an echo, has no such service; the flags are for that.
        let groups = broker_groups(address).await.unwrap_or_default();
        let voters = |group: &GroupStatus| group.members.iter().filter(|node| node.voter).count();
        let replicas = groups.iter().map(voters).min().and_then(|n| u32::try_from(n).ok());
        let mut flush = Vec::new();
        for group in &groups {
            flush.push(flush_of(group).await);
        }
        Self {
            replicas: replicas.filter(|&n| n > 0).or(load.replicas),
            flush: summary(&flush, load.flush),
        }
    }
}

fn summary(known: &[String], flag: Option<Flush>) -> String {
    let mut modes: Vec<_> = known.iter().filter(|mode| !mode.is_empty()).collect();
    modes.dedup();
    match (modes.as_slice(), flag) {
        ([one], _) => (*one).clone(),
        ([_, ..], _) => "mixed".into(),
        ([], Some(Flush::Sync)) => "sync".into(),
        ([], Some(Flush::Async)) => "async".into(),
        ([], None) => "unknown".into(),
    }
}

/// A broker's flush mode; one of its own replicas knows it, others may not.
async fn flush_of(group: &GroupStatus) -> String {
    if !group.flush.is_empty() {
        return group.flush.clone();
    }
    let Some(leader) = leader_address(group) else { return String::new() };
    let groups = broker_groups(leader).await.unwrap_or_default();
    let own = groups.into_iter().find(|own| own.broker_name == group.broker_name);
    own.map(|own| own.flush).unwrap_or_default()
}

/// Where the group's leader serves clients, if it has one.
pub(super) fn leader_address(group: &GroupStatus) -> Option<&str> {
    let leads = |node: &&proto::admin::NodeStatus| node.node_id == group.leader_id;
    let address = group.members.iter().find(leads)?.client_address.as_str();
    (!address.is_empty()).then_some(address)
}

/// The broker groups that the node at this address knows.
pub(super) async fn broker_groups(address: &str) -> Result<Vec<GroupStatus>> {
    let mut client = AdminClient::new(connect::dial_one(address).await?);
    let answer = client.cluster_status(request(ClusterStatusRequest {})).await;
    let answer = answer.map_err(|status| Failure::of_status(&status, address))?.into_inner();
    Failure::of(answer.error)?;
    Ok(answer.groups)
}

/// Creates the topic on all brokers unless it exists.
pub(super) async fn ensure_topic(address: &str, topic: &Topic, queues: u32) -> Result<()> {
    let mut client = AdminClient::new(connect::dial_one(address).await?);
    let refused = |status| Failure::of_status(&status, address);
    let known = client.list_topics(request(ListTopicsRequest {})).await.map_err(refused)?;
    let known = known.into_inner();
    Failure::of(known.error).context("list the topics")?;
    let is_it = |config: &TopicConfig| config.topic == topic.as_str();
    if known.topics.iter().any(|info| info.config.as_ref().is_some_and(is_it)) {
        return Ok(());
    }
    let config = TopicConfig {
        topic: topic.to_string(),
        queues,
        permission: v2::Permission::ReadWrite as i32,
        accepts: vec![v2::MessageType::Normal as i32],
    };
    let put = PutTopicRequest { config: Some(config), ..Default::default() };
    let answer = client.put_topic(request(put)).await.map_err(refused)?.into_inner();
    Failure::of(answer.error).with_context(|| format!("create topic {topic}"))?;
    Ok(())
}

fn request<T>(body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// The leader of the only broker group, and another node of it.
pub(super) async fn leader_and_other(address: &str) -> Result<(String, String)> {
    const SAY: &str = "say which with --leader and --access-point";
    let groups = broker_groups(address).await.context(SAY)?;
    let [group] = groups.as_slice() else {
        bail!("{address} knows {} brokers, not one; {SAY}", groups.len());
    };
    let Some(leader) = leader_address(group) else {
        bail!("broker {} has no leader with a known address now; {SAY}", group.broker_name);
    };
    if address != leader {
        return Ok((leader.to_owned(), address.to_owned()));
    }
    let other = |node: &&proto::admin::NodeStatus| {
        node.node_id != group.leader_id && !node.client_address.is_empty()
    };
    let Some(other) = group.members.iter().find(other) else {
        bail!("broker {} has no other node that could forward; {SAY}", group.broker_name);
    };
    Ok((leader.to_owned(), other.client_address.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flush_mode_is_what_all_say() {
        let known = |modes: &[&str]| modes.iter().map(|&mode| mode.to_owned()).collect::<Vec<_>>();
        assert_eq!(summary(&known(&["sync", "sync"]), Some(Flush::Async)), "sync");
        assert_eq!(summary(&known(&["sync", "async"]), None), "mixed");
        assert_eq!(summary(&known(&["", "async"]), None), "async");
        assert_eq!(summary(&known(&[""]), Some(Flush::Sync)), "sync");
        assert_eq!(summary(&[], None), "unknown");
    }
}
