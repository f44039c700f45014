//! Message groups in order: by push and by receiving, over retries, with a filter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::v2::MessageType;
use tests::library::{Incoming, Outgoing, Producer, Subscription};

use super::abilities::{Ability, has};
use super::stage::{ARRIVAL, INVISIBLE, Stage, sends};

const SHORT: Duration = Duration::from_secs(10);

/// Sends `<group>-<n>` to message groups by turns.
async fn sends_in_order(producer: &Producer<'_>, topic: &str, groups: &[&str], count: usize) {
    for n in 0..count {
        for group in groups {
            let message = Outgoing::to(topic, &format!("{group}-{n}")).message_group(group);
            let message = message.property("n", &n.to_string());
            sends(producer, &message.tag(if n % 2 == 0 { "even" } else { "odd" })).await;
        }
    }
}

/// The numbers of each message group, in the order of their first deliveries.
fn order(messages: &[Incoming]) -> BTreeMap<String, Vec<usize>> {
    let mut order: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for message in messages {
        let (group, n) = message.text().rsplit_once('-').expect("<group>-<n>");
        assert_eq!(message.message_group.as_deref(), Some(group));
        let seen = order.entry(group.to_owned()).or_default();
        let n = n.parse().expect("a number");
        if !seen.contains(&n) {
            seen.push(n);
        }
    }
    order
}

fn texts(messages: &[Incoming]) -> Vec<&str> {
    messages.iter().map(Incoming::text).collect()
}

pub(super) async fn two_message_groups_arrive_in_order(stage: &Stage<'_>) {
    const EACH: usize = 50;
    let topic = stage.topic("ordered", MessageType::Fifo).await;
    let producer = stage.producer(&topic).await;
    let push = match has(stage.language(), Ability::Push) {
        true => {
            let group = stage.fifo_group("ordered-push").await;
            Some((stage.push(&Subscription::of(&group, &topic)).await, group))
        }
        false => None,
    };
    sends_in_order(&producer, &topic, &["a", "b"], EACH).await;
    let group = stage.fifo_group("ordered").await;
    let mut all = vec![stage.drain(&Subscription::of(&group, &topic)).await];
    if let Some((push, group)) = &push {
        stage.consumed(push, 2 * EACH, group, &topic).await;
        all.push(push.received());
    }
    let expected: Vec<usize> = (0..EACH).collect();
    for messages in all {
        assert_eq!(messages.len(), 2 * EACH);
        let order = order(&messages);
        assert_eq!((&order["a"], &order["b"]), (&expected, &expected));
    }
}

pub(super) async fn an_unacknowledged_head_blocks_its_message_group(stage: &Stage<'_>) {
    let topic = stage.topic("head", MessageType::Fifo).await;
    let producer = stage.producer(&topic).await;
    sends_in_order(&producer, &topic, &["g"], 4).await;
    let group = stage.fifo_group("head").await;
    let wanted = Subscription::of(&group, &topic);
    let (one, other) = (stage.simple(&wanted).await, stage.simple(&wanted).await);
    let head = one.receive(1, SHORT).await.expect("a receive succeeds");
    assert_eq!(texts(&head), ["g-0"]);
    for consumer in [&one, &other] {
        let blocked = consumer.receive(4, INVISIBLE).await.expect("nothing is no error");
        // Both polls together last as long as the head is invisible, or a little longer.
        assert!(texts(&blocked).first().is_none_or(|first| *first == "g-0"), "{blocked:?}");
        if let Some(again) = blocked.first() {
            assert_eq!(again.attempt, 2);
            for message in &blocked {
                consumer.ack(message).await.expect("an ack succeeds");
            }
        }
    }
    let rest = stage.drain(&wanted).await;
    assert!(order(&rest).values().flatten().is_sorted(), "{rest:?}");
    assert_eq!(stage.lag(&group, &topic).await, 0);
}

