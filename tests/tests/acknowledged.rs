//! What an acknowledgement is worth.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::time::{Duration, Instant};

use jepsen::Fate;
use proto::v2;
use tests::cluster::{CATCH_UP, DRAIN, ELECTION};
use tests::consumer::{BATCH, INVISIBLE};
use tests::rpc::DEADLINE;
use tests::{Cluster, eventually};

/// Every acknowledged message is received by every consumer group, at dense offsets.
#[tokio::test(flavor = "multi_thread")]
async fn every_group_receives_every_acknowledged_message() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 4).await;

    let sent = cluster.producer("orders").send(2_000, 64).await;
    assert_eq!(sent, 2_000, "without a fault every send is acknowledged");

    let verdict = cluster.finish_with_everything_received("orders", &["audit", "billing"]).await;
    assert_eq!((verdict.acknowledged, verdict.received), (2_000, 4_000), "{verdict}");
    assert_eq!(verdict.duplicates, 0, "nothing failed, so nothing comes twice: {verdict}");
}

/// An acknowledged message survives the loss of the leader that acknowledged it.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_messages_survive_the_leader() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    let producer = cluster.producer("orders");
    producer.send(300, 32).await;

    let (old, status) = cluster.leader().await;
    old.kill();
    let (new, after) = cluster.leader_after(status.term).await;
    assert_ne!(old.id, new.id);
    assert!(after.term > status.term);

    assert_eq!(producer.send(300, 32).await, 300, "two of three replicas go on");
    cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
    cluster.ledger.must_hold(&["audit"]);

    old.start();
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}

/// All three brokers are killed at once, in the middle of sends, and started again: nothing that
/// was acknowledged is lost.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_all_brokers_are_killed_at_once() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders");
    for round in 0..3 {
        let sender = producer.clone();
        let sends = tokio::spawn(async move { sender.send(400, 32).await });
        let before = cluster.ledger.acknowledged();
        eventually("some sends of this round are acknowledged", ELECTION, async || {
            let now = cluster.ledger.acknowledged();
            if now > before + 50 { Ok(()) } else { Err(format!("round {round}: {now}")) }
        })
        .await;
        cluster.nodes.iter().for_each(|node| node.kill());
        cluster.nodes.iter().for_each(|node| node.start());
        sends.await.expect("senders end");
        cluster.leader().await;
    }
    let verdict = cluster.finish_with_everything_received("orders", &["audit", "billing"]).await;
    assert!(verdict.acknowledged >= 1_000, "{verdict}");
}

