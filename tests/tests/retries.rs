//! Messages that are delivered again, and given up: their bodies stay where they are.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::admin;
use tests::cluster::DRAIN;
use tests::consumer::BATCH;
use tests::{Cluster, Written};

const POLL: Duration = Duration::from_secs(2);
/// Longer than the test.
const INVISIBLE: Duration = Duration::from_secs(300);

/// Every message is delivered twice, put into the dead-letter queue, read there, put back, and
/// consumed: each replica writes its body once.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_retried_and_given_up_is_written_once() {
    const BODY: usize = 64 << 10;
    const COUNT: usize = 600;
    let cluster = Cluster::of(3).alone().start().await;
    cluster.topic("orders", 4).await;
    let config = admin::GroupConfig {
        group: "audit".to_owned(),
        max_attempts: 2,
        ..admin::GroupConfig::default()
    };
    cluster.consumer_group(config).await;
    let written = Written::by(&cluster).await;
    assert_eq!(cluster.producer("orders").with_bodies_of(BODY).send(COUNT, 8).await, COUNT);

    let attempts = give_back_everything(&cluster, COUNT).await;
    assert_eq!(attempts.len(), COUNT);
    assert!(attempts.values().all(|seen| *seen == [1, 2]), "{attempts:?}");
    assert_eq!(consume(&cluster, "undertaker", "%DLQ%audit", COUNT).await, COUNT);

    let (leader, _) = cluster.leader().await;
    let redrive = admin::RedriveDeadLettersRequest { group: "audit".to_owned(), max: 0 };
    let answer = leader.rpc().admin().redrive_dead_letters(redrive).await.expect("an answer");
    assert_eq!(answer.into_inner().count, COUNT as u64);
    assert_eq!(consume(&cluster, "audit", "orders", COUNT).await, COUNT);

    let what = "64 KiB, delivered twice, given up, put back and consumed";
    written.holds_each_body_once(what, (COUNT * BODY) as u64).await;
    cluster.finish().await;
}

/// Receives and gives back at once until nothing comes any more: the attempts of each message.
async fn give_back_everything(cluster: &Cluster, count: usize) -> BTreeMap<String, Vec<u32>> {
    let mut consumer = cluster.consumer("audit", "orders");
    let (leader, _) = cluster.leader().await;
    let rpc = leader.rpc();
    let (mut attempts, start) = (BTreeMap::<String, Vec<u32>>::new(), Instant::now());
    let mut deliveries = 0;
    while deliveries < 2 * count {
        assert!(start.elapsed() < DRAIN, "{deliveries} deliveries");
        let got = consumer.receive(BATCH, INVISIBLE, POLL).await.expect("a receive succeeds");
        deliveries += got.len();
        for delivery in got {
            attempts.entry(delivery.id.clone()).or_default().push(delivery.attempt);
            let entry = delivery.entry();
            rpc.change_invisible_duration("audit", "orders", entry, Duration::ZERO)
                .await
                .expect("it is given back");
        }
    }
    // The next look finds that all have had their attempts, and moves them.
    let rest = consumer.receive(BATCH, INVISIBLE, POLL).await.expect("a receive succeeds");
    assert_eq!(rest.len(), 0, "a third attempt");
    attempts
}

/// Receives and acknowledges this many.
async fn consume(cluster: &Cluster, group: &str, topic: &str, count: usize) -> usize {
    let mut consumer = cluster.consumer(group, topic);
    let (mut came, start) = (0, Instant::now());
    while came < count && start.elapsed() < DRAIN {
        let got = consumer.receive(BATCH, INVISIBLE, POLL).await.expect("a receive succeeds");
        assert!(got.iter().all(|delivery| delivery.message.is_some()), "a body was changed");
        if !got.is_empty() {
            consumer.ack(&got).await.expect("it is acknowledged");
        }
        came += got.len();
    }
    came
}
