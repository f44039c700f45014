//! Who is connected, and what renewed deliveries have to do with it.

use std::time::Duration;

use futures::stream;
use proto::{
    admin::{ListConnectionsRequest, ListConnectionsResponse},
    v2::{
        ClientType, FilterExpression, NotifyClientTerminationRequest, Settings, Subscription,
        SubscriptionEntry, TelemetryCommand, settings::PubSub, telemetry_command::Command,
    },
};
use tonic::Streaming;

use crate::{
    client::{Client, message, poll, resource},
    harness::{Node, eventually, within},
};

/// Introduces a consumer, which stays connected as long as the stream lives.
async fn introduce(client: &Client, expression: &str) -> Streaming<TelemetryCommand> {
    let subscription = Subscription {
        group: Some(resource("g")),
        subscriptions: vec![SubscriptionEntry {
            topic: Some(resource("t")),
            expression: Some(FilterExpression { r#type: 1, expression: expression.into() }),
        }],
        ..Default::default()
    };
    let settings = Settings {
        client_type: Some(ClientType::PushConsumer.into()),
        pub_sub: Some(PubSub::Subscription(subscription)),
        ..Default::default()
    };
    let first = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
    // Open until dropped.
    let outgoing = futures::StreamExt::chain(stream::iter([first]), stream::pending());
    let request = client.request(outgoing);
    let mut answers = client.rpc.clone().telemetry(request).await.unwrap().into_inner();
    let answer = within("settings are answered", answers.message()).await.unwrap().unwrap();
    assert!(matches!(answer.command, Some(Command::Settings(_))));
    answers
}

async fn connections(client: &Client) -> ListConnectionsResponse {
    client.admin().list_connections(ListConnectionsRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn consumers_are_listed_and_their_conflicts_named() {
    let node = Node::start().await;
    let (a, b) = (node.client("consumer-a").await, node.client("consumer-b").await);
    let _a = introduce(&a, "x").await;
    let _b = introduce(&b, "y").await;
    let listed = eventually("both are listed", || async {
        let listed = connections(&a).await;
        (listed.connections.len() == 2).then_some(listed)
    })
    .await;
    let first = &listed.connections[0];
    assert_eq!((first.client_id.as_str(), first.group.as_str()), ("consumer-a", "g"));
    assert_eq!(first.topics["t"], "x");
    assert_eq!(listed.conflicts.len(), 1);
    assert!(listed.conflicts[0].contains("consumer-a") && listed.conflicts[0].contains('y'));
    node.stop().await;
}

#[tokio::test]
async fn what_a_client_held_by_renewal_is_free_soon_after_its_good_bye() {
    let node = Node::start().await;
    let (leaving, staying) = (node.client("leaving").await, node.client("staying").await);
    let telemetry = introduce(&leaving, "*").await;
    eventually("it is listed", || async {
        (connections(&leaving).await.connections.len() == 1).then_some(())
    })
    .await;
    leaving.sent(&[message("t", "id", "body")]).await;
    let mut renewed = poll("g", "t");
    renewed.auto_renew = true;
    renewed.invisible_duration = None;
    let received = leaving.receive(renewed.clone()).await;
    assert_eq!(received.bodies(), ["body"]);
    let system = received.messages[0].system_properties.as_ref().unwrap();
    assert_eq!(system.invisible_duration.as_ref().unwrap().seconds, 60);

    let goodbye = NotifyClientTerminationRequest { group: Some(resource("g")) };
    leaving.rpc.clone().notify_client_termination(leaving.request(goodbye)).await.unwrap();
    drop(telemetry);
    let again = within("the message comes to another", staying.receive(renewed)).await;
    assert_eq!(again.bodies(), ["body"]);
    let system = again.messages[0].system_properties.as_ref().unwrap();
    assert_eq!(system.delivery_attempt, Some(2));
    node.stop().await;
}

#[tokio::test]
async fn a_living_clients_delivery_is_renewed() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    let mut renewed = poll("g", "t");
    renewed.auto_renew = true;
    client.receive(renewed).await;
    let broker = node.server().broker();
    let held = |until| broker.view().holdings(until, 10, |_| proto::Timestamp(0));
    let far = proto::Timestamp(u64::MAX);
    let due = held(far)[0].due;
    // Renewals come 45 s before the end, which this test does not wait for: ask for one.
    let later = proto::clock::wall_now().plus(Duration::from_secs(61));
    assert_eq!(held(later).len(), 1, "it is due for renewal within a minute");
    broker::tasks::renew_until(broker, later).await;
    assert!(held(far)[0].due >= due);
    node.stop().await;
}

#[tokio::test]
async fn a_delivery_that_may_be_lost_is_not_renewed() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    let mut renewed = poll("g", "t");
    renewed.auto_renew = true;
    client.receive(renewed).await;
    let broker = node.server().broker();
    let far = proto::Timestamp(u64::MAX);
    let held = || broker.view().holdings(far, 10, |client| broker.trusted_since(client));
    let due = held()[0].due;
    // As after the death of an access point.
    let id: proto::ClientId = "c".parse().unwrap();
    broker.doubt([id]);
    assert_eq!(held(), []);
    broker::tasks::renew_until(broker, far).await;
    let all = broker.view().holdings(far, 10, |_| proto::Timestamp(0));
    assert_eq!(all[0].due, due, "it ends when it would have ended");
    node.stop().await;
}
