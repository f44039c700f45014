//! Messages with a time: on time, past, too far ahead, taken back.

use std::time::Instant;

use proto::v2::{Code, MessageType};
use tests::eventually;
use tests::library::{Incoming, Outgoing, Refusal, Subscription};

use super::abilities::{Ability, has};
use super::stage::{ARRIVAL, INVISIBLE, Stage, now_ms, refused, sends};

/// How far ahead a delivery may be.
const FARTHEST: u64 = 24 * 3600 * 1000;
/// How late it may be, in ms.
const LATEST: u64 = 1_000;

/// Polls until a message comes, and says when it did.
async fn next(stage: &Stage<'_>, group: &str, topic: &str) -> (Incoming, u64) {
    let consumer = stage.simple(&Subscription::of(group, topic)).await;
    let start = Instant::now();
    while start.elapsed() < ARRIVAL {
        let mut messages = consumer.receive(1, INVISIBLE).await.expect("a receive succeeds");
        if let Some(message) = messages.pop() {
            let now = now_ms();
            consumer.ack(&message).await.expect("an ack succeeds");
            return (message, now);
        }
    }
    panic!("no message in {ARRIVAL:?}");
}

pub(super) async fn messages_arrive_at_their_time(stage: &Stage<'_>) {
    let topic = stage.topic("timed", MessageType::Delay).await;
    let producer = stage.producer(&topic).await;
    let group = stage.own("timed-push");
    let push = match has(stage.language(), Ability::Push) {
        true => Some(stage.push(&Subscription::of(&group, &topic)).await),
        false => None,
    };
    // A whole second: one of the libraries knows no others.
    let due = (now_ms() / 1000 + 7) * 1000;
    sends(&producer, &Outgoing::to(&topic, "timed").deliver_at(due)).await;
    let (message, at) = next(stage, &stage.own("timed"), &topic).await;
    assert!((due..due + 5_000).contains(&at), "due at {due}, came at {at}");
    assert_eq!((message.text(), message.deliver_at_ms), ("timed", Some(due)));
    assert_eq!(message.attempt, 1);
    if let Some(push) = push {
        stage.consumed(&push, 1, &group, &topic).await;
        let received = push.received();
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].deliver_at_ms, Some(due));
    }
}

pub(super) async fn a_time_that_has_passed_means_now(stage: &Stage<'_>) {
    let topic = stage.topic("past", MessageType::Delay).await;
    let producer = stage.producer(&topic).await;
    let past = (now_ms() / 1000 - 20) * 1000;
    let sent = now_ms();
    sends(&producer, &Outgoing::to(&topic, "past").deliver_at(past)).await;
    let (message, at) = next(stage, &stage.own("past"), &topic).await;
    // Starting the consumer is in it.
    assert!(at < sent + 10_000, "it took {} ms", at - sent);
    assert_eq!(message.deliver_at_ms, Some(past), "the time is told nevertheless");
}

pub(super) async fn a_time_too_far_ahead_is_refused(stage: &Stage<'_>) {
    let topic = stage.topic("far", MessageType::Delay).await;
    let producer = stage.producer(&topic).await;
    let at = |milliseconds: u64| Outgoing::to(&topic, "far").deliver_at(now_ms() + milliseconds);
    sends(&producer, &at(FARTHEST - 60_000)).await;
    refused("24 h and 5 s", producer.send(&at(FARTHEST + 5_000)).await, Code::IllegalDeliveryTime);
}

pub(super) async fn a_message_can_be_recalled(stage: &Stage<'_>) {
    let topic = stage.topic("recalled", MessageType::Delay).await;
    let producer = stage.producer(&topic).await;
    let soon = || (now_ms() / 1000 + 5) * 1000;
    let due = soon();
    let first = sends(&producer, &Outgoing::to(&topic, "recalled").deliver_at(due)).await;
    if !has(stage.language(), Ability::Recall) {
        assert!(first.recall_handle.is_none(), "this library shows no handles");
        assert_eq!(producer.recall(&topic, "none").await, Err(Refusal::Impossible));
        return;
    }
    let kept = sends(&producer, &Outgoing::to(&topic, "kept").deliver_at(soon())).await;
    let handle = first.recall_handle.expect("a delayed message has a handle");
    assert_eq!(producer.recall(&topic, &handle).await.expect("in time"), first.id);
    assert_eq!(producer.recall(&topic, &handle).await.expect("again is no harm"), first.id);
    let garbage = producer.recall(&topic, "bm9uc2Vuc2U").await;
    refused("a recall with a wrong handle", garbage, Code::BadRequest);

    let (message, _) = next(stage, &stage.own("recalled"), &topic).await;
    assert_eq!((message.text(), &message.id), ("kept", &kept.id));
    let handle = kept.recall_handle.expect("a delayed message has a handle");
    let late = producer.recall(&topic, &handle).await;
    refused("a recall of what was delivered", late, Code::PreconditionFailed);
    eventually("the recalled one would have come", ARRIVAL, async || {
        let late = now_ms().saturating_sub(due);
        if late > LATEST { Ok(()) } else { Err(format!("{late} ms")) }
    })
    .await;
    let left = stage.drain(&Subscription::of(&stage.own("recalled"), &topic)).await;
    assert_eq!(left.len(), 0, "{left:?}");
}
