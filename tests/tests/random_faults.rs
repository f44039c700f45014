//! Kills, pauses and stops at random, while messages are sent and received.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "seeds and counts are printed for the reader")]

use std::time::Duration;

use tests::Cluster;
use tests::faults::{break_and_heal, seed};
use tokio::sync::watch;

/// How long faults go on. `MQTEST_FAULT_SECONDS` makes it longer.
fn duration() -> Duration {
    let seconds = std::env::var("MQTEST_FAULT_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(45))
}

/// Whatever happens to the brokers: what was acknowledged is received by every group, offsets are
/// dense and never reused, and nothing that anybody saw is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn promises_hold_under_random_kills_pauses_and_restarts() {
    let seed = seed("random faults");
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 4).await;
    let (stop, stopped) = watch::channel(false);

    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (producer, stopped) = (cluster.producer("orders"), stopped.clone());
        clients.spawn(async move {
            while !*stopped.borrow() {
                producer.send_one().await;
            }
        });
    }
    // One group reads all along; it must never see what is later gone.
    for _ in 0..2 {
        let (mut consumer, stopped) = (cluster.consumer("live", "orders"), stopped.clone());
        clients.spawn(async move { consumer.consume_until(stopped).await });
    }

    let faults = break_and_heal(&cluster, seed, duration()).await;
    stop.send(true).expect("clients listen");
    clients.join_all().await;

    let verdict = cluster.finish_with_everything_received("orders", &["live", "late"]).await;
    eprintln!("{} faults: {verdict}", faults.len());
    assert!(verdict.acknowledged > 100, "hardly anything was sent: {verdict}");
}
