//! What is kept no longer: by time, by bytes, for lack of space; and what is read below it.

use std::time::Duration;

use futures::StreamExt;
use proto::{
    admin::{ChangeRequest, Retention, change_request::Change},
    clock::to_wire,
    v2::{MessageQueue, PullMessageRequest, pull_message_response::Content},
};

use crate::{
    client::{Client, OK, message, poll, resource},
    harness::{Node, eventually},
};

const ILLEGAL_OFFSET: i32 = 40019;
const TOO_MANY_REQUESTS: i32 = 42900;

async fn one_queue() -> Node {
    Node::with(|config| config.auto_create_queues = 1).await
}

async fn keep(client: &Client, ms: u64, bytes: u64) {
    let change = Change::PutRetention(Retention { topic: "t".into(), ms, bytes, version: 0 });
    let request = ChangeRequest { change: Some(change) };
    let answer = client.admin().change(request).await.unwrap().into_inner();
    assert_eq!(answer.error, None);
}

async fn send(client: &Client, body: &str) {
    // Ids are short, and the bodies differ in their last bytes.
    let id = &body[body.len().saturating_sub(9)..];
    assert_eq!(client.sent(&[message("t", id, body)]).await.entries.len(), 1);
}

/// The code, the bodies, and where to go on.
async fn pull(client: &Client, offset: i64) -> (i32, Vec<String>, Option<i64>) {
    let queue = MessageQueue { topic: Some(resource("t")), id: 0, ..Default::default() };
    let request = PullMessageRequest {
        group: Some(resource("g")),
        message_queue: Some(queue),
        offset,
        batch_size: 32,
        filter_expression: None,
        long_polling_timeout: Some(to_wire(Duration::ZERO)),
    };
    let answer = client.rpc.clone().pull_message(client.request(request)).await.unwrap();
    let (mut code, mut bodies, mut next) = (0, vec![], None);
    let mut answer = answer.into_inner();
    while let Some(part) = answer.next().await {
        match part.unwrap().content.unwrap() {
            Content::Status(status) => code = status.code,
            Content::Message(m) => bodies.push(String::from_utf8_lossy(&m.body).into_owned()),
            Content::NextOffset(offset) => next = Some(offset),
        }
    }
    (code, bodies, next)
}

/// The first offset that is kept.
fn min(node: &Node) -> u64 {
    node.server().broker().view().queue_ends(&"t".parse().unwrap())[0].1.0
}

#[tokio::test]
async fn a_pull_below_the_first_message_is_told_where_that_is() {
    let node = one_queue().await;
    let client = node.client("c").await;
    send(&client, "one").await;
    send(&client, "two").await;
    keep(&client, 1, 0).await;
    eventually("both have expired", || async { (min(&node) == 2).then_some(()) }).await;
    keep(&client, u64::MAX, 0).await;
    send(&client, "three").await;
    assert_eq!(pull(&client, 0).await, (ILLEGAL_OFFSET, vec![], Some(2)));
    assert_eq!(pull(&client, 2).await, (OK, vec!["three".to_owned()], Some(3)));
    let node = node.restart().await;
    let client = node.client("c").await;
    assert_eq!(pull(&client, 1).await, (ILLEGAL_OFFSET, vec![], Some(2)));
    assert_eq!(client.receive(poll("new", "t")).await.bodies(), ["three"]);
    node.stop().await;
}

#[tokio::test]
async fn a_topic_keeps_its_bytes_and_no_more() {
    let node = one_queue().await;
    let client = node.client("c").await;
    let body = |n: u32| format!("{n:0>1000}");
    for n in 0..20 {
        send(&client, &body(n)).await;
    }
    let topic = "t".parse().unwrap();
    let all = node.server().broker().view().kept_of(&topic);
    assert_eq!(all.references, 20);
    let bound = all.bytes / 2;
    keep(&client, 0, bound).await;
    eventually("half of them has gone", || async { (min(&node) > 0).then_some(()) }).await;
    let kept = node.server().broker().view().kept_of(&topic);
    assert!(kept.bytes <= bound, "{} of {bound}", kept.bytes);
    assert!((8..=10).contains(&kept.references), "{} are too few", kept.references);
    let (code, bodies, _) = pull(&client, i64::try_from(min(&node)).unwrap()).await;
    assert_eq!((code, bodies.last()), (OK, Some(&body(19))));
    node.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_refuses_sends_and_serves_the_rest() {
    let node = Node::with(|config| {
        config.auto_create_queues = 1;
        config.log.disk_high = 100;
        config.log.disk_reserve.0 = 1 << 50;
    })
    .await;
    let client = node.client("c").await;
    send(&client, "stored").await;
    let config = node.server().broker().disk().space();
    assert!(config.total > 0, "the disk was looked at");
    let node = node
        .restart_with(|config| {
            // Any disk is as full as that.
            config.log.disk_full = 1;
        })
        .await;
    let client = node.client("c").await;
    let refused = eventually("sends are refused", || async {
        let status = client.send(&[message("t", "more", "more")]).await.status.unwrap();
        (status.code != OK).then_some(status)
    })
    .await;
    assert_eq!(refused.code, TOO_MANY_REQUESTS);
    assert!(refused.message.contains("disk"), "{}", refused.message);
    assert_eq!(client.receive(poll("g", "t")).await.bodies()[0], "stored");
    let node = node.restart_with(|config| config.log.disk_full = 100).await;
    let client = node.client("c").await;
    send(&client, "later").await;
    node.stop().await;
}
