//! Groups that keep order: who gets what while others hold what, repeats, and dead letters.

use std::time::Duration;

use proto::{
    admin::{ExponentialBackoff, GroupConfig, PutGroupRequest, RedriveDeadLettersRequest},
    v2::{
        ForwardMessageToDeadLetterQueueRequest, Message, ReceiveMessageRequest,
        telemetry_command::Command,
    },
};

use crate::{
    client::{Client, MESSAGE_NOT_FOUND, OK, finish, handle, message, poll, resource},
    harness::{Node, within},
};

const STALE: i32 = 40013;

fn ordered(id: &str, group: Option<&str>) -> Message {
    let mut message = message("t", id, id);
    message.system_properties.as_mut().unwrap().message_group = group.map(str::to_owned);
    message
}

pub(crate) async fn put_group(client: &Client, fifo: bool, max_attempts: u32) {
    let backoff = ExponentialBackoff { initial_ms: 5_000, max_ms: 60_000, multiplier: 2 };
    let config = GroupConfig {
        group: "g".into(),
        fifo,
        max_attempts,
        exponential_backoff: Some(backoff),
        ..Default::default()
    };
    let put = PutGroupRequest { config: Some(config) };
    assert_eq!(client.admin().put_group(put).await.unwrap().into_inner().error, None);
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| str::from_utf8(&message.body).unwrap()).collect()
}

fn attempts(messages: &[Message]) -> Vec<i32> {
    let attempt = |m: &Message| m.system_properties.as_ref().unwrap().delivery_attempt.unwrap();
    messages.iter().map(attempt).collect()
}

fn few(count: i32) -> ReceiveMessageRequest {
    ReceiveMessageRequest { batch_size: count, ..poll("g", "t") }
}

async fn give_up(client: &Client, message: &Message) -> i32 {
    let request = client.request(ForwardMessageToDeadLetterQueueRequest {
        group: Some(resource("g")),
        topic: message.topic.clone(),
        receipt_handle: handle(message),
        message_id: message.system_properties.as_ref().unwrap().message_id.clone(),
        delivery_attempt: 1,
        max_delivery_attempts: 1,
        ..Default::default()
    });
    let answer = client.rpc.clone().forward_message_to_dead_letter_queue(request).await.unwrap();
    answer.into_inner().status.unwrap().code
}

#[tokio::test]
async fn a_message_group_is_held_by_one_and_the_others_go_on() {
    let node = Node::with(|config| config.auto_create_queues = 1).await;
    let client = node.client("c").await;
    put_group(&client, true, 3).await;
    for id in ["a1", "a2", "b1", "a3"] {
        client.sent(&[ordered(id, Some(&id[..1]))]).await;
    }
    let first = client.receive(few(1)).await.messages;
    assert_eq!(bodies(&first), ["a1"]);
    let other = client.receive(poll("g", "t")).await.messages;
    assert_eq!(bodies(&other), ["b1"], "past what is held back");
    assert_eq!(client.receive(poll("g", "t")).await.status.code, MESSAGE_NOT_FOUND);

    let waiting = client.begin(poll("g", "t")).await;
    client.ack("g", "t", &first).await;
    let next = finish(waiting).await.messages;
    assert_eq!(bodies(&next), ["a2", "a3"]);
    node.stop().await;
}

#[tokio::test]
async fn messages_without_a_group_share_one() {
    let node = Node::with(|config| config.auto_create_queues = 1).await;
    let client = node.client("c").await;
    put_group(&client, true, 3).await;
    for id in ["1", "2"] {
        client.sent(&[ordered(id, None)]).await;
    }
    let first = client.receive(few(1)).await.messages;
    assert_eq!(bodies(&first), ["1"]);
    assert_eq!(client.receive(poll("g", "t")).await.status.code, MESSAGE_NOT_FOUND);
    client.ack("g", "t", &first).await;
    assert_eq!(bodies(&client.receive(poll("g", "t")).await.messages), ["2"]);
    node.stop().await;
}

#[tokio::test]
async fn the_same_attempt_gets_the_same_messages() {
    let node = Node::start().await;
    let client = node.client("c").await;
    put_group(&client, true, 3).await;
    client.sent(&[ordered("1", Some("a")), ordered("2", Some("a"))]).await;
    let attempt = ReceiveMessageRequest { attempt_id: Some("once".into()), ..poll("g", "t") };
    let first = client.receive(attempt.clone()).await.messages;
    let again = client.receive(attempt.clone()).await.messages;
    assert_eq!(bodies(&first), ["1", "2"]);
    assert_eq!((bodies(&again), attempts(&again)), (vec!["1", "2"], vec![1, 1]));
    let stamps = |m: &[Message]| m[1].system_properties.as_ref().unwrap().store_timestamp;
    assert_eq!(stamps(&first), stamps(&again));
    client.ack("g", "t", &first[..1]).await;
    assert_eq!(bodies(&client.receive(attempt).await.messages), ["2"]);
    node.stop().await;
}

