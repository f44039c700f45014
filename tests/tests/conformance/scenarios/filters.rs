//! Tags and expressions choose messages, and nothing else does.

use std::collections::BTreeSet;

use proto::v2::{Code, MessageType};
use tests::library::{Incoming, Outgoing, Refusal, Subscription};

use super::abilities::{Ability, has};
use super::stage::{BATCH, INVISIBLE, Stage, each_once, refused, sends};

fn bodies(messages: &[Incoming]) -> BTreeSet<&str> {
    messages.iter().map(Incoming::text).collect()
}

/// Every consumer of these, with a group of its own, gets exactly these bodies. All of them run at
/// once.
async fn choose(stage: &Stage<'_>, wanted: Vec<(Subscription, BTreeSet<&str>)>) {
    let checks = wanted.iter().map(|(subscription, expected)| async move {
        let received = stage.drain(subscription).await;
        each_once(&received);
        assert_eq!(&bodies(&received), expected, "{:?} by receiving", subscription.filter);
        if has(stage.language(), Ability::Push) {
            let group = format!("{}-push", subscription.group);
            let subscription = Subscription { group, ..subscription.clone() };
            let push = stage.push(&subscription).await;
            let (group, topic) = (&subscription.group, &subscription.topic);
            stage.consumed(&push, expected.len(), group, topic).await;
            let received = push.received();
            push.close().await.expect("it closes");
            each_once(&received);
            assert_eq!(&bodies(&received), expected, "{:?} by push", subscription.filter);
        }
    });
    futures::future::join_all(checks).await;
}

pub(super) async fn tags_choose_messages(stage: &Stage<'_>) {
    let topic = stage.topic("tags", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    let long = "t".repeat(10 << 10);
    // The second pair has one hash in Java, the last one (FNV-1a) in the server.
    let (one, other) = ("8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ");
    let tags =
        ["a", "b", "AaAa", "BBBB", "Case", "case", "标签", "😱", &long, "*", "c d", one, other];
    for tag in tags {
        let body = if tag == long { "long" } else { tag };
        sends(&producer, &Outgoing::to(&topic, body).tag(tag)).await;
    }
    sends(&producer, &Outgoing::to(&topic, "untagged")).await;
    let everything: BTreeSet<&str> =
        tags.iter().map(|t| if *t == long { "long" } else { *t }).chain(["untagged"]).collect();

    let rows: [(&str, &[&str]); 15] = [
        (one, &[one]),
        (other, &[other]),
        ("a", &["a"]),
        ("a||b", &["a", "b"]),
        ("a || b", &["a", "b"]),
        ("  a ||b  ", &["a", "b"]),
        ("a || b || a", &["a", "b"]),
        ("AaAa", &["AaAa"]),
        ("BBBB", &["BBBB"]),
        ("Case", &["Case"]),
        ("标签 || 😱", &["标签", "😱"]),
        (&long, &["long"]),
        ("c d", &["c d"]),
        ("nobody", &[]),
        ("a || nobody", &["a"]),
    ];
    let group = |n: usize| stage.own(&format!("tags-{n}"));
    let mut wanted: Vec<(Subscription, BTreeSet<&str>)> = Vec::new();
    for (n, (filter, expected)) in rows.into_iter().enumerate() {
        let subscription = Subscription::of(&group(n), &topic).tags(filter);
        wanted.push((subscription, expected.iter().copied().collect()));
    }
    wanted.push((Subscription::of(&group(rows.len()), &topic), everything));
    choose(stage, wanted).await;
}

pub(super) async fn properties_choose_messages(stage: &Stage<'_>) {
    let topic = stage.topic("sql", MessageType::Normal).await;
    let producer = stage.producer(&topic).await;
    for (body, price, colour, tag) in [
        ("10", "10", "red", "x"),
        ("20", "20", "green", "x"),
        ("30", "30", "red", "y"),
        ("40", "40", "蓝", "y"),
    ] {
        let message = Outgoing::to(&topic, body).property("price", price);
        sends(&producer, &message.property("colour", colour).tag(tag)).await;
    }
    sends(&producer, &Outgoing::to(&topic, "bare")).await;
    let rows: [(&str, &[&str]); 24] = [
        ("price > 20", &["30", "40"]),
        ("price >= 20 AND price <= 30", &["20", "30"]),
        ("price BETWEEN 20 AND 30", &["20", "30"]),
        ("price NOT BETWEEN 20 AND 30", &["10", "40"]),
        ("colour = 'red' OR colour = '蓝'", &["10", "30", "40"]),
        ("colour IN ('red', 'green') AND price <> 30", &["10", "20"]),
        ("unknown = 'x'", &[]),
        ("unknown > 1", &[]),
        ("price IS NULL", &["bare"]),
        ("TAGS = 'y' AND price IS NOT NULL", &["30", "40"]),
        ("TRUE", &["10", "20", "30", "40", "bare"]),
        // What is missing is unknown, and so is its opposite.
        ("NOT (price > 20)", &["10", "20"]),
        ("unknown <> 'x'", &[]),
        ("NOT (unknown = 'x')", &[]),
        ("unknown BETWEEN 1 AND 2", &[]),
        ("NOT (unknown BETWEEN 1 AND 2)", &[]),
        ("unknown NOT IN ('x')", &[]),
        ("unknown IS NULL AND price > 30", &["40"]),
        ("NOT (unknown IS NULL)", &[]),
        ("unknown = 'x' OR price = 10", &["10"]),
        ("NOT (unknown = 'x' AND price = 10)", &["20", "30", "40"]),
        ("NOT (unknown = 'x' OR price = 10)", &[]),
        // Neither a number nor compared with one.
        ("colour > 1", &[]),
        ("TAGS IS NULL", &["bare"]),
    ];
    let rows = rows.into_iter().enumerate().map(|(n, (expression, expected))| {
        let group = stage.own(&format!("sql-{n}"));
        let subscription = Subscription::of(&group, &topic).sql(expression);
        (subscription, expected.iter().copied().collect())
    });
    choose(stage, rows.collect()).await;
}

pub(super) async fn a_wrong_expression_is_refused(stage: &Stage<'_>) {
    let topic = stage.topic("wrong-sql", MessageType::Normal).await;
    let wanted = Subscription::of(&stage.own("wrong-sql"), &topic).sql("price >");
    if !has(stage.language(), Ability::SurvivesWrongFilters) {
        // It waits for settings that do not come; why, is in its own log only.
        let started = stage.library.simple(&wanted).await;
        assert!(matches!(started, Err(Refusal::Hangs)), "{started:?}");
        return;
    }
    match stage.library.simple(&wanted).await {
        Ok(consumer) => {
            let received = consumer.receive(BATCH, INVISIBLE).await;
            refused("a wrong expression", received, Code::IllegalFilterExpression);
        }
        Err(refusal) => assert!(matches!(refusal, Refusal::Library { .. }), "{refusal:?}"),
    }
}