pub(super) async fn a_batch_begins_again_at_its_first_unacknowledged_message(stage: &Stage<'_>) {
    let topic = stage.topic("batch", MessageType::Fifo).await;
    let producer = stage.producer(&topic).await;
    sends_in_order(&producer, &topic, &["g"], 6).await;
    let group = stage.fifo_group("batch").await;
    let wanted = Subscription::of(&group, &topic);
    let consumer = stage.simple(&wanted).await;
    let start = Instant::now();
    let batch = consumer.receive(3, SHORT).await.expect("a receive succeeds");
    assert_eq!(texts(&batch), ["g-0", "g-1", "g-2"]);
    // Out of order, and the head not at all.
    consumer.ack(&batch[2]).await.expect("an ack succeeds");
    consumer.ack(&batch[1]).await.expect("an ack succeeds");
    let mut again = Vec::new();
    while again.is_empty() && start.elapsed() < ARRIVAL {
        again = consumer.receive(1, INVISIBLE).await.expect("nothing is no error");
    }
    assert!(start.elapsed() >= SHORT - Duration::from_millis(200), "{:?}", start.elapsed());
    assert_eq!((texts(&again), again[0].attempt), (vec!["g-0"], 2));
    consumer.ack(&again[0]).await.expect("an ack succeeds");
    let rest = stage.drain_with(&consumer, &wanted).await;
    assert_eq!(texts(&rest), ["g-3", "g-4", "g-5"], "what was acknowledged does not come again");
}

pub(super) async fn a_retry_keeps_the_order(stage: &Stage<'_>) {
    const COUNT: usize = 10;
    if !has(stage.language(), Ability::Push) {
        return;
    }
    let topic = stage.topic("retried", MessageType::Fifo).await;
    let group = stage.fifo_group("retried").await;
    let mut wanted = Subscription::of(&group, &topic).failing(1);
    wanted.fail_body = Some("g-3".to_owned());
    let push = stage.push(&wanted).await;
    let producer = stage.producer(&topic).await;
    sends_in_order(&producer, &topic, &["g"], COUNT).await;
    stage.consumed(&push, COUNT + 1, &group, &topic).await;
    let received = push.received();
    let expected = [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9].map(|n| format!("g-{n}"));
    assert_eq!(texts(&received), expected);
    let second = if has(stage.language(), Ability::CountsOwnRetries) { 2 } else { 1 };
    assert_eq!((received[3].attempt, received[4].attempt), (1, second));
}

/// Whether a filter wants the message of this number.
type Wanted = fn(usize) -> bool;

pub(super) async fn a_filtered_message_group_keeps_its_order(stage: &Stage<'_>) {
    const COUNT: usize = 12;
    let topic = &stage.topic("filtered", MessageType::Fifo).await;
    let producer = stage.producer(topic).await;
    sends_in_order(&producer, topic, &["a", "b"], COUNT).await;
    let rows: [(&str, bool, Wanted); 3] = [
        ("n > 5", true, |n| n > 5),
        ("n BETWEEN 3 AND 8 AND TAGS = 'odd'", true, |n| (3..=8).contains(&n) && n % 2 == 1),
        ("even", false, |n| n % 2 == 0),
    ];
    let checks = rows.into_iter().enumerate().map(|(row, (filter, sql, expected))| async move {
        let group = stage.fifo_group(&format!("filtered-{row}")).await;
        let wanted = Subscription::of(&group, topic);
        let wanted = if sql { wanted.sql(filter) } else { wanted.tags(filter) };
        let received = match has(stage.language(), Ability::Push) {
            false => stage.drain(&wanted).await,
            true => {
                let push = stage.push(&wanted).await;
                stage.consumed(&push, 1, &group, topic).await;
                push.received()
            }
        };
        let expected: Vec<usize> = (0..COUNT).filter(|n| expected(*n)).collect();
        let order = order(&received);
        assert_eq!(received.len(), 2 * expected.len(), "{filter}");
        assert_eq!((&order["a"], &order["b"]), (&expected, &expected), "{filter}");
    });
    futures::future::join_all(checks).await;
}
