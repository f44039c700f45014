//! Keeps this node's access point informed of this node's own broker group, with or without
//! NameServers.

use std::{sync::Arc, time::Duration};

use gateway::{GroupView, MemberView, RemoteDirectory, TopicRoute};
use proto::Topic;
use raft::Status;

use crate::{command::TopicConfig, ops::Broker};

/// Members announce their client addresses to each other in their own time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Tells the directory what changes, until dropped.
pub async fn inform(broker: Arc<Broker>, cluster: String, directory: Arc<RemoteDirectory>) {
    let mut role = broker.role();
    let mut topics = broker.view().topics_changed();
    topics.mark_changed();
    loop {
        let status = broker.group.status();
        // Who waits to be added knows less of the group than anybody else.
        if !status.waits_to_be_added {
            directory.observe_group(group_view(&broker, &cluster, &status));
        }
        if topics.has_changed().unwrap_or(false) {
            topics.mark_unchanged();
            let routes =
                broker.view().topics().into_iter().map(|(topic, config)| route(topic, config));
            directory.observe_topics(routes.collect());
        }
        tokio::select! {
            Ok(()) = role.changed() => (),
            Ok(()) = topics.changed() => topics.mark_changed(),
            () = tokio::time::sleep(LOOK_AGAIN) => (),
        }
    }
}

/// A topic's settings as a route.
pub fn route(topic: Topic, config: TopicConfig) -> TopicRoute {
    let TopicConfig { permission, accepts, placement, version, .. } = config;
    TopicRoute { topic, permission, accepts, placement, version }
}

/// The group as this node knows it. A leader counts once it says so itself: one that is elected
/// and has not caught up yet serves nobody.
fn group_view(broker: &Broker, cluster: &str, status: &Status) -> GroupView {
    let own = status.node_id;
    let leader_id = status.leader.filter(|id| *id != own || status.role.is_leader());
    let member = |member: &raft::Member| MemberView {
        node_id: member.node_id.0,
        raft_address: member.raft_addr.clone(),
        client_address: member.client_addr.clone(),
        voter: member.voter,
        alive: true,
    };
    let members: Vec<MemberView> = status.members.iter().map(member).collect();
    let leader = members
        .iter()
        .find(|member| Some(member.node_id) == leader_id.map(|id| id.0))
        .map(|member| member.client_address.clone())
        .filter(|address| !address.is_empty());
    GroupView {
        cluster: cluster.to_owned(),
        broker_name: broker.name().clone(),
        group_id: status.group_id.map(|id| id.to_string()).unwrap_or_default(),
        term: status.term.0,
        leader_id: leader_id.map(|id| id.0),
        leader,
        members,
    }
}
