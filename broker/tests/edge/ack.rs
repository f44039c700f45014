//! AckMessage and ChangeInvisibleDuration.

use std::time::Duration;

use proto::v2::AckMessageEntry;

use crate::{
    client::{MESSAGE_NOT_FOUND, OK, handle, message, poll},
    harness::Node,
};

#[tokio::test]
async fn an_acknowledged_message_does_not_come_again_and_a_repeated_ack_is_fine() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    let received = client.receive(poll("g", "t")).await;
    for _ in 0..2 {
        let acked = client.ack("g", "t", &received.messages).await;
        assert_eq!(acked.status.unwrap().code, OK);
        assert_eq!(acked.entries[0].message_id, "id");
        assert_eq!(acked.entries[0].status.as_ref().unwrap().code, OK);
    }
    // The handle names nothing any more that could become visible.
    let changed = client.change_invisible("g", &received.messages[0], Duration::ZERO).await;
    assert_eq!(changed.status.unwrap().code, 40013);
    assert_eq!(client.receive(poll("g", "t")).await.status.code, MESSAGE_NOT_FOUND);
    node.stop().await;
}

#[tokio::test]
async fn entries_are_answered_one_by_one_and_together() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "1", "b"), message("t", "2", "b")]).await;
    let received = client.receive_all("g", "t", 2).await;
    let entry = |id: &str, receipt_handle: String| AckMessageEntry {
        message_id: id.into(),
        receipt_handle,
        ..Default::default()
    };
    let one = vec![entry("x", "garbage".into())];
    let refused = client.ack_entries("g", "t", one).await;
    assert_eq!(refused.status.as_ref().unwrap().code, 40013, "one entry: its status is the top's");

    let entries = vec![
        entry("1", handle(&received[0])),
        entry("x", "garbage".into()),
        entry("2", handle(&received[1])),
    ];
    let mixed = client.ack_entries("g", "t", entries).await;
    assert_eq!(mixed.status.unwrap().code, 30000);
    let codes: Vec<i32> = mixed.entries.iter().map(|e| e.status.as_ref().unwrap().code).collect();
    assert_eq!(codes, [OK, 40013, OK]);
    node.stop().await;
}

#[tokio::test]
async fn a_handle_is_of_one_group_and_one_topic() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    client.sent(&[message("u", "id", "body")]).await;
    let received = client.receive(poll("g", "t")).await;
    for (group, topic) in [("h", "t"), ("g", "u")] {
        let acked = client.ack(group, topic, &received.messages).await;
        assert_eq!(acked.status.unwrap().code, 40013, "{group} {topic}");
    }
    assert_eq!(client.ack("g", "t", &received.messages).await.status.unwrap().code, OK);
    node.stop().await;
}

#[tokio::test]
async fn after_the_end_of_its_time_a_handle_is_worth_nothing() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    let first = client.receive(poll("g", "t")).await;
    let changed = client.change_invisible("g", &first.messages[0], Duration::ZERO).await;
    assert_eq!(changed.status.unwrap().code, OK);
    assert!(!changed.receipt_handle.is_empty());
    let late = client.ack("g", "t", &first.messages).await;
    assert_eq!(late.status.unwrap().code, 40013);
    let second = client.receive(poll("g", "t")).await;
    assert_eq!(second.bodies(), ["body"]);
    assert_eq!(client.ack("g", "t", &first.messages).await.status.unwrap().code, 40013);
    assert_eq!(client.ack("g", "t", &second.messages).await.status.unwrap().code, OK);
    node.stop().await;
}

#[tokio::test]
async fn a_renewed_delivery_is_acknowledged_with_the_old_handle() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    let received = client.receive(poll("g", "t")).await;
    let renewed =
        client.change_invisible("g", &received.messages[0], Duration::from_secs(30)).await;
    assert_eq!(renewed.status.unwrap().code, OK);
    assert_eq!(client.ack("g", "t", &received.messages).await.status.unwrap().code, OK);
    node.stop().await;
}

#[tokio::test]
async fn an_invisible_duration_has_an_upper_limit() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    let received = client.receive(poll("g", "t")).await;
    let long = Duration::from_secs(12 * 3600 + 1);
    let refused = client.change_invisible("g", &received.messages[0], long).await;
    assert_eq!(refused.status.unwrap().code, 40011);
    node.stop().await;
}
