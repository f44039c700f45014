//! ReceiveMessage: what is handed out, when, and to whom.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use md5::{Digest, Md5};
use proto::{clock::to_wire, v2};

use crate::{
    client::{Client, MESSAGE_NOT_FOUND, OK, finish, message, poll, tagged},
    harness::{Node, eventually, metric, within},
};

#[tokio::test]
async fn a_message_arrives_with_all_that_clients_need() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let mut sent = tagged("t", "id-1", "tag");
    sent.user_properties.insert("colour".into(), "blue".into());
    sent.system_properties.as_mut().unwrap().keys = vec!["k1".into(), "k2".into()];
    client.sent(&[sent.clone()]).await;

    let received = client.receive(poll("g", "t")).await;
    assert_eq!(received.status.code, OK);
    assert!(received.has_delivery_time);
    let got = &received.messages[0];
    let (system, before) =
        (got.system_properties.as_ref().unwrap(), sent.system_properties.as_ref().unwrap());
    assert_eq!((got.topic.as_ref(), &got.body), (sent.topic.as_ref(), &sent.body));
    assert_eq!(got.user_properties, sent.user_properties);
    assert_eq!((&system.message_id, &system.tag), (&before.message_id, &before.tag));
    assert_eq!(system.keys, before.keys);
    assert_eq!(system.born_timestamp, before.born_timestamp);
    assert_eq!(system.delivery_attempt, Some(1));
    assert_eq!((system.queue_id, system.queue_offset), (0, Some(0)));
    assert_eq!(system.body_encoding(), v2::Encoding::Identity);
    assert_eq!(system.message_type(), v2::MessageType::Normal);
    assert!(system.store_timestamp.is_some());
    assert!(!system.receipt_handle.as_ref().unwrap().is_empty());
    let digest = system.body_digest.as_ref().unwrap();
    let expected: String = Md5::digest(&got.body).iter().map(|b| format!("{b:02X}")).collect();
    assert_eq!((digest.r#type(), &digest.checksum), (v2::DigestType::Md5, &expected));
    node.stop().await;
}

#[tokio::test]
async fn every_consumer_group_receives_every_message() {
    let node = Node::start().await;
    let client = node.client("c").await;
    for n in 0..20 {
        let mut message = message("t", &format!("id-{n}"), &n.to_string());
        message.system_properties.as_mut().unwrap().queue_id = n % 8;
        client.sent(&[message]).await;
    }
    for group in ["g", "h"] {
        let all = client.receive_all(group, "t", 20).await;
        let ids: BTreeSet<&str> =
            all.iter().map(|m| &*m.system_properties.as_ref().unwrap().message_id).collect();
        assert_eq!(ids.len(), 20);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_waiting_poll_wakes_when_a_message_arrives() {
    let node = Node::start().await;
    let (consumer, producer) = (node.client("c").await, node.client("p").await);
    let waiting = consumer.begin(poll("g", "t")).await;
    wait_for_pollers(&node, 1).await;
    let sent_at = Instant::now();
    producer.sent(&[message("t", "id", "body")]).await;
    let received = within("the poll ends", finish(waiting)).await;
    assert_eq!(received.bodies(), ["body"]);
    assert!(sent_at.elapsed() < Duration::from_secs(2), "long before the poll's own end");
    node.stop().await;
}

async fn wait_for_pollers(node: &Node, count: u32) {
    eventually("polls wait", || async {
        let page = node.page("/metrics").await;
        metric(&page, "raftmq_long_polls", &[]).filter(|polls| *polls == f64::from(count))
    })
    .await;
}

#[tokio::test]
async fn an_empty_poll_ends_by_itself_and_never_reaches_the_log() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    client.receive_all("g", "t", 1).await;
    let before = node.server().broker().view().digest();
    let start = Instant::now();
    let received = client.receive(poll("g", "t")).await;
    assert_eq!(received.status.code, MESSAGE_NOT_FOUND);
    assert!(received.has_delivery_time);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(7), "{took:?}");
    assert_eq!(node.server().broker().view().digest(), before);
    node.stop().await;
}

#[tokio::test]
async fn only_tags_that_match_exactly_are_received_and_the_rest_is_skipped() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let batch = [
        tagged("t", "1", "AaAa"),
        tagged("t", "2", "BBBB"),
        tagged("t", "3", "x"),
        message("t", "4", "no tag"),
        tagged("t", "5", "AaAa"),
    ];
    client.sent(&batch).await;
    let mut wanted = poll("g", "t");
    wanted.filter_expression.as_mut().unwrap().expression = "AaAa || x".into();
    let received = client.receive(wanted.clone()).await;
    let ids: Vec<&str> = received
        .messages
        .iter()
        .map(|m| &*m.system_properties.as_ref().unwrap().message_id)
        .collect();
    assert_eq!(ids, ["1", "3", "5"]);
    client.ack("g", "t", &received.messages).await;

    // Those that were not wanted count as consumed.
    client.sent(&[tagged("t", "6", "x")]).await;
    let received = client.receive(poll("g", "t")).await;
    assert_eq!(received.bodies(), ["6"]);

    wanted.filter_expression.as_mut().unwrap().expression = "||".into();
    assert_eq!(client.receive(wanted).await.status.code, 40010);
    node.stop().await;
}

