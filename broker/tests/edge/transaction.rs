//! Half messages over gRPC: stored, ended, asked about, given up.

use std::{sync::Arc, time::Duration};

use futures::stream;
use proto::{
    TransactionId,
    admin::{ListTransactionsRequest, ResolveTransactionRequest, Transaction},
    v2::{
        ClientType, EndTransactionRequest, Message, MessageType, Publishing,
        RecoverOrphanedTransactionCommand, Settings, TelemetryCommand, TransactionResolution,
        settings::PubSub, telemetry_command::Command,
    },
};
use tonic::Streaming;

use crate::{
    client::{Client, MESSAGE_NOT_FOUND, OK, message, poll, resource},
    harness::{Node, eventually, metric, within},
};

const COMMIT: TransactionResolution = TransactionResolution::Commit;
const ROLLBACK: TransactionResolution = TransactionResolution::Rollback;
const INVALID_TRANSACTION_ID: i32 = 40008;

fn half(topic: &str, id: &str) -> Message {
    let mut half = message(topic, id, id);
    let system = half.system_properties.as_mut().unwrap();
    system.message_type = MessageType::Transaction.into();
    half
}

/// Sends a half message; the id of its transaction.
async fn begun(client: &Client, id: &str) -> String {
    let sent = client.sent(&[half("t", id)]).await;
    assert_eq!((sent.entries.len(), sent.entries[0].message_id.as_str()), (1, id));
    sent.entries[0].transaction_id.clone()
}

async fn end(client: &Client, transaction: &str, resolution: TransactionResolution) -> i32 {
    end_of("t", client, transaction, resolution.into()).await
}

async fn end_of(topic: &str, client: &Client, transaction: &str, resolution: i32) -> i32 {
    let request = EndTransactionRequest {
        topic: Some(resource(topic)),
        transaction_id: transaction.into(),
        resolution,
        ..Default::default()
    };
    let answer = client.rpc.clone().end_transaction(client.request(request)).await.unwrap();
    answer.into_inner().status.unwrap().code
}

async fn listed(client: &Client, parked_only: bool) -> Vec<Transaction> {
    let request = ListTransactionsRequest { parked_only, ..Default::default() };
    let answer = client.admin().list_transactions(request).await.unwrap().into_inner();
    assert_eq!(answer.error, None);
    answer.transactions
}

/// Introduces a producer of the topic, which stays connected as long as the stream lives.
async fn introduce(client: &Client) -> Streaming<TelemetryCommand> {
    let publishing = Publishing { topics: vec![resource("t")], ..Default::default() };
    let settings = Settings {
        client_type: Some(ClientType::Producer.into()),
        pub_sub: Some(PubSub::Publishing(publishing)),
        ..Default::default()
    };
    let first = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
    // Open until dropped.
    let outgoing = futures::StreamExt::chain(stream::iter([first]), stream::pending());
    let mut request = client.request(outgoing);
    request.set_timeout(Duration::from_secs(600));
    let mut answers = client.rpc.clone().telemetry(request).await.unwrap().into_inner();
    let answer = within("settings are answered", answers.message()).await.unwrap().unwrap();
    assert!(matches!(answer.command, Some(Command::Settings(_))));
    answers
}

async fn question(
    telemetry: &mut Streaming<TelemetryCommand>,
) -> RecoverOrphanedTransactionCommand {
    let said = within("the producer is asked", telemetry.message()).await.unwrap().unwrap();
    assert_eq!(said.status.unwrap().code, OK);
    match said.command {
        Some(Command::RecoverOrphanedTransactionCommand(question)) => question,
        other => panic!("{other:?}"),
    }
}

async fn impatient(check_max: u32) -> Node {
    Node::with(|config| {
        config.transaction.timeout = Duration::from_millis(50);
        config.transaction.check_interval = Duration::from_millis(300);
        config.transaction.check_max = check_max;
    })
    .await
}

