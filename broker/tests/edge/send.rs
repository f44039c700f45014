//! SendMessage: what is taken in, and what is refused with which code.

use std::collections::HashMap;

use proto::v2::{Message, SystemProperties};

use crate::{
    client::{Client, message, resource, tagged},
    harness::Node,
};

fn system(message: &mut Message) -> &mut SystemProperties {
    message.system_properties.as_mut().unwrap()
}

async fn code(client: &Client, messages: &[Message]) -> i32 {
    let response = client.send(messages).await;
    assert!(response.entries.is_empty(), "a refusal has no entries: {response:?}");
    response.status.unwrap().code
}

#[tokio::test]
async fn a_send_names_the_clients_id_and_a_dense_offset() {
    let node = Node::start().await;
    let client = node.client("p").await;
    for n in 0..3 {
        let response = client.sent(&[message("t", &format!("id-{n}"), "body")]).await;
        let entry = &response.entries[0];
        assert_eq!(entry.status.as_ref().unwrap().code, 20000);
        assert_eq!((entry.message_id.as_str(), entry.offset), (&*format!("id-{n}"), n));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_batch_is_stored_in_order_or_not_at_all() {
    let node = Node::start().await;
    let client = node.client("p").await;
    let batch: Vec<Message> = (0..5).map(|n| message("t", &format!("id-{n}"), "b")).collect();
    let response = client.sent(&batch).await;
    let offsets: Vec<i64> = response.entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);

    let mut bad = batch.clone();
    bad[3].body = bytes_of(0);
    assert_eq!(code(&client, &bad).await, 41302);
    let response = client.sent(&[message("t", "next", "b")]).await;
    assert_eq!(response.entries[0].offset, 5, "nothing of the bad batch was stored");
    node.stop().await;
}

#[tokio::test]
async fn a_repeated_send_is_stored_once_and_gets_the_first_answer() {
    let node = Node::start().await;
    let client = node.client("p").await;
    let first = client.sent(&[message("t", "id", "body")]).await;
    client.sent(&[message("t", "other", "body")]).await;
    let again = client.sent(&[message("t", "id", "body")]).await;
    assert_eq!(first.entries[0].offset, again.entries[0].offset);
    let other_body = client.sent(&[message("t", "id", "other body")]).await;
    assert_eq!(other_body.entries[0].offset, 2, "ids collide; such a send is another one");
    node.stop().await;
}

fn bytes_of(len: usize) -> bytes::Bytes {
    vec![b'x'; len].into()
}

#[tokio::test]
async fn each_broken_rule_has_its_own_code() {
    let node = Node::start().await;
    let client = node.client("p").await;
    let good = || message("t", "id", "body");
    let broken = |change: fn(&mut Message)| {
        let mut message = good();
        change(&mut message);
        message
    };
    let cases: Vec<(i32, Message)> = vec![
        (40002, broken(|m| m.topic = Some(resource("a topic")))),
        (40002, broken(|m| m.topic = Some(resource("rmq_sys_x")))),
        (40002, broken(|m| m.topic = Some(resource(&"t".repeat(128))))),
        (41302, broken(|m| m.body = bytes_of(0))),
        (41301, broken(|m| m.body = bytes_of((4 << 20) + 1))),
        (
            43101,
            broken(|m| {
                let properties = (0..129).map(|n| (format!("k{n}"), String::new()));
                m.user_properties = properties.collect::<HashMap<_, _>>();
            }),
        ),
        (43101, broken(|m| drop(m.user_properties.insert("k".into(), "v".repeat(16 << 10))))),
        (40007, broken(|m| drop(m.user_properties.insert("UNIQ_KEY".into(), "v".into())))),
        (40007, broken(|m| drop(m.user_properties.insert("a\u{1}".into(), "v".into())))),
        (40004, broken(|m| system(m).tag = Some("a|b".into()))),
        (40004, broken(|m| system(m).tag = Some("  ".into()))),
        (40005, broken(|m| system(m).keys = vec![" ".into()])),
        (40006, broken(|m| system(m).message_group = Some("g".repeat(64)))),
        (40009, broken(|m| system(m).message_id = " ".into())),
        (
            40012,
            broken(|m| {
                let later = proto::clock::wall_now().plus(std::time::Duration::from_hours(25));
                system(m).delivery_timestamp = Some(later.into());
            }),
        ),
    ];
    for (expected, message) in cases {
        assert_eq!(code(&client, std::slice::from_ref(&message)).await, expected, "{message:?}");
    }
    assert_eq!(code(&client, &[]).await, 40016);
    assert_eq!(code(&client, &[good(), message("u", "id", "b")]).await, 40016);
    client.sent(&[tagged("t", "with a legal tag", "标签")]).await;
    node.stop().await;
}

#[tokio::test]
async fn the_largest_body_is_stored() {
    let node = Node::start().await;
    let client = node.client("p").await;
    let mut largest = message("t", "id", "");
    largest.body = bytes_of(4 << 20);
    client.sent(&[largest]).await;
    let got = client.receive_all("g", "t", 1).await;
    assert_eq!(got[0].body.len(), 4 << 20);
    node.stop().await;
}

#[tokio::test]
async fn an_unknown_topic_is_refused_unless_topics_are_created_on_use() {
    let node = Node::with(|config| config.auto_create_topics = false).await;
    let client = node.client("p").await;
    assert_eq!(code(&client, &[message("t", "id", "body")]).await, 40402);
    let received = client.receive(crate::client::poll("g", "t")).await;
    assert_eq!(received.status.code, 40402);
    node.stop().await;
}

#[tokio::test]
async fn too_many_bytes_at_once_are_refused_and_nothing_is_done() {
    let node = Node::with(|config| {
        config.limits.send_bytes = broker::config::Size(1);
    })
    .await;
    let client = node.client("p").await;
    // One send alone always gets its turn; of many at once some find the budget in use.
    let many = futures::future::join_all((0..64).map(|n| {
        let client = client.clone();
        async move { client.send(&[message("t", &format!("id-{n}"), "body")]).await }
    }))
    .await;
    let codes: Vec<i32> = many.iter().map(|r| r.status.as_ref().unwrap().code).collect();
    let stored = codes.iter().filter(|code| **code == 20000).count();
    assert!(stored >= 1);
    assert!(codes.iter().all(|code| [20000, 42900].contains(code)), "{codes:?}");
    assert!(codes.contains(&42900));
    client.receive_all("g", "t", stored).await;
    node.stop().await;
}