#[tokio::test]
async fn an_unacknowledged_message_comes_again_when_its_time_is_over() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "id", "body")]).await;
    let first = client.receive(poll("g", "t")).await;
    client.change_invisible("g", &first.messages[0], Duration::from_secs(2)).await;
    let changed = Instant::now();
    let again = client.receive(poll("g", "t")).await;
    let took = changed.elapsed();
    assert_eq!(again.bodies(), ["body"]);
    assert!(took >= Duration::from_millis(1900), "not before its time: {took:?}");
    assert!(took < Duration::from_secs(4), "soon after its time: {took:?}");
    let system = again.messages[0].system_properties.as_ref().unwrap();
    assert_eq!(system.delivery_attempt, Some(2));
    assert_eq!(system.queue_offset, Some(0));
    node.stop().await;
}

#[tokio::test]
async fn a_message_is_held_by_one_consumer_at_a_time() {
    let node = Node::start().await;
    let producer = node.client("p").await;
    const CONSUMERS: usize = 16;
    const MESSAGES: usize = 640;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..CONSUMERS {
        let consumer = node.client(&format!("c{n}")).await;
        tasks.spawn(async move { drain(&consumer).await });
    }
    for n in 0..MESSAGES / 10 {
        let batch: Vec<v2::Message> =
            (0..10).map(|m| message("t", &format!("{n}-{m}"), "b")).collect();
        producer.sent(&batch).await;
    }
    let received: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(received.len(), MESSAGES);
    assert_eq!(received.iter().collect::<BTreeSet<_>>().len(), MESSAGES);
    node.stop().await;
}

/// Receives and acknowledges until a poll ends empty.
async fn drain(consumer: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let received = consumer.receive(poll("g", "t")).await;
        if received.status.code == MESSAGE_NOT_FOUND {
            return ids;
        }
        assert_eq!(received.status.code, OK, "{received:?}");
        consumer.ack("g", "t", &received.messages).await;
        ids.extend(received.messages.into_iter().map(|m| m.system_properties.unwrap().message_id));
    }
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_told_why() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let broken = |change: fn(&mut v2::ReceiveMessageRequest)| {
        let mut poll = poll("g", "t");
        change(&mut poll);
        poll
    };
    let seconds = |s: u64| Some(to_wire(Duration::from_secs(s)));
    let mut short = poll("g", "t");
    short.invisible_duration = seconds(9);
    let mut long = poll("g", "t");
    long.invisible_duration = seconds(12 * 3600 + 1);
    let cases = [
        (40003, broken(|p| p.group = Some(crate::client::resource("a group")))),
        (
            40002,
            broken(|p| {
                p.message_queue.as_mut().unwrap().topic = Some(crate::client::resource("a topic"));
            }),
        ),
        (40011, short.clone()),
        (40011, long.clone()),
    ];
    for (code, poll) in cases {
        assert_eq!(client.receive(poll).await.status.code, code);
    }
    let text = client.receive(short).await.status.message;
    assert!(text.contains("the invisibleTime is too small"), "{text}");
    let text = client.receive(long).await.status.message;
    assert!(text.contains("the invisibleTime is too large"), "{text}");

    let mut hurried = client.request(poll("g", "t"));
    hurried.set_timeout(Duration::from_secs(3));
    let stream = client.rpc.clone().receive_message(hurried).await.unwrap().into_inner();
    assert_eq!(finish(stream).await.status.code, 40018);

    let mut impatient = poll("g", "t");
    for wait in [None, seconds(0)] {
        impatient.long_polling_timeout = wait;
        let mut request = client.request(impatient.clone());
        request.set_timeout(Duration::from_secs(3));
        let stream = client.rpc.clone().receive_message(request).await.unwrap().into_inner();
        assert_eq!(finish(stream).await.status.code, 40401, "who does not wait finds nothing");
    }
    node.stop().await;
}

#[tokio::test]
async fn batch_sizes_are_brought_into_range() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let batch: Vec<v2::Message> = (0..40).map(|n| message("t", &n.to_string(), "b")).collect();
    client.sent(&batch).await;
    let mut greedy = poll("g", "t");
    greedy.batch_size = 100_000;
    assert_eq!(client.receive(greedy.clone()).await.messages.len(), 32);
    greedy.batch_size = 0;
    assert_eq!(client.receive(greedy).await.messages.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_cancelled_poll_takes_nothing_along() {
    let node = Node::start().await;
    let (gone, stays) = (node.client("gone").await, node.client("stays").await);
    let waiting = gone.begin(poll("g", "t")).await;
    wait_for_pollers(&node, 1).await;
    drop(waiting);
    wait_for_pollers(&node, 0).await;
    stays.sent(&[message("t", "id", "body")]).await;
    let received = stays.receive(poll("g", "t")).await;
    assert_eq!(received.bodies(), ["body"]);
    let system = received.messages[0].system_properties.as_ref().unwrap();
    assert_eq!(system.delivery_attempt, Some(1), "nobody had it before");
    node.stop().await;
}

#[tokio::test]
async fn polls_over_the_limit_are_refused() {
    let node = Node::with(|config| config.limits.long_polls = 2).await;
    let client = node.client("c").await;
    let waiting = [client.begin(poll("g", "t")).await, client.begin(poll("g", "t")).await];
    wait_for_pollers(&node, 2).await;
    let refused = client.receive(poll("g", "t")).await;
    assert_eq!(refused.status.code, 42900);
    drop(waiting);
    node.stop().await;
}

#[tokio::test]
async fn any_queue_id_serves_all_queues() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let mut elsewhere = message("t", "id", "body");
    elsewhere.system_properties.as_mut().unwrap().queue_id = 5;
    client.sent(&[elsewhere]).await;
    let mut only_zero = poll("g", "t");
    only_zero.message_queue.as_mut().unwrap().id = 0;
    assert_eq!(client.receive(only_zero).await.bodies(), ["body"]);
    node.stop().await;
}
