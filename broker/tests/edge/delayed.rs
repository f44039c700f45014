//! Delayed sends and RecallMessage: when they appear, what the handle is good for, what is refused.

use std::time::Duration;

use proto::{
    Timestamp,
    admin::{ListTimersRequest, Timer, TimerPlace},
    clock::wall_now,
    v2::{Message, MessageType, RecallMessageRequest},
};

use crate::{
    client::{Client, MESSAGE_NOT_FOUND, OK, message, poll, resource},
    harness::Node,
};

const BAD_REQUEST: i32 = 40000;
const PRECONDITION_FAILED: i32 = 42800;

fn delayed(topic: &str, id: &str, due: Timestamp) -> Message {
    let mut message = message(topic, id, id);
    let system = message.system_properties.as_mut().unwrap();
    system.message_type = MessageType::Delay.into();
    system.delivery_timestamp = Some(due.into());
    message
}

fn ahead(seconds: u64) -> Timestamp {
    wall_now().plus(Duration::from_secs(seconds))
}

/// Sends one delayed message; its recall handle.
async fn sent(client: &Client, message: Message) -> String {
    let response = client.sent(&[message]).await;
    let handle = response.entries[0].recall_handle.clone();
    assert!(!handle.is_empty(), "a delayed message has a handle: {response:?}");
    handle
}

/// The code and the message id of the answer.
async fn recall(client: &Client, topic: &str, handle: &str) -> (i32, String) {
    let topic = Some(resource(topic));
    let request = client.request(RecallMessageRequest { topic, recall_handle: handle.into() });
    let answer = client.rpc.clone().recall_message(request).await.unwrap().into_inner();
    (answer.status.unwrap().code, answer.message_id)
}

#[tokio::test]
async fn a_delayed_message_appears_at_its_time_and_says_which_it_was() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let due = ahead(2);
    sent(&client, delayed("t", "later", due)).await;
    client.sent(&[message("t", "now", "now")]).await;
    assert_eq!(client.receive(poll("g", "t")).await.bodies(), ["now"], "the other one waits");
    let received = client.receive(poll("g", "t")).await;
    assert_eq!(received.bodies(), ["later"]);
    assert!(wall_now() >= due, "not before its time");
    let system = received.messages[0].system_properties.as_ref().unwrap();
    assert_eq!(system.delivery_timestamp, Some(due.into()));
    assert_eq!(system.message_type, i32::from(MessageType::Delay));
    assert_eq!((system.queue_offset, system.delivery_attempt), (Some(1), Some(1)));
    node.stop().await;
}

#[tokio::test]
async fn a_time_that_has_passed_means_now() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let past = Timestamp(wall_now().0 - 20_000);
    let response = client.sent(&[delayed("t", "past", past)]).await;
    assert_eq!(response.entries[0].recall_handle, "", "there is nothing to take back");
    let received = client.receive(poll("g", "t")).await;
    assert_eq!(received.bodies(), ["past"]);
    let system = received.messages[0].system_properties.as_ref().unwrap();
    assert_eq!(system.delivery_timestamp, Some(past.into()), "told as it was asked for");
    node.stop().await;
}

#[tokio::test]
async fn a_recalled_message_never_appears_and_the_others_do() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let batch: Vec<Message> = (0..3).map(|n| delayed("t", &format!("id-{n}"), ahead(2))).collect();
    let response = client.sent(&batch).await;
    let handles: Vec<String> =
        response.entries.iter().map(|entry| entry.recall_handle.clone()).collect();
    // From another client, as the handle says everything.
    let other = node.client("other").await;
    for _ in 0..2 {
        let answer = recall(&other, "t", &handles[1]).await;
        assert_eq!(answer, (OK, "id-1".to_owned()), "also when it is repeated");
    }
    let received = client.receive_all("g", "t", 2).await;
    let bodies: Vec<_> = received.iter().map(|m| String::from_utf8_lossy(&m.body)).collect();
    assert_eq!(bodies, ["id-0", "id-2"]);
    assert_eq!(
        recall(&client, "t", &handles[0]).await.0,
        PRECONDITION_FAILED,
        "it is in its queue"
    );
    client.ack("g", "t", &received).await;
    assert_eq!(client.receive(poll("g", "t")).await.status.code, MESSAGE_NOT_FOUND);
    node.stop().await;
}

