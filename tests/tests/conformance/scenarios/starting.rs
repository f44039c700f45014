//! Clients that start, and what they are told at once when they ask for what cannot be.

use std::time::{Duration, Instant};

use proto::v2::{Code, MessageType};
use tests::library::{Outgoing, Refusal, Subscription};
use tests::official::Language;

use super::abilities::{Ability, Check, checks, has};
use super::stage::{BATCH, INVISIBLE, Stage, refused, refused_by_library, sends, sends_many};

pub(super) async fn producers_start(stage: &Stage<'_>) {
    let topic = stage.topic("starts", MessageType::Normal).await;
    let twice = stage.library.producer(&[&topic, &topic], None).await.expect("it starts");
    sends(&twice, &Outgoing::to(&topic, "named twice")).await;
    twice.close().await.expect("it closes");
    let once = stage.library.producer_trying(&[&topic], None, Some(1)).await.expect("it starts");
    sends(&once, &Outgoing::to(&topic, "one attempt")).await;
    once.close().await.expect("it closes");
    let unnamed = stage.library.producer(&[], None).await.expect("it starts");
    sends(&unnamed, &Outgoing::to(&topic, "not named")).await;
    unnamed.close().await.expect("it closes");
    let group = stage.own("starts");
    assert_eq!(stage.drain(&Subscription::of(&group, &topic)).await.len(), 3);
}

/// Topics are not made by asking for them, and the code says so.
pub(super) async fn what_is_missing_is_told(stage: &Stage<'_>) {
    let (topic, missing) = (stage.topic("there", MessageType::Normal).await, stage.own("missing"));
    let producer = stage.producer(&topic).await;
    let told = |what: &str, result: Result<(), Refusal>| {
        if has(stage.language(), Ability::TellsMissingTopics) {
            refused(what, result, Code::TopicNotFound);
        } else {
            refused_by_library(what, result);
        }
    };
    let sent = producer.send(&Outgoing::to(&missing, "nowhere")).await;
    told("a send to a missing topic", sent.map(drop));
    let wanted = Subscription::of(&stage.own("missing"), &missing);
    if has(stage.language(), Ability::FailsWithoutTopic) {
        let started = stage.library.producer(&[&missing], None).await.map(drop);
        fails_without_topic(stage, started);
        let started = stage.library.producer(&[&topic, &missing], None).await.map(drop);
        if has(stage.language(), Ability::FailsWithSomeTopics) {
            fails_without_topic(stage, started);
        } else {
            assert_eq!(started, Err(Refusal::Hangs));
        }
        fails_without_topic(stage, stage.library.simple(&wanted).await.map(drop));
        if has(stage.language(), Ability::Push) {
            fails_without_topic(stage, stage.library.push(&wanted).await.map(drop));
        }
    } else {
        let consumer = stage.simple(&wanted).await;
        told("a receive from a missing topic", consumer.receive(1, INVISIBLE).await.map(drop));
    }
    if !has(stage.language(), Ability::Push) {
        let started = stage.library.push(&Subscription::of(&stage.own("none"), &topic)).await;
        assert_eq!(started.expect_err("there is none"), Refusal::Impossible);
    }
}

fn fails_without_topic(stage: &Stage<'_>, started: Result<(), Refusal>) {
    match started {
        Err(Refusal::Server { code: Code::TopicNotFound, .. }) => {}
        // Go puts the code into its text.
        Err(Refusal::Library { text })
            if stage.language() == Language::Go && text.contains("TOPIC_NOT_FOUND") => {}
        other => panic!("a start without its topic: {other:?}"),
    }
}

pub(super) async fn invisible_durations_have_bounds(stage: &Stage<'_>) {
    let topic = stage.topic("invisible", MessageType::Normal).await;
    let wanted = Subscription::of(&stage.own("invisible"), &topic).waiting(5_000);
    let consumer = stage.simple(&wanted).await;
    let mut wrong = vec![(9_000, "too small"), (43_201_000, "too large")];
    let mut right = vec![10_000, 43_200_000];
    if has(stage.language(), Ability::Milliseconds) {
        wrong.extend([(9_999, "too small"), (43_200_001, "too large")]);
        right.push(10_001);
    }
    for (milliseconds, why) in wrong {
        match consumer.receive(1, Duration::from_millis(milliseconds)).await {
            Err(Refusal::Server { code: Code::IllegalInvisibleTime, text }) => {
                let expected = format!("the invisibleTime is {why}");
                assert!(text.contains(&expected), "{milliseconds} ms: {text}");
            }
            other => panic!("{milliseconds} ms is {why}: {other:?}"),
        }
    }
    for milliseconds in right {
        let received = consumer.receive(1, Duration::from_millis(milliseconds)).await;
        assert_eq!(received.expect("it is within bounds").len(), 0);
    }
}

pub(super) async fn answers_have_a_bound(stage: &Stage<'_>) {
    let topic = stage.topic("bound", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    sends_many(&producer, &topic, 40).await;
    let consumer = stage.simple(&Subscription::of(&stage.own("bound"), &topic)).await;
    let nothing = consumer.receive(0, INVISIBLE).await;
    if checks(stage.language(), Check::ReceiveOfNothing) {
        refused_by_library("a receive of nothing", nothing);
    } else {
        assert_eq!(nothing.expect("one is the least").len(), 1);
    }
    for max in [BATCH + 1, 100_000] {
        let received = consumer.receive(max, INVISIBLE).await.expect("a large number is fine");
        assert!((1..=BATCH as usize).contains(&received.len()), "{} came", received.len());
    }
}

pub(super) async fn an_empty_poll_waits_as_long_as_it_should(stage: &Stage<'_>) {
    let topic = stage.topic("empty", MessageType::Normal).await;
    let wanted = Subscription::of(&stage.own("empty"), &topic);
    let patient = stage.simple(&wanted.clone().waiting(10_000)).await;
    let start = Instant::now();
    assert_eq!(patient.receive(BATCH, INVISIBLE).await.expect("nothing is no error").len(), 0);
    let waited = start.elapsed();
    assert!((9_900..20_000).contains(&waited.as_millis()), "it waited {waited:?}");

    let hurried = stage.simple(&wanted.waiting(0)).await;
    let start = Instant::now();
    let nothing = hurried.receive(BATCH, INVISIBLE).await;
    assert!(start.elapsed() < Duration::from_secs(10), "it waited {:?}", start.elapsed());
    if has(stage.language(), Ability::PollsWithoutWaiting) {
        assert_eq!(nothing.expect("nothing is no error").len(), 0);
    } else {
        // Its deadline has passed before the server sees it: whatever it is told, it comes back.
        assert_ne!(nothing.map(|messages| messages.len()), Err(Refusal::Hangs));
    }
}
