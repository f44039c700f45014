//! Bursts, backlogs and bytes: what is bounded, and what does not get in each other's way.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jepsen::{Action, Fate};
use tests::cluster::DRAIN;
use tests::node::Node;
use tests::rpc::Rpc;
use tests::{Cluster, Failure, Producer, Written};

const MIB: u64 = 1 << 20;

/// Send latencies of `count` messages sent `at_once` at a time, sorted.
async fn latencies(producer: &Producer, count: usize, at_once: usize) -> Vec<Duration> {
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let producer = producer.clone();
        senders.spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..count / at_once {
                let start = Instant::now();
                assert_eq!(producer.send_one().await, Fate::Done);
                taken.push(start.elapsed());
            }
            taken
        });
    }
    let mut all: Vec<Duration> = senders.join_all().await.into_iter().flatten().collect();
    all.sort();
    all
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// Producers do not notice that a consumer group is offline behind a growing backlog, and the
/// group catches up while sends go on.
#[tokio::test(flavor = "multi_thread")]
async fn offline_consumers_do_not_slow_producers_and_catch_up_while_sends_go_on() {
    let cluster = Cluster::of(3).alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(1024);
    // The group exists, so that its position is kept while it is away.
    cluster.producer("orders").send(10, 2).await;
    cluster.consumer("offline", "orders").receives_everything(DRAIN).await;

    latencies(&producer, 500, 16).await;
    let empty = latencies(&producer, 2_000, 16).await;
    producer.send_batches(60_000, 64, 8).await;
    let behind = latencies(&producer, 2_000, 16).await;
    let (before, after) = (percentile(&empty, 99), percentile(&behind, 99));
    eprintln!(
        "sends with 16 in flight, 1 KiB, 3 replicas, sync flush: p50 {:?} and p99 {before:?} without a \
         backlog, p50 {:?} and p99 {after:?} behind 60,000 messages",
        percentile(&empty, 50),
        percentile(&behind, 50)
    );
    // Twice, and what the scheduler of a shared two-core machine adds to any p99.
    assert!(after <= 2 * before + Duration::from_millis(25), "{before:?} became {after:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let (sender, stopped) = (producer.clone(), Arc::clone(&stop));
    let sends = tokio::spawn(async move {
        let mut done = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            done += u64::from(sender.send_one().await == Fate::Done);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        done
    });
    let start = Instant::now();
    let backlog = cluster.ledger.acknowledged();
    let mut consumers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut consumer, ledger) =
            (cluster.consumer("offline", "orders"), Arc::clone(&cluster.ledger));
        consumers.spawn(async move {
            while ledger.received("offline") < backlog {
                assert!(start.elapsed() < 2 * DRAIN, "the backlog is not drained");
                consumer.drain_for(Duration::from_secs(1)).await;
            }
        });
    }
    consumers.join_all().await;
    let took = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    let meanwhile = sends.await.expect("the sender ends");
    eprintln!("{backlog} messages drained in {took:?} while {meanwhile} were sent");
    assert!(meanwhile > 50, "only {meanwhile} sends went through beside the consumers");
    cluster.finish_with_everything_received("orders", &["offline"]).await;
}

/// A burst far above what the disks take: a bounded part is taken, the rest is told to come again
/// before anything was done for it; memory stays bounded, nobody is elected, and afterwards all is
/// as before.
#[tokio::test(flavor = "multi_thread")]
async fn an_overload_is_refused_early_and_leaves_no_trace() {
    const BOUND: u64 = 8 * MIB;
    const BODY: usize = 256 << 10;
    let bound = format!("{}MiB", BOUND / MIB);
    let cluster = Cluster::of(3).alone().set("limits.send_bytes", &bound).start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    cluster.producer("orders").send(500, 16).await;
    let (leader, before) = cluster.leader().await;
    let resident = leader.memory().expect("it runs");

    let peak = Arc::new(AtomicU64::new(0));
    let watch = tokio::spawn(watch_memory(Arc::clone(&leader), Arc::clone(&peak)));
    let mut burst = tokio::task::JoinSet::new();
    for _ in 0..128 {
        let rpc = Rpc::new(leader.addresses.client);
        let (producer, ledger) = (producer.clone(), Arc::clone(&cluster.ledger));
        burst.spawn(async move {
            let mut refused = 0_u64;
            for _ in 0..8 {
                let (number, message) = producer.next_message();
                let began = ledger.now();
                let result = rpc.send(&[message], Duration::from_secs(30)).await;
                let (fate, offset) = match &result {
                    Ok(entries) => (Fate::Done, u64::try_from(entries[0].offset).ok()),
                    Err(Failure::NotDone { code, .. }) => {
                        assert_eq!(*code, 42_900, "{result:?}");
                        refused += 1;
                        (Fate::Refused, None)
                    }
                    Err(Failure::Rejected { .. } | Failure::Unknown { .. }) => {
                        panic!("an overload is refused, not {result:?}")
                    }
                };
                ledger.record(began, Action::Send { message: number, fate, offset });
            }
            refused
        });
    }
    let refused: u64 = burst.join_all().await.into_iter().sum();
    watch.abort();
    let peak = peak.load(Ordering::Relaxed);
    eprintln!(
        "burst of {} MiB: {refused} of 1024 sends refused; resident {} MiB, at most {} MiB",
        1024 * BODY as u64 / MIB,
        resident / MIB,
        peak / MIB
    );
    assert!(refused > 0, "the burst was no overload");
    assert!(refused < 1024, "nothing was taken at all");
    // In progress per bound: the request, the entry, what is on its way to two followers, and the
    // transport's buffers; and the part of the log that is served from memory.
    let growth = peak.saturating_sub(resident);
    assert!(growth < 16 * BOUND + 128 * MIB, "memory grew by {} MiB", growth / MIB);

    let (same, after) = cluster.leader().await;
    assert_eq!((same.id, after.term), (leader.id, before.term), "an overload elects nobody");
    let small = cluster.producer("orders");
    assert_eq!(small.send(500, 16).await, 500, "full service afterwards");
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

async fn watch_memory(node: Arc<Node>, peak: Arc<AtomicU64>) {
    loop {
        if let Ok(resident) = node.memory() {
            peak.fetch_max(resident, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Each replica writes each body once: the log is the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_writes_hardly_more_than_the_bodies() {
    const BODY: usize = 1024;
    const COUNT: usize = 256 << 10;
    let cluster = Cluster::of(3).alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    producer.send_batches(1_000, 64, 4).await;
    let written = Written::by(&cluster).await;
    let start = Instant::now();
    producer.send_batches(COUNT, 64, 8).await;
    let took = start.elapsed();
    let what = format!("1 KiB, batches of 64, 3 replicas, sync flush, {took:?}");
    written.holds_each_body_once(&what, (COUNT * BODY) as u64).await;
    cluster.finish().await;
}

/// An idle broker and an idle NameServer are small.
#[tokio::test(flavor = "multi_thread")]
async fn idle_processes_are_small() {
    let cluster = Cluster::of(3).alone().start().await;
    cluster.topic("orders", 4).await;
    cluster.producer("orders").send(100, 8).await;
    cluster.replicas_agree().await;
    for node in &cluster.nodes {
        let resident = node.memory().expect("it runs") / MIB;
        eprintln!("{node:?}: {resident} MiB resident");
        assert!(resident <= 64, "{node:?} takes {resident} MiB");
    }
    let resident = cluster.nameservers[0].memory().expect("it runs") / MIB;
    eprintln!("NameServer: {resident} MiB resident");
    assert!(resident <= 24, "the NameServer takes {resident} MiB");
    cluster.finish().await;
}
