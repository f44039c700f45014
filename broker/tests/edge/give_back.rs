//! Answers that do not reach their client: what they carried is there again, and nothing else is
//! touched.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use proto::{Timestamp, v2, v2::ReceiveMessageRequest};

use crate::{
    client::{Client, MESSAGE_NOT_FOUND, OK, message, poll},
    harness::{Node, SOON, eventually, within},
};

/// Larger than what is written ahead of a client that reads slowly.
const LARGE: usize = 60_000;
/// Messages in an answer that cannot be written ahead.
const MANY: usize = 20;

/// A poll as push consumers make it.
fn renewed(group: &str) -> ReceiveMessageRequest {
    ReceiveMessageRequest { auto_renew: true, ..poll(group, "t") }
}

async fn send_large(client: &Client, from: usize, count: usize) {
    for n in from..from + count {
        let mut large = message("t", &format!("id-{n}"), "");
        large.system_properties.as_mut().unwrap().queue_id = 0;
        large.body = vec![b'x'; LARGE].into();
        client.sent(&[large]).await;
    }
}

fn system(message: &v2::Message) -> &v2::SystemProperties {
    message.system_properties.as_ref().unwrap()
}

/// Begins to read an answer, and gives it up after the first message.
async fn give_up_in_the_middle(client: &Client, poll: ReceiveMessageRequest) {
    let mut answer = client.begin(poll).await;
    let status = within("the status", answer.next()).await.unwrap().unwrap();
    assert!(matches!(
        status.content,
        Some(v2::receive_message_response::Content::Status(status)) if status.code == OK
    ));
    within("a message", answer.next()).await.unwrap().unwrap();
}

/// Every answer was settled.
async fn nothing_is_on_its_way(node: &Node) {
    eventually("no answer is on its way", || async {
        (node.server().broker().answers_on_their_way() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_given_up_in_the_middle_is_there_again_at_once() {
    let node = Node::start().await;
    let (gone, stays) = (node.slow_client("gone").await, node.client("stays").await);
    send_large(&stays, 0, MANY).await;
    give_up_in_the_middle(&gone, renewed("g")).await;
    let again = within("all of it comes again", stays.receive_all("g", "t", MANY)).await;
    let attempts: Vec<_> = again.iter().map(|m| system(m).delivery_attempt.unwrap()).collect();
    // What went out may have been seen; the rest was not attempted.
    assert!(attempts.iter().all(|attempt| [1, 2].contains(attempt)), "{attempts:?}");
    assert!(attempts.contains(&1) && attempts.contains(&2), "{attempts:?}");
    nothing_is_on_its_way(&node).await;
    node.stop().await;
}

#[tokio::test]
async fn what_was_read_to_its_end_stays_where_it_is() {
    let node = Node::start().await;
    let (client, other) = (node.client("c").await, node.client("d").await);
    send_large(&client, 0, MANY).await;
    client.receive_all("g", "t", MANY).await;
    nothing_is_on_its_way(&node).await;
    let nothing = other.receive(poll("g", "t")).await;
    assert_eq!(nothing.status.code, MESSAGE_NOT_FOUND);
    node.stop().await;
}

#[tokio::test]
async fn a_long_worker_beside_polls_that_it_gives_up_keeps_its_message() {
    let node = Node::start().await;
    let client = node.slow_client("c").await;
    send_large(&client, 0, 1).await;
    let mine = client.receive(renewed("g")).await;
    assert_eq!(mine.messages.len(), 1);
    // It gives up polls that wait, and one that is being answered.
    for _ in 0..5 {
        drop(client.begin(renewed("g")).await);
    }
    send_large(&client, 1, MANY).await;
    give_up_in_the_middle(&client, renewed("g")).await;
    let broker = node.server().broker();
    let far = Timestamp(u64::MAX);
    let held = || broker.view().holdings(far, 9, |client| broker.trusted_since(client));
    let other = node.client("other").await;
    let rest = within("the rest comes again", other.receive_all("g", "t", MANY)).await;
    assert!(rest.iter().all(|m| system(m).message_id != "id-0"), "only what was given up");
    nothing_is_on_its_way(&node).await;
    assert_eq!(held().len(), 1, "the first message is renewed");
    let before = held()[0].due;
    tokio::time::sleep(Duration::from_millis(5)).await;
    broker::tasks::renew_until(broker, far).await;
    assert!(held()[0].due > before);
    client.ack("g", "t", &mine.messages).await;
    assert_eq!(held(), []);
    node.stop().await;
}

#[tokio::test]
async fn order_is_kept_over_answers_that_are_given_up() {
    let node = Node::start().await;
    let (gone, stays) = (node.slow_client("gone").await, node.client("stays").await);
    crate::ordered::put_group(&stays, true, 16).await;
    for n in 0..MANY {
        let mut large = message("t", &format!("id-{n:02}"), "");
        let system = large.system_properties.as_mut().unwrap();
        system.message_group = Some("one".into());
        system.message_type = v2::MessageType::Fifo.into();
        large.body = vec![b'x'; LARGE].into();
        stays.sent(&[large]).await;
    }
    for _ in 0..3 {
        give_up_in_the_middle(&gone, poll("g", "t")).await;
        nothing_is_on_its_way(&node).await;
    }
    let all = within("all of it comes again", stays.receive_all("g", "t", MANY)).await;
    let ids: Vec<_> = all.iter().map(|m| system(m).message_id.clone()).collect();
    let expected: Vec<_> = (0..MANY).map(|n| format!("id-{n:02}")).collect();
    assert_eq!(ids, expected);
    assert_eq!(system(&all[0]).delivery_attempt, Some(4), "it was seen three times");
    assert_eq!(system(&all[MANY - 1]).delivery_attempt, Some(1), "nobody has seen it before");
    node.stop().await;
}

#[tokio::test]
async fn many_polls_that_are_given_up_lose_nothing_and_repeat_nothing() {
    const MESSAGES: usize = 200;
    const POLLS: usize = 40;
    let node = Node::start().await;
    let (nervous, producer) = (node.client("nervous").await, node.client("p").await);
    // Polls are given up while messages come in, at every moment that there is.
    let polls: FuturesUnordered<_> = (0..POLLS)
        .map(|n| {
            let nervous = nervous.clone();
            async move {
                let answer = nervous.receive(poll("g", "t"));
                let patience = Duration::from_millis(3 * n as u64);
                let kept = tokio::time::timeout(patience, answer).await;
                let kept = kept.map_or(vec![], |received| received.messages);
                nervous.ack("g", "t", &kept).await;
                kept
            }
        })
        .collect();
    let (kept, ()) = tokio::join!(polls.collect::<Vec<_>>(), async {
        for n in 0..MESSAGES / 10 {
            let batch: Vec<_> = (0..10).map(|m| message("t", &format!("{n}-{m}"), "b")).collect();
            producer.sent(&batch).await;
        }
    });
    let kept: Vec<v2::Message> = kept.into_iter().flatten().collect();
    nothing_is_on_its_way(&node).await;
    // What had been written to the last byte when it was given up takes its invisible duration.
    let start = Instant::now();
    let mut rest = Vec::new();
    while kept.len() + rest.len() < MESSAGES && start.elapsed() < 2 * SOON {
        let received = producer.receive(poll("g", "t")).await.messages;
        producer.ack("g", "t", &received).await;
        rest.extend(received);
    }
    let ids: BTreeSet<_> = kept.iter().chain(&rest).map(|m| system(m).message_id.clone()).collect();
    assert_eq!((ids.len(), kept.len() + rest.len()), (MESSAGES, MESSAGES), "each of them once");
    node.stop().await;
}