/// A leader that wrote entries which no other replica got, and died, drops them when it comes back
/// and follows the new leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_conflicting_tail_is_truncated_and_its_owner_follows() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    let producer = cluster.producer("orders");
    producer.send(50, 8).await;
    cluster.replicas_agree().await;

    // Nobody answers the leader, which keeps writing what it can commit no more.
    let (old, before) = cluster.leader().await;
    let followers = cluster.followers().await;
    followers.iter().for_each(|follower| follower.pause());
    let rpc = old.rpc();
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (number, message) = producer.next_message();
        let (rpc, ledger) = (rpc.clone(), cluster.ledger.clone());
        attempts.spawn(async move {
            let began = ledger.now();
            let result = rpc.send(&[message], DEADLINE).await;
            assert!(result.is_err(), "{number} was acknowledged by one replica out of three");
            let fate = Fate::Unknown;
            let action = jepsen::Action::Send { message: number, fate, offset: None };
            ledger.record(began, action);
        });
    }
    let stranded =
        eventually("the leader's log runs ahead of what is committed", ELECTION, async || {
            let status = old.status().await.map_err(|e| e.to_string())?;
            if status.last > status.committed && status.last > before.last {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await;
    old.kill();
    followers.iter().for_each(|follower| follower.resume());
    attempts.join_all().await;

    let (_, after) = cluster.leader_after(stranded.term).await;
    assert_eq!(producer.send(200, 8).await, 200);
    old.start();
    eventually("the old leader follows", CATCH_UP, async || {
        let status = old.status().await.map_err(|e| e.to_string())?;
        let follows = status.term >= after.term && status.applied > stranded.last;
        if follows { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// A receipt handle that the old leader gave out is good at the new one, and what was acked stays
/// acked.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_honours_old_receipt_handles() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    cluster.producer("orders").send(40, 8).await;
    let mut consumer = cluster.consumer("audit", "orders");
    let mut held = Vec::new();
    eventually("all messages are in flight", DRAIN, async || {
        let poll = Duration::from_secs(5);
        held.extend(consumer.receive(BATCH, INVISIBLE, poll).await.map_err(|e| e.to_string())?);
        if held.len() >= 40 { Ok(()) } else { Err(format!("{} held", held.len())) }
    })
    .await;
    let (acked_before, acked_after) = held.split_at(20);
    assert_all_ok(&consumer.ack(acked_before).await.expect("acks"));

    let (old, status) = cluster.leader().await;
    old.kill();
    cluster.leader_after(status.term).await;

    let codes = eventually("the new leader answers acks", ELECTION, async || {
        consumer.ack(acked_after).await.map_err(|e| e.to_string())
    })
    .await;
    assert_all_ok(&codes);
    // Acking once more is no error either: the answer to the first may have been lost.
    assert_all_ok(&consumer.ack(acked_before).await.expect("acks"));
    let nothing = consumer.receive(BATCH, INVISIBLE, Duration::from_secs(5)).await;
    assert_eq!(nothing.expect("an empty poll").len(), 0, "everything is acked");
    old.start();
    cluster.finish().await;
}

fn assert_all_ok(codes: &[i32]) {
    assert!(codes.iter().all(|code| *code == i32::from(v2::Code::Ok)), "{codes:?}");
}

/// What is not acked comes again after its invisible duration, at most three seconds late, with the
/// next attempt number; the old handle is void by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acked_comes_again() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    cluster.producer("orders").send(1, 1).await;
    let mut consumer = cluster.consumer("audit", "orders");

    let invisible = Duration::from_secs(10);
    let taken = Instant::now();
    let first = consumer.receive(BATCH, invisible, Duration::from_secs(5)).await.expect("received");
    assert_eq!((first.len(), first[0].attempt), (1, 1));
    let second = eventually("the message comes again", 2 * invisible, async || {
        let again = consumer.receive(BATCH, invisible, Duration::from_secs(5)).await;
        let again = again.map_err(|e| e.to_string())?;
        if again.is_empty() { Err("nothing".to_owned()) } else { Ok(again) }
    })
    .await;
    let after = taken.elapsed();
    assert!(after >= invisible, "redelivered after {after:?}");
    assert!(after <= invisible + Duration::from_secs(3), "redelivered after {after:?}");
    assert_eq!((second[0].id.as_str(), second[0].attempt), (first[0].id.as_str(), 2));

    let late = consumer.ack(&first).await.expect("an answer");
    assert_eq!(late, [i32::from(v2::Code::InvalidReceiptHandle)]);
    assert_all_ok(&consumer.ack(&second).await.expect("acks"));
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// A consumer that gives a message back has it delivered at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_comes_at_once() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    cluster.producer("orders").send(1, 1).await;
    let mut consumer = cluster.consumer("audit", "orders");
    let first = consumer.receive(BATCH, INVISIBLE, Duration::from_secs(5)).await.expect("received");
    assert_eq!(first.len(), 1);

    let (leader, _) = cluster.leader().await;
    let rpc = leader.rpc();
    let back = rpc.change_invisible_duration("audit", "orders", first[0].entry(), Duration::ZERO);
    back.await.expect("given back");
    let start = Instant::now();
    let second =
        consumer.receive(BATCH, INVISIBLE, Duration::from_secs(10)).await.expect("received");
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].attempt, 2);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_all_ok(&consumer.ack(&second).await.expect("acks"));
    cluster.finish().await;
}

/// A consumer that waits gets a message when it is sent, not when its poll ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_consumer_is_woken_by_a_send() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 4).await;
    let mut consumer = cluster.consumer("audit", "orders");
    let waiting = tokio::spawn(async move {
        let got = consumer.receive(BATCH, INVISIBLE, Duration::from_secs(20)).await;
        (got.expect("received"), Instant::now())
    });
    // Time for the poll to be waiting; without it the test still holds, it only shows less.
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.producer("orders").send(1, 1).await;
    let sent = Instant::now();
    let (got, at) = waiting.await.expect("the poll ends");
    assert_eq!(got.len(), 1);
    let lag = at.saturating_duration_since(sent);
    assert!(lag < Duration::from_millis(1000), "woken {lag:?} after the send");
    cluster.finish().await;
}

/// Filtered-out messages are skipped for the group that filters and for no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_filter_delivers_exactly_the_tags_asked_for() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    for tag in ["red", "green", "blue"] {
        cluster.producer("orders").with_tag(tag).send(30, 8).await;
    }
    let mut filtering = cluster.consumer("filtering", "orders").with_filter("red || blue");
    let mut tags = Vec::new();
    eventually("the tags asked for arrive", DRAIN, async || {
        let got = filtering.receive(BATCH, INVISIBLE, Duration::from_secs(5)).await;
        let got = got.map_err(|e| e.to_string())?;
        let done = got.is_empty();
        let tag = |d: &tests::consumer::Delivery| d.raw.system_properties.clone()?.tag;
        tags.extend(got.iter().filter_map(tag));
        if done { Ok(()) } else { Err(format!("{} so far", tags.len())) }
    })
    .await;
    let count = |tag: &str| tags.iter().filter(|t| *t == tag).count();
    assert_eq!((count("red"), count("blue"), tags.len()), (30, 30, 60));
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// The same send twice, as a client does that did not get the first answer, is stored once and
/// answered the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_send_is_stored_once_even_across_leaders() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders");
    let (number, message) = producer.next_message();
    producer.attempt(number, &message).await.expect("stored");
    producer.attempt(number, &message).await.expect("the same answer");

    let (old, status) = cluster.leader().await;
    old.kill();
    cluster.leader_after(status.term).await;
    eventually("the new leader answers", ELECTION, async || {
        producer.attempt(number, &message).await.map_err(|e| e.to_string())
    })
    .await;
    old.start();
    let verdict = cluster.finish_with_everything_received("orders", &["audit"]).await;
    assert_eq!((verdict.acknowledged, verdict.received, verdict.duplicates), (1, 1, 0));
}
