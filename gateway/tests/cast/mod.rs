//! Nodes for the tests: real gateways on real ports, with a scripted broker inside.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file is a crate and uses a part of the cast"
)]

mod leader;
mod node;
mod noted;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gateway::{
    Config, Gateway, GroupView, MemberView, NoLocal, Shared, TopicRoute, directory::View,
};
use proto::{
    BrokerName, SendMessageRequest,
    v2::{
        self, MessageType, Permission, Resource, messaging_service_client::MessagingServiceClient,
    },
};
use tonic::{Request, transport::Channel};

pub use self::{
    leader::{Poll, Script, ScriptedBroker},
    node::Node,
    noted::{Noted, two_groups},
};

/// Waits for a condition, ten seconds at most.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn name(text: &str) -> BrokerName {
    text.parse().expect("a broker name")
}

pub fn resource(text: &str) -> Resource {
    Resource { resource_namespace: String::new(), name: text.into() }
}

/// A topic with two queues in each of these groups.
pub fn topic(text: &str, groups: &[&str]) -> TopicRoute {
    TopicRoute {
        topic: text.parse().expect("a topic"),
        permission: Permission::ReadWrite,
        accepts: vec![MessageType::Normal],
        placement: groups.iter().map(|group| (name(group), 2)).collect(),
        version: 1,
    }
}

/// A group of which these addresses are the members, the first with id 1.
pub fn group(text: &str, term: u64, leader: Option<&str>, members: &[&str]) -> GroupView {
    let members: Vec<_> = (1..)
        .zip(members)
        .map(|(node_id, address)| MemberView {
            node_id,
            raft_address: String::new(),
            client_address: (*address).to_owned(),
            voter: true,
            alive: true,
        })
        .collect();
    let leads = |member: &&MemberView| Some(member.client_address.as_str()) == leader;
    GroupView {
        cluster: "DefaultCluster".into(),
        broker_name: name(text),
        group_id: format!("group of {text}"),
        term,
        leader_id: members.iter().find(leads).map(|member| member.node_id),
        leader: leader.map(str::to_owned),
        members,
    }
}

pub fn publish(directory: &Shared, groups: Vec<GroupView>, topics: Vec<TopicRoute>) {
    let groups = groups.into_iter().map(|g| (g.broker_name.clone(), Arc::new(g))).collect();
    let topics = topics.into_iter().map(|t| (t.topic.clone(), Arc::new(t))).collect();
    directory.publish(View { groups, topics: Arc::new(topics) });
}

/// Settings of an access point for tests: it gives up waiting for a leader soon.
pub fn config() -> Config {
    let mut config = Config::new("access point", 7);
    config.hold = Duration::from_millis(600);
    config
}

/// An access point that holds nothing itself, with its directory.
pub async fn access_point() -> (Node, Arc<Shared>) {
    let directory = Arc::new(Shared::default());
    let seen = Arc::clone(&directory);
    let node = Node::start(move || Gateway::start(config(), NoLocal, seen), None).await;
    (node, directory)
}

/// A client with an id of its own.
pub async fn client(address: &str) -> MessagingServiceClient<Channel> {
    MessagingServiceClient::connect(format!("http://{address}")).await.expect("the node listens")
}

/// A request as an official client sends it.
pub fn from_client<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-mq-client-id", "client@1".parse().expect("ascii"));
    metadata.insert("x-mq-language", "JAVA".parse().expect("ascii"));
    metadata.insert("x-mq-client-version", "5.0.0".parse().expect("ascii"));
    request.set_timeout(Duration::from_secs(8));
    request
}

/// One message with this id; without an id the leader cannot recognise it when it comes again.
pub fn send(topic: &str, message_id: &str) -> SendMessageRequest {
    SendMessageRequest::of(&[v2::Message {
        topic: Some(resource(topic)),
        system_properties: Some(v2::SystemProperties {
            message_id: message_id.into(),
            ..Default::default()
        }),
        body: "body".into(),
        ..Default::default()
    }])
}

/// Settings of a consumer of this group.
pub fn consumer_settings(group: &str) -> v2::Settings {
    v2::Settings {
        client_type: Some(v2::ClientType::PushConsumer.into()),
        pub_sub: Some(v2::settings::PubSub::Subscription(v2::Subscription {
            group: Some(resource(group)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

pub fn settings_command(settings: v2::Settings) -> v2::TelemetryCommand {
    let command = Some(v2::telemetry_command::Command::Settings(settings));
    v2::TelemetryCommand { status: None, command }
}

pub fn poll(topic: &str, broker: &str) -> v2::ReceiveMessageRequest {
    v2::ReceiveMessageRequest {
        group: Some(resource("billing")),
        message_queue: Some(v2::MessageQueue {
            topic: Some(resource(topic)),
            id: -1,
            broker: Some(v2::Broker { name: broker.into(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn code(status: Option<&v2::Status>) -> i32 {
    status.expect("every answer has a status").code
}