#[tokio::test]
async fn a_repeated_delayed_send_gets_the_first_handle() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let message = delayed("t", "id", ahead(3600));
    let first = sent(&client, message.clone()).await;
    assert_eq!(sent(&client, message).await, first);
    node.stop().await;
}

#[tokio::test]
async fn a_wrong_handle_recalls_nothing() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("other", "id", "body")]).await;
    let handle = sent(&client, delayed("t", "id", ahead(3600))).await;
    let mut mutilated = handle.clone();
    mutilated.replace_range(10..11, if &handle[10..11] == "A" { "B" } else { "A" });
    for (topic, handle) in [
        ("t", ""),
        ("t", "garbage!"),
        ("t", "bm9uc2Vuc2U"),
        ("t", mutilated.as_str()),
        ("other", handle.as_str()),
    ] {
        let (code, id) = recall(&client, topic, handle).await;
        assert_eq!((code, id.as_str()), (BAD_REQUEST, ""), "{topic} {handle:?}");
    }
    assert_eq!(recall(&client, "t", &handle).await.0, OK, "the right one still does");
    node.stop().await;
}

#[tokio::test]
async fn delayed_messages_and_recalls_survive_a_restart() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let due = ahead(3);
    let recalled = sent(&client, delayed("t", "recalled", due)).await;
    let kept = sent(&client, delayed("t", "kept", due)).await;
    assert_eq!(recall(&client, "t", &recalled).await.0, OK);

    let node = node.restart().await;
    let client = node.client("c").await;
    assert_eq!(recall(&client, "t", &recalled).await, (OK, "recalled".to_owned()));
    let received = client.receive_all("g", "t", 1).await;
    assert_eq!(received[0].body, "kept");
    assert_eq!(recall(&client, "t", &kept).await.0, PRECONDITION_FAILED);
    node.stop().await;
}

/// Every message of the topic that is listed, two at a time, as bodies are told apart by ids.
async fn listed(client: &Client, within: (u64, u64)) -> Vec<Timer> {
    let (mut all, mut from) = (Vec::new(), TimerPlace { due_ms: within.0, number: 0 });
    loop {
        let request = ListTimersRequest {
            topic: "t".into(),
            from_ms: from.due_ms,
            from_number: from.number,
            until_ms: within.1,
            max: 2,
            ..Default::default()
        };
        let answer = client.admin().list_timers(request).await.unwrap().into_inner();
        assert_eq!(answer.error, None);
        let stretch = answer.stretches.into_iter().next().expect("of the one broker group");
        assert!(stretch.timers.len() <= 2);
        all.extend(stretch.timers);
        match stretch.next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

#[tokio::test]
async fn what_waits_is_listed_with_what_takes_it_back() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let (near, far) = (ahead(3600), ahead(7200));
    sent(&client, delayed("t", "far", far)).await;
    let batch: Vec<Message> = (0..4).map(|n| delayed("t", &format!("near-{n}"), near)).collect();
    client.sent(&batch).await;
    sent(&client, delayed("other", "elsewhere", near)).await;
    let all = listed(&client, (0, 0)).await;
    let ids: Vec<_> = all.iter().map(|timer| timer.message_id.as_str()).collect();
    assert_eq!(ids, ["near-0", "near-1", "near-2", "near-3", "far"], "as they will be delivered");
    assert_eq!((all[0].due_ms, all[4].due_ms), (near.0, far.0));
    assert!(all.iter().all(|timer| timer.sent_ms > 0 && timer.message_bytes > 0));
    assert_eq!(listed(&client, (near.0 + 1, 0)).await.len(), 1);
    assert_eq!(listed(&client, (0, far.0)).await.len(), 4);

    let (code, id) = recall(&client, "t", &all[1].recall_handle).await;
    assert_eq!((code, id.as_str()), (OK, "near-1"));
    let left = listed(&client, (0, 0)).await;
    assert_eq!(
        left.iter().map(|t| t.message_id.as_str()).collect::<Vec<_>>(),
        ["near-0", "near-2", "near-3", "far"]
    );

    let request = ListTimersRequest { topic: "absent".into(), ..Default::default() };
    let absent = client.admin().list_timers(request).await.unwrap().into_inner();
    assert!(absent.error.expect("it is refused").message.contains("does not exist"));
    node.stop().await;
}
