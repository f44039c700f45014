//! Deliveries of simple consumers: acknowledged, late, prolonged.

use std::time::{Duration, Instant};

use proto::v2::{Code, MessageType};
use tests::library::{Incoming, Outgoing, Refusal, Simple, Subscription};

use super::abilities::{Ability, has};
use super::stage::{ARRIVAL, BATCH, INVISIBLE, Stage, each_once, refused, sends, sends_many};

/// The shortest there is.
const SHORT: Duration = Duration::from_secs(10);
/// How much later than due a message may come again.
const LATE: Duration = Duration::from_secs(5);

pub(super) async fn what_is_acknowledged_does_not_come_again(stage: &Stage<'_>) {
    let topic = stage.topic("acked", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    let sent = sends_many(&producer, &topic, 50).await;
    let wanted = Subscription::of(&stage.own("acked"), &topic);
    let consumer = stage.simple(&wanted).await;
    let first = consumer.receive(50, SHORT).await.expect("a receive succeeds");
    assert!((1..=BATCH as usize).contains(&first.len()), "{} came", first.len());
    let (left, acked) = first.split_at(first.len() / 2);
    for message in acked {
        consumer.ack(message).await.expect("an ack succeeds");
    }
    // Twice is no harm to the messages, whatever the answer is.
    let _ = consumer.ack(&acked[0]).await;
    let rest = stage.drain_with(&consumer, &wanted).await;
    let (again, fresh): (Vec<Incoming>, Vec<Incoming>) =
        rest.into_iter().partition(|m| left.iter().any(|l| l.id == m.id));
    assert_eq!(again.len(), left.len());
    assert!(again.iter().all(|m| m.attempt == 2), "{again:?}");
    assert!(fresh.iter().all(|m| m.attempt == 1), "{fresh:?}");
    let once: Vec<Incoming> = acked.iter().chain(left).chain(&fresh).cloned().collect();
    assert_eq!(each_once(&once), sent);
}

pub(super) async fn a_late_acknowledgement_is_told_so(stage: &Stage<'_>) {
    let topic = stage.topic("late", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    sends(&producer, &Outgoing::to(&topic, "late")).await;
    let consumer = stage.simple(&Subscription::of(&stage.own("late"), &topic)).await;
    let message = one(&consumer, SHORT).await;
    tokio::time::sleep(SHORT + Duration::from_secs(1)).await;
    let late = consumer.ack(&message).await;
    if has(stage.language(), Ability::TellsRefusedAcks) {
        refused("a late ack", late, Code::InvalidReceiptHandle);
    } else {
        late.expect("this library says nothing");
    }
    let again = one(&consumer, SHORT).await;
    assert_eq!((&again.id, again.attempt), (&message.id, 2));
    consumer.ack(&again).await.expect("in time");
    if has(stage.language(), Ability::ChangeInvisible) {
        let changed = consumer.change(&again, SHORT).await;
        refused("a change after the ack", changed, Code::InvalidReceiptHandle);
    }
    assert_eq!(consumer.receive(1, SHORT).await.expect("nothing is left").len(), 0);
}

pub(super) async fn a_changed_duration_counts_from_its_change(stage: &Stage<'_>) {
    let topic = stage.topic("changed", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    let consumer = stage.simple(&Subscription::of(&stage.own("changed"), &topic)).await;
    if !has(stage.language(), Ability::ChangeInvisible) {
        sends(&producer, &Outgoing::to(&topic, "fixed")).await;
        let message = one(&consumer, SHORT).await;
        assert_eq!(consumer.change(&message, SHORT).await, Err(Refusal::Impossible));
        return;
    }
    for (body, first, then) in [("shorter", INVISIBLE, SHORT), ("longer", SHORT, 2 * SHORT)] {
        sends(&producer, &Outgoing::to(&topic, body)).await;
        let message = one(&consumer, first).await;
        let start = Instant::now();
        consumer.change(&message, then).await.expect("a change succeeds");
        let again = one(&consumer, SHORT).await;
        let after = start.elapsed();
        assert_eq!((again.text(), again.attempt), (body, 2));
        // One of the round trips is on either side of the clock.
        let soonest = then - Duration::from_millis(200);
        assert!((soonest..then + LATE).contains(&after), "{body}: after {after:?}");
        consumer.ack(&again).await.expect("in time");
    }
}

/// Polls until a message comes.
async fn one(consumer: &Simple<'_>, invisible: Duration) -> Incoming {
    let start = Instant::now();
    while start.elapsed() < ARRIVAL {
        let mut messages = consumer.receive(1, invisible).await.expect("a receive succeeds");
        if let Some(message) = messages.pop() {
            return message;
        }
    }
    panic!("no message in {ARRIVAL:?}");
}
