//! Disks that fill up: sends are refused before anything was done, what is stored stays readable,
//! and service goes on by itself when there is space again.
//!
//! Each log directory gets a file system of its own, which takes root; without, the tests say so
//! and end.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jepsen::Fate;
use tests::cluster::{CATCH_UP, Plan};
use tests::file_system::{Mount, may_mount};
use tests::node::Node;
use tests::{Cluster, Failure, Producer, eventually};

const MIB: u64 = 1 << 20;
const BODY: usize = 256 << 10;
/// RocketMQ's code for what was not done and may be tried again later.
const TOO_MANY_REQUESTS: i32 = 42900;

/// Sends until the first message that is not taken, and returns why.
async fn fill(producer: &Producer) -> Failure {
    let mut sent = 0;
    while sent < 1024 * MIB {
        let (number, message) = producer.next_message();
        if let Err(failure) = producer.attempt(number, &message).await {
            return failure;
        }
        sent += message.body.len() as u64;
    }
    panic!("a gigabyte fits into the small file systems");
}

/// The sender is told that the disk is full, and that nothing was done.
async fn fills_up(producer: &Producer) {
    match fill(producer).await {
        Failure::NotDone { code, message } => {
            assert_eq!(code, TOO_MANY_REQUESTS, "{message}");
            assert!(message.contains("disk"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

async fn goes_on(producer: &Producer) {
    eventually("sends go through again", CATCH_UP, async || match producer.send_one().await {
        Fate::Done => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

fn log_of(node: &Node) -> PathBuf {
    node.directory().join("raft").join("log")
}

/// Files of 32 MiB, and no bound on the disk but its end.
fn to_the_brim() -> Plan {
    let plan = Cluster::of(3).set("log.segment_size", "32MiB");
    plan.set("log.disk_high", "100").set("log.disk_full", "100")
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_refuse_sends_and_serve_reads_until_there_is_space_again() {
    if !may_mount() {
        return;
    }
    let cluster = to_the_brim().lay_out().await;
    let mounts: Vec<Mount> = cluster.nodes.iter().map(|_| Mount::new(100 * MIB)).collect();
    for (mount, node) in mounts.iter().zip(&cluster.nodes) {
        mount.serve(&log_of(node));
    }
    cluster.nameservers.iter().for_each(tests::nameserver::NameServer::start);
    cluster.nodes.iter().for_each(|node| node.start());
    cluster.topic("orders", 1).await;
    let (_, before) = cluster.leader().await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    fills_up(&producer).await;
    let (_, after) = cluster.leader().await;
    assert_eq!(before.term, after.term, "nobody was elected");
    assert!(cluster.ledger.acknowledged() > 100, "{} messages fit", cluster.ledger.acknowledged());

    for mount in &mounts {
        mount.resize(1024 * MIB);
    }
    goes_on(&producer).await;
    cluster.finish_with_everything_received("orders", &["billing"]).await;
    drop(mounts);
}

/// From the broker's own bound on sends are refused: neither log nor state ever meets a full disk,
/// and what a consumer does goes on.
#[tokio::test(flavor = "multi_thread")]
async fn sends_are_refused_before_the_disk_is_full() {
    if !may_mount() {
        return;
    }
    // The disk is looked at each second, in which this sender fills a fraction of the other half.
    let plan = Cluster::of(1).set("log.segment_size", "32MiB").set("log.disk_high", "100");
    let cluster = plan.set("log.disk_full", "50").lay_out().await;
    let mount = Mount::new(400 * MIB);
    mount.serve(&log_of(&cluster.nodes[0]));
    cluster.nameservers.iter().for_each(tests::nameserver::NameServer::start);
    cluster.nodes[0].start();
    cluster.topic("orders", 1).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY / 4);
    fills_up(&producer).await;
    assert!(
        cluster.ledger.acknowledged() > 1_000,
        "{} messages fit",
        cluster.ledger.acknowledged()
    );
    let used = cluster.nodes[0].metric("raftmq_disk_used_percent").await.expect("a metric");
    assert!((50.0..90.0).contains(&used), "{used}");
    // Acknowledging needs space too, and gets it.
    cluster.consumer("billing", "orders").receives_everything(CATCH_UP).await;
    mount.resize(1024 * MIB);
    goes_on(&producer).await;
    cluster.finish_with_everything_received("orders", &["audit"]).await;
    drop(mount);
}

/// One full follower holds nobody up, stays alive, and catches up when it has space.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_follower_stays_behind_and_catches_up() {
    if !may_mount() {
        return;
    }
    let cluster = to_the_brim().start().await;
    cluster.topic("orders", 1).await;
    let follower = Arc::clone(&cluster.followers().await[0]);
    follower.stop().await;
    let mount = small_log(&follower, 100 * MIB);
    follower.start();
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    // 200 MiB: a follower with 100 MiB cannot keep up.
    for _ in 0..800 {
        assert_eq!(producer.send_one().await, Fate::Done);
    }
    let (_, leader) = cluster.leader().await;
    let behind = follower.status().await.expect("it lives");
    assert!(behind.last < leader.last, "{} of {}", behind.last, leader.last);
    mount.resize(1024 * MIB);
    eventually("the follower catches up", CATCH_UP, async || {
        let status = follower.status().await.map_err(|error| format!("{error:#}"))?;
        if status.applied >= leader.last { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    cluster.finish_with_everything_received("orders", &["billing"]).await;
    drop(mount);
}

/// Followers with file systems of this size, of which the bounds count half; the others' disks are
/// far from any bound.
async fn with_small_followers(plan: Plan, count: usize, mib: u64) -> (Cluster, Vec<Mount>) {
    let plan = plan.set("log.segment_size", "32MiB").set("log.disk_reserve", "1GiB");
    let cluster = plan.start().await;
    let mut mounts = Vec::new();
    for follower in cluster.followers().await.into_iter().take(count) {
        follower.stop().await;
        mounts.push(small_disk(&follower, mib * MIB));
        follower.start();
        eventually("the follower is back", CATCH_UP, async || match follower.is_ready().await {
            true => Ok(()),
            false => Err("not ready".to_owned()),
        })
        .await;
    }
    (cluster, mounts)
}

/// What one replica lacks, all of them free, because their logs are the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_short_of_space_is_seen_and_given_some() {
    if !may_mount() {
        return;
    }
    let plan = Cluster::of(3).set("log.disk_high", "50").set("log.disk_full", "100");
    let (cluster, mounts) = with_small_followers(plan, 1, 500).await;
    cluster.topic("orders", 1).await;
    let (leader, before) = cluster.leader().await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    let mut seen = false;
    // More than the small disk holds, but not so fast that it is full before anything old has gone:
    // then the log leaves the follower behind, and it has no space for a snapshot either.
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..24 {
        pace.tick().await;
        assert_eq!(producer.send(100, 8).await, 100, "nobody is held up");
        let short = leader.metric("raftmq_replicas_short_of_disk").await.expect("a metric");
        seen |= short >= 1.0;
    }
    assert!(seen, "the leader never saw that a follower is short of space");
    let own = leader.metric("raftmq_disk_used_percent").await.expect("a metric");
    let fullest = leader.metric("raftmq_replica_disk_used_percent").await.expect("a metric");
    assert!(fullest >= own, "{fullest} {own}");
    eventually("old messages went", CATCH_UP, async || {
        let start = leader.metric("raftmq_log_start_offset").await.map_err(|e| e.to_string())?;
        let short = leader.metric("raftmq_replicas_short_of_disk").await;
        match (start > 0.0, short.map_err(|e| e.to_string())?) {
            (true, 0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let log = leader.process().log();
    assert!(log.contains("the disk of a replica fills up"), "nothing was said");
    let (_, after) = cluster.leader().await;
    assert_eq!(before.term, after.term, "nobody was elected");
    // The follower is one of those that agree.
    cluster.finish().await;
    drop(mounts);
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_are_refused_before_the_disks_of_a_majority_are_full() {
    if !may_mount() {
        return;
    }
    let plan = Cluster::of(3).set("log.disk_high", "100").set("log.disk_full", "50");
    let (cluster, mounts) = with_small_followers(plan, 2, 300).await;
    cluster.topic("orders", 1).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY / 4);
    fills_up(&producer).await;
    for follower in cluster.followers().await {
        let used = follower.metric("raftmq_disk_used_percent").await.expect("a metric");
        assert!(used < 100.0, "{follower:?} has {used} percent in use");
    }
    // One of them is enough.
    mounts[0].resize(2048 * MIB);
    goes_on(&producer).await;
    mounts[1].resize(2048 * MIB);
    cluster.finish_with_everything_received("orders", &["billing"]).await;
    drop(mounts);
}

/// Moves log and snapshots of a stopped node onto a file system of their own.
fn small_disk(node: &Node, bytes: u64) -> Mount {
    Mount::instead_of(&node.directory().join("raft"), bytes)
}

/// Moves the log of a stopped node onto a file system that is nearly full.
fn small_log(node: &Node, bytes: u64) -> Mount {
    Mount::instead_of(&log_of(node), bytes)
}
