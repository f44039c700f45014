//! Transactions that producers end, and transactions that they are asked about, with the defaults:
//! the question comes after six seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::admin::ListTransactionsRequest;
use proto::v2::MessageType;
use tests::eventually;
use tests::library::{Ending, Outgoing, Producer, Subscription, Verdict};
use tests::rpc::Rpc;

use super::abilities::{Ability, has};
use super::stage::{Stage, each_once, sends};

/// A checker's verdict has effect that soon after the send.
const DECIDED: Duration = Duration::from_secs(60);

async fn transacts(producer: &Producer<'_>, topic: &str, body: String, ending: Ending) -> String {
    sends(producer, &Outgoing::to(topic, &body).tag("t").transaction(ending)).await;
    body
}

/// Nobody decides about any transaction of the topic any more.
async fn all_ended(stage: &Stage<'_>, topic: &str) {
    eventually("no transaction is open", DECIDED, async || {
        let rpc = Rpc::new(stage.cluster.nameservers[0].address);
        let answer = rpc.admin().list_transactions(ListTransactionsRequest::default()).await;
        let open = answer.map_err(|e| e.to_string())?.into_inner().transactions;
        match open.iter().filter(|t| t.topic == topic).count() {
            0 => Ok(()),
            count => Err(format!("{count} are open")),
        }
    })
    .await;
}

/// Exactly these are seen, by every kind of consumer.
async fn seen(stage: &Stage<'_>, topic: &str, expected: &BTreeSet<String>) {
    let group = format!("{topic}-simple");
    let received = stage.drain(&Subscription::of(&group, topic)).await;
    assert_eq!(&each_once(&received), expected);
    assert!(received.iter().all(|m| m.tag.as_deref() == Some("t") && m.attempt == 1));
    if has(stage.language(), Ability::Push) {
        let group = format!("{topic}-push");
        let push = stage.push(&Subscription::of(&group, topic)).await;
        stage.consumed(&push, expected.len(), &group, topic).await;
        assert_eq!(&each_once(&push.received()), expected);
    }
}

pub(super) async fn a_producer_commits_and_rolls_back(stage: &Stage<'_>) {
    let topic = stage.topic("decided", MessageType::Transaction).await;
    let producer = stage.decider(&topic, Verdict::Unknown).await;
    let mut expected = BTreeSet::new();
    for n in 0..10 {
        let committed = transacts(&producer, &topic, format!("commit {n}"), Ending::Commit).await;
        expected.insert(committed);
        transacts(&producer, &topic, format!("rollback {n}"), Ending::Rollback).await;
    }
    all_ended(stage, &topic).await;
    seen(stage, &topic, &expected).await;
    assert_eq!(producer.asked().len(), 0, "there was nothing to ask");
}

/// Some are committed at once, the others by the checker.
pub(super) async fn a_producer_that_is_asked_commits(stage: &Stage<'_>) {
    let topic = stage.topic("asked-commit", MessageType::Transaction).await;
    let producer = stage.decider(&topic, Verdict::Commit).await;
    let (mut expected, mut open) = (BTreeSet::new(), BTreeSet::new());
    for n in 0..5 {
        expected.insert(transacts(&producer, &topic, format!("at once {n}"), Ending::Commit).await);
        open.insert(transacts(&producer, &topic, format!("asked {n}"), Ending::Open).await);
    }
    all_ended(stage, &topic).await;
    let asked = producer.asked();
    assert_eq!(asked.iter().map(|m| m.text().to_owned()).collect::<BTreeSet<_>>(), open);
    assert!(asked.iter().all(|m| m.topic == topic && m.tag.as_deref() == Some("t")));
    expected.extend(open);
    seen(stage, &topic, &expected).await;
}

pub(super) async fn a_producer_that_is_asked_rolls_back(stage: &Stage<'_>) {
    let topic = stage.topic("asked-rollback", MessageType::Transaction).await;
    let producer = stage.decider(&topic, Verdict::Rollback).await;
    let (mut expected, mut open) = (BTreeSet::new(), BTreeSet::new());
    for n in 0..5 {
        expected.insert(transacts(&producer, &topic, format!("at once {n}"), Ending::Commit).await);
        open.insert(transacts(&producer, &topic, format!("asked {n}"), Ending::Open).await);
    }
    all_ended(stage, &topic).await;
    let asked: BTreeSet<String> = producer.asked().iter().map(|m| m.text().to_owned()).collect();
    assert_eq!(asked, open);
    seen(stage, &topic, &expected).await;
}
