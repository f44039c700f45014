//! Official clients whose toolchains are large: Java and Go, which encrypt without verification
//! unless they are told otherwise. `make test-clients` runs them.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

#[path = "conformance/scenarios/mod.rs"]
mod scenarios;

use std::time::Duration;

use jepsen::History;
use tests::Cluster;
use tests::official::{LARGE, Language, Official};

const PATIENCE: Duration = Duration::from_secs(90);
const COUNT: usize = 60;

/// Sends, receives through every consumer that the stack has, and goes on when the leader dies.
async fn works(language: Language) {
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 4).await;
    let (access_point, name) = (cluster.nameservers[0].address.to_string(), language.name());
    let start = |mode: &str, options: &[(&str, &str)]| {
        let mut all = vec![("endpoints", access_point.as_str()), ("topic", "orders")];
        all.extend(options);
        Official::start(language, mode, cluster.scratch.path(), &all, &[], None)
    };

    let count = COUNT.to_string();
    let mut producer = start("produce", &[("prefix", name), ("count", &count)]);
    producer.done(PATIENCE).await;
    assert_eq!(producer.of("failed").len(), 0, "{:?}", producer.of("failed"));
    let mut history = History::default();
    producer.enter(&mut history, "", &[name]);
    let mut groups = vec!["simple"];
    if language.has_push_consumer() {
        groups.push("push");
    }
    for mode in &groups {
        let mut consumer = start(mode, &[("group", mode), ("count", &count)]);
        consumer.done(PATIENCE).await;
        consumer.enter(&mut history, mode, &[name]);
    }
    let verdict = jepsen::check(&history, &groups);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.acknowledged, COUNT as u64);

    let mut producer = start("produce", &[("prefix", name), ("interval-ms", "10")]);
    producer.has("sent", 100, PATIENCE).await;
    let (leader, status) = cluster.leader().await;
    let at = producer.of("sent").len();
    leader.kill();
    producer.has("sent", at + 100, PATIENCE).await;
    cluster.leader_after(status.term).await;
    eprintln!(
        "{name}: {verdict}; write gap at the death of the leader {} ms, {} failed",
        producer.write_gap_ms(),
        producer.of("failed").len()
    );
    assert_eq!(producer.of("failed").len(), 0, "{:?}", producer.of("failed"));
    leader.start();
    drop(producer);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_client_works() {
    works(Language::Java).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_client_works() {
    works(Language::Go).await;
}

/// The scenarios of `conformance`, through these libraries.
#[tokio::test(flavor = "multi_thread")]
async fn every_large_library_finds_what_it_expects() {
    scenarios::run(&LARGE).await;
}