#[tokio::test]
async fn a_half_message_is_received_after_its_commit_and_not_before() {
    let node = Node::start().await;
    let client = node.client("producer").await;
    let transaction = begun(&client, "m1").await;
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.receive(poll("g", "t")).await })
    };
    let rolled_back = begun(&client, "m2").await;
    assert_eq!(end(&client, &rolled_back, ROLLBACK).await, OK);
    assert_eq!(listed(&client, false).await.len(), 1);
    assert!(!waiting.is_finished(), "neither is visible");
    assert_eq!(end(&client, &transaction, COMMIT).await, OK);
    let received = within("the poll is woken", waiting).await.unwrap();
    assert_eq!(received.bodies(), ["m1"]);
    let system = received.messages[0].system_properties.as_ref().unwrap();
    assert_eq!(system.message_type, i32::from(MessageType::Transaction));
    assert_eq!((system.queue_offset, system.message_id.as_str()), (Some(0), "m1"));
    assert!(listed(&client, false).await.is_empty());
    let nothing_else = client.receive(poll("g", "t")).await;
    assert_eq!(nothing_else.status.code, MESSAGE_NOT_FOUND);
    node.stop().await;
}

#[tokio::test]
async fn a_verdict_may_be_repeated_and_not_changed() {
    let node = Node::start().await;
    let client = node.client("producer").await;
    let transaction = begun(&client, "m1").await;
    assert_eq!(begun(&client, "m1").await, transaction, "the same send");
    assert_eq!(end_of("t", &client, &transaction, 0).await, OK, "not known yet");
    assert_eq!(end_of("t", &client, &transaction, 7).await, 40000);
    assert_eq!(end_of("other", &client, &transaction, 1).await, INVALID_TRANSACTION_ID);
    assert_eq!(end_of("", &client, &transaction, 1).await, 40002);
    for _ in 0..2 {
        assert_eq!(end(&client, &transaction, COMMIT).await, OK);
    }
    let node = node.restart().await;
    let client = node.client("producer").await;
    assert_eq!(end(&client, &transaction, COMMIT).await, OK);
    assert_eq!(end(&client, &transaction, ROLLBACK).await, INVALID_TRANSACTION_ID);
    assert_eq!(begun(&client, "m1").await, transaction, "the send of an ended transaction");
    let unknown = TransactionId { broker: "broker-a".parse().unwrap(), number: 1 };
    for unknown in [unknown.to_string(), String::new()] {
        assert_eq!(end(&client, &unknown, COMMIT).await, INVALID_TRANSACTION_ID);
    }
    assert_eq!(client.receive_all("g", "t", 1).await.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_producer_is_asked_about_an_orphan_until_it_knows() {
    let node = impatient(15).await;
    let client = node.client("producer").await;
    client.sent(&[message("t", "creates the topic", "x")]).await;
    let mut telemetry = introduce(&client).await;
    let transaction = begun(&client, "m1").await;
    for _ in 0..2 {
        let asked = question(&mut telemetry).await;
        assert_eq!(asked.transaction_id, transaction);
        let asked = asked.message.unwrap();
        assert_eq!((asked.topic.unwrap().name.as_str(), &asked.body[..]), ("t", &b"m1"[..]));
        let system = asked.system_properties.unwrap();
        assert_eq!(system.message_id, "m1");
        assert!(system.body_digest.is_some() && system.store_timestamp.is_some());
        assert_eq!(end_of("t", &client, &transaction, 0).await, OK, "not known yet");
    }
    let checks = || async { (listed(&client, false).await[0].checks == 2).then_some(()) };
    eventually("checks are recorded", checks).await;
    assert_eq!(end(&client, &transaction, COMMIT).await, OK);
    let page = node.page("/metrics").await;
    let value = |name: &str, labels: &[(&str, &str)]| metric(&page, name, labels);
    assert_eq!(value("raftmq_transactions_pending", &[]), Some(0.0), "{page}");
    assert_eq!(value("raftmq_transaction_checks_total", &[]), Some(2.0), "{page}");
    let ended = value("raftmq_transactions_ended_total", &[("verdict", "commit")]);
    assert_eq!(ended, Some(1.0), "{page}");
    node.stop().await;
}

#[tokio::test]
async fn a_producer_is_asked_about_the_largest_message_too() {
    let node = impatient(15).await;
    let client = node.client("producer").await;
    client.sent(&[message("t", "creates the topic", "x")]).await;
    let mut telemetry = introduce(&client).await;
    let mut large = half("t", "large");
    large.body = vec![b'x'; proto::limits::BODY_BYTES].into();
    client.sent(&[large]).await;
    let asked = question(&mut telemetry).await;
    assert_eq!(asked.message.unwrap().body.len(), proto::limits::BODY_BYTES);
    node.stop().await;
}

#[tokio::test]
async fn checks_wait_for_a_producer_and_then_go_to_any() {
    let node = impatient(1).await;
    let gone = node.client("gone").await;
    let transaction = begun(&gone, "m1").await;
    // Long enough for a check of everybody who is not there.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(listed(&gone, false).await[0].checks, 0);
    let other = node.client("other").await;
    let mut telemetry = introduce(&other).await;
    assert_eq!(question(&mut telemetry).await.transaction_id, transaction);
    node.stop().await;
}

#[tokio::test]
async fn after_the_last_check_only_an_administrator_ends_a_transaction() {
    let node = impatient(2).await;
    let client = node.client("producer").await;
    client.sent(&[message("t", "creates the topic", "x")]).await;
    let mut telemetry = introduce(&client).await;
    let transaction = begun(&client, "m1").await;
    let parked = eventually("it is given up", || async { listed(&client, true).await.pop() });
    let parked = parked.await;
    assert_eq!((parked.transaction_id.as_str(), parked.checks), (transaction.as_str(), 2));
    assert_eq!((parked.message_id.as_str(), parked.topic.as_str()), ("m1", "t"));
    for _ in 0..2 {
        question(&mut telemetry).await;
    }
    let node = node.restart().await;
    let client = node.client("producer").await;
    assert_eq!(end(&client, &transaction, COMMIT).await, INVALID_TRANSACTION_ID);
    assert_eq!(listed(&client, true).await.len(), 1);
    let request = ResolveTransactionRequest { transaction_id: transaction, commit: true };
    let answer = client.admin().resolve_transaction(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.error, None);
    let bodies: Vec<_> =
        client.receive_all("g", "t", 2).await.into_iter().map(|m| m.body).collect();
    assert_eq!(bodies, ["x", "m1"]);
    let other = ResolveTransactionRequest { commit: false, ..request };
    let refused = client.admin().resolve_transaction(other).await.unwrap().into_inner();
    assert!(refused.error.unwrap().message.contains("committed before"));
    node.stop().await;
}

#[tokio::test]
async fn a_message_may_ask_to_be_left_alone_for_longer() {
    let node = impatient(15).await;
    let client = Arc::new(node.client("producer").await);
    let mut patient = half("t", "patient");
    let system = patient.system_properties.as_mut().unwrap();
    let hour = Duration::from_secs(3600);
    system.orphaned_transaction_recovery_duration = Some(proto::clock::to_wire(hour));
    client.sent(&[patient]).await;
    begun(&client, "other").await;
    let found = listed(&client, false).await;
    let waits: Vec<_> = found.iter().map(|t| t.next_check_ms - t.born_ms).collect();
    assert_eq!(waits, [3_600_000, 50]);
    let (a, b) = (half("t", "a"), half("t", "b"));
    let refused = client.send(&[a, b]).await;
    assert_eq!(refused.status.unwrap().code, 40016, "transactional messages go alone");
    node.stop().await;
}