#[tokio::test]
async fn a_message_given_up_is_a_dead_letter_and_can_be_put_back() {
    let node = Node::start().await;
    let client = node.client("c").await;
    put_group(&client, true, 3).await;
    client.sent(&[ordered("1", Some("a")), ordered("2", Some("a"))]).await;
    let first = client.receive(few(1)).await.messages;
    // Who looks for dead letters before there are any waits for them.
    let graves = client.begin(poll("undertaker", "%DLQ%g")).await;
    assert_eq!(give_up(&client, &first[0]).await, OK);
    assert_eq!(give_up(&client, &first[0]).await, OK, "it is done");
    let second = client.receive(poll("g", "t")).await.messages;
    assert_eq!(bodies(&second), ["2"], "the group goes on");
    client.ack("g", "t", &second).await;

    let dead = finish(graves).await.messages;
    assert_eq!(bodies(&dead), ["1"]);
    let system = dead[0].system_properties.as_ref().unwrap();
    let origin = system.dead_letter_queue.as_ref().unwrap();
    assert_eq!((origin.topic.as_str(), origin.message_id.as_str()), ("t", "1"));
    assert_eq!(dead[0].topic.as_ref().unwrap().name, "%DLQ%g");
    assert_eq!(system.message_id, "1");

    let redrive = RedriveDeadLettersRequest { group: "g".into(), max: 0 };
    let answer = client.admin().redrive_dead_letters(redrive.clone()).await.unwrap().into_inner();
    assert_eq!((answer.error, answer.count), (None, 1));
    let again = client.receive(poll("g", "t")).await.messages;
    assert_eq!((bodies(&again), attempts(&again)), (vec!["1"], vec![1]));
    let answer = client.admin().redrive_dead_letters(redrive).await.unwrap().into_inner();
    assert_eq!((answer.error, answer.count), (None, 0), "once each");
    let mut forged = again[0].clone();
    forged.system_properties.as_mut().unwrap().receipt_handle = Some("x".into());
    assert_eq!(give_up(&client, &forged).await, STALE);
    node.stop().await;
}

#[tokio::test]
async fn attempts_used_up_make_a_dead_letter() {
    for fifo in [false, true] {
        let node = Node::with(|config| config.auto_create_queues = 1).await;
        let client = node.client("c").await;
        put_group(&client, fifo, 2).await;
        client.sent(&[ordered("1", Some("a"))]).await;
        for attempt in 1..=2 {
            let got = client.receive(poll("g", "t")).await.messages;
            assert_eq!((bodies(&got), attempts(&got)), (vec!["1"], vec![attempt]));
            client.change_invisible("g", &got[0], Duration::ZERO).await;
        }
        assert_eq!(client.receive(poll("g", "t")).await.status.code, MESSAGE_NOT_FOUND);
        let dead = client.receive(poll("undertaker", "%DLQ%g")).await.messages;
        assert_eq!(bodies(&dead), ["1"]);
        let refused = client.send(&[message("%DLQ%g", "2", "2")]).await;
        assert_eq!(refused.status.unwrap().code, 40300, "only the server puts messages there");
        node.stop().await;
    }
}

#[tokio::test]
async fn members_are_told_the_policy() {
    let node = Node::start().await;
    let client = node.client("c").await;
    put_group(&client, true, 5).await;
    client.sent(&[message("t", "1", "1")]).await;
    let all = poll("g", "t").filter_expression.unwrap();
    let told = within("settings", client.announce("g", &resource("t"), all)).await;
    let Some(Command::Settings(settings)) = told.unwrap().command else {
        panic!("settings are answered by settings");
    };
    let backoff = settings.backoff_policy.unwrap();
    assert_eq!(backoff.max_attempts, 5);
    let Some(proto::v2::retry_policy::Strategy::ExponentialBackoff(exponential)) = backoff.strategy
    else {
        panic!("{:?}", backoff.strategy);
    };
    assert_eq!(exponential.initial.unwrap().seconds, 5);
    assert_eq!((exponential.max.unwrap().seconds, exponential.multiplier), (60, 2.0));
    node.stop().await;
}

#[tokio::test]
async fn messages_of_one_request_are_of_one_group() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let mixed = client.send(&[ordered("1", Some("a")), ordered("2", Some("b"))]).await;
    assert_eq!(mixed.status.unwrap().code, 40006);
    node.stop().await;
}
