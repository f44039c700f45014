//! Clients that start, and what they are told at once when they ask for what cannot be.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proto::v2::{Code, MessageType};
use tests::library::{Keys, Options, Outgoing, Refusal, Subscription};
use tests::official::Language;

use super::abilities::{Ability, Check, checks, has};
use super::stage::{
    ARRIVAL, BATCH, INVISIBLE, Stage, each_once, refused, refused_by_either, refused_by_library,
    sends, sends_many,
};

pub(super) async fn producers_start(stage: &Stage<'_>) {
    let topic = stage.topic("starts", MessageType::Normal).await;
    let twice = stage.library.producer(&[&topic, &topic], None).await.expect("it starts");
    sends(&twice, &Outgoing::to(&topic, "named twice")).await;
    twice.close().await.expect("it closes");
    // Other libraries, and the server, take fewer attempts than one for one.
    for attempts in [1, -1] {
        let options = Options { attempts: Some(attempts), ..Options::default() };
        let started = stage.library.producer_with(&[&topic], options).await;
        if attempts < 1 && checks(stage.language(), Check::Attempts) {
            refused_by_library("fewer attempts than one", started.map(drop));
            sends(&stage.producer(&topic).await, &Outgoing::to(&topic, "refused")).await;
            continue;
        }
        let producer = started.expect("it starts");
        sends(&producer, &Outgoing::to(&topic, &format!("{attempts} attempts"))).await;
        producer.close().await.expect("it closes");
    }
    // Without keys, as all others, nothing is signed.
    let keys = Keys { access_key: "billing".to_owned(), secret_key: "secret".to_owned() };
    let options = Options { keys: Some(keys), ..Options::default() };
    let signing = stage.library.producer_with(&[&topic], options).await.expect("it starts");
    sends(&signing, &Outgoing::to(&topic, "signed")).await;
    signing.close().await.expect("it closes");
    let unnamed = stage.library.producer(&[], None).await.expect("it starts");
    sends(&unnamed, &Outgoing::to(&topic, "not named")).await;
    unnamed.close().await.expect("it closes");
    let group = stage.own("starts");
    assert_eq!(stage.drain(&Subscription::of(&group, &topic)).await.len(), 5);
}

/// Calls that do not wait end as those that do, however many are under way.
pub(super) async fn calls_that_do_not_wait_end_alike(stage: &Stage<'_>) {
    let topic = &stage.topic("calls", MessageType::Normal).await;
    let wanted = Subscription::of(&stage.own("calls"), topic).waiting(10_000);
    let consumer = stage.simple(&wanted).await;
    // Nothing is there yet, and the group is new: all of them come back nevertheless.
    let polls = (0..5).map(|_| consumer.receive_asynchronously(BATCH, INVISIBLE));
    for messages in futures::future::join_all(polls).await {
        assert_eq!(messages.expect("nothing is no error").len(), 0);
    }
    let producer = stage.producer(topic).await;
    let bodies: BTreeSet<String> = (0..50).map(|n| format!("message {n}")).collect();
    let sends = bodies.iter().map(|body| {
        let message = Outgoing { asynchronous: true, ..Outgoing::to(topic, body) };
        let producer = &producer;
        async move { producer.send(&message).await.expect("it is taken").id }
    });
    let ids: BTreeSet<String> = futures::future::join_all(sends).await.into_iter().collect();
    assert_eq!(ids.len(), bodies.len(), "each has a receipt of its own");
    let wrong = Outgoing { asynchronous: true, ..Outgoing::to(topic, "wrong").tag("a\0") };
    refused("NUL in a tag", producer.send(&wrong).await, Code::IllegalMessageTag);

    let (mut came, start) = (Vec::new(), Instant::now());
    while came.len() < bodies.len() && start.elapsed() < ARRIVAL {
        let received = consumer.receive_asynchronously(BATCH, INVISIBLE).await;
        for message in received.expect("a receive succeeds") {
            consumer.ack(&message).await.expect("an ack succeeds");
            came.push(message);
        }
    }
    assert_eq!(each_once(&came), bodies);
    assert_eq!(came.iter().map(|m| m.id.clone()).collect::<BTreeSet<_>>(), ids);
}

/// Names of topics and groups that cannot be, with the reference's codes.
pub(super) async fn names_that_cannot_be_are_refused(stage: &Stage<'_>) {
    let topic = stage.topic("names", MessageType::Normal).await;
    let producer = stage.library.producer(&[], None).await.expect("it starts");
    let told = |what: &str, check: Check, result: Result<(), Refusal>, code: Code| {
        if checks(stage.language(), check) {
            refused_by_library(what, result);
        } else {
            refused(what, result, code);
        }
    };
    for name in ["no topic", "topic?", "主题"] {
        let sent = producer.send(&Outgoing::to(name, "nowhere")).await.map(drop);
        told(name, Check::TopicName, sent, Code::IllegalTopic);
    }
    let long = "t".repeat(128);
    let sent = producer.send(&Outgoing::to(&long, "nowhere")).await.map(drop);
    refused_by_either("a topic of 128 letters", sent, Code::IllegalTopic);
    let sent = producer.send(&Outgoing::to("rmq_sys_own", "nowhere")).await.map(drop);
    refused_by_either("a topic of the system", sent, Code::IllegalTopic);
    if !has(stage.language(), Ability::SurvivesWrongGroups) {
        // As with a wrong filter: it waits for settings that do not come.
        let started = stage.library.simple(&Subscription::of("no group", &topic)).await;
        assert!(matches!(started, Err(Refusal::Hangs)), "{started:?}");
        return;
    }
    for name in ["no group", "group?", "组"] {
        let received = receives(stage, name, &topic).await;
        told(name, Check::GroupName, received, Code::IllegalConsumerGroup);
    }
    let received = receives(stage, &"g".repeat(121), &topic).await;
    refused_by_either("a group of 121 letters", received, Code::IllegalConsumerGroup);
    let received = receives(stage, "CID_RMQ_SYS_TRANS", &topic).await;
    refused_by_either("a group of the system", received, Code::IllegalConsumerGroup);
    // The old protocol keeps this name for itself; here it is one like any other.
    assert_eq!(receives(stage, "DEFAULT_CONSUMER", &topic).await, Ok(()));
    let longest = "g".repeat(119);
    let group = format!("{}{}", &stage.name()[..1], &longest);
    assert_eq!(receives(stage, &group, &topic).await, Ok(()), "120 letters are fine");
}

/// Starts a consumer and receives nothing.
async fn receives(stage: &Stage<'_>, group: &str, topic: &str) -> Result<(), Refusal> {
    let consumer = stage.library.simple(&Subscription::of(group, topic)).await?;
    let received = consumer.receive(1, INVISIBLE).await.map(drop);
    consumer.close().await.expect("it closes");
    received
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
