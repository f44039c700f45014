//! Replicas that were away for longer than the log reaches back.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::path::Path;
use std::sync::Arc;

use tests::cluster::{CATCH_UP, DRAIN, ELECTION, Plan};
use tests::damage::flip;
use tests::file_system::{Mount, may_mount};
use tests::nameserver::NameServer;
use tests::node::Node;
use tests::{Cluster, Producer, eventually, mqadmin};

/// Bytes of a segment; what is kept is a few of them.
const SEGMENT: u64 = 9 << 20;
const BODY: usize = 64 << 10;
/// Messages that fill the retention more than once.
const MUCH: usize = 800;

/// A group that keeps little of its log.
fn forgetful() -> Plan {
    Cluster::of(3).set("log.segment_size", "9MiB").set("log.retention_bytes", "27MiB")
}

/// Base of the oldest segment of a node.
fn start_of_log(node: &Node) -> u64 {
    let entries = std::fs::read_dir(node.directory().join("raft/log")).expect("a log");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let base = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".seg")?.parse().ok();
    names.filter_map(base).min().unwrap_or(0)
}

/// Bytes that have arrived of a snapshot.
fn arrived(node: &Node) -> u64 {
    fn bytes(dir: &Path) -> u64 {
        let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .map(|path| match std::fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => bytes(&path),
                Ok(meta) => meta.len(),
                Err(_) => 0,
            })
            .sum()
    }
    bytes(&node.directory().join("raft/snapshot/incoming"))
}

/// Sends, and has it received before it is forgotten.
async fn send_and_receive(cluster: &Cluster, producer: &Producer, count: usize) {
    let mut left = count;
    while left > 0 {
        let now = left.min(200);
        assert_eq!(producer.send(now, 16).await, now);
        cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
        left -= now;
    }
}

/// Takes a follower down until the others have forgotten what it would need next.
async fn outlive(cluster: &Cluster, producer: &Producer) -> Arc<Node> {
    let away = cluster.followers().await.remove(0);
    let last = away.status().await.expect("it runs").last;
    away.kill();
    send_and_receive(cluster, producer, MUCH).await;
    eventually("the leader has forgotten what the follower needs", CATCH_UP, async || {
        let (_, status) = cluster.leader().await;
        if status.purged > last { Ok(()) } else { Err(format!("{status}, needed {last:?}")) }
    })
    .await;
    away
}

async fn logs_start_alike(cluster: &Cluster) {
    eventually("all logs start at the same place", CATCH_UP, async || {
        let starts: Vec<u64> = cluster.nodes.iter().map(|node| start_of_log(node)).collect();
        let alike = starts.iter().all(|start| *start == starts[0] && *start >= SEGMENT);
        if alike { Ok(()) } else { Err(format!("{starts:?}")) }
    })
    .await;
}

/// A follower that was down for longer than the retention comes back while messages are sent, and
/// is a full member: it can lead, and bring back the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_down_for_longer_than_the_retention_comes_back() {
    let cluster = forgetful().alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    send_and_receive(&cluster, &producer, 100).await;
    let away = outlive(&cluster, &producer).await;
    away.start();
    send_and_receive(&cluster, &producer, 100).await;
    cluster.replicas_agree().await;
    logs_start_alike(&cluster).await;
    installed(&away).await;
    let sent = cluster.leader().await.0.metric("raftmq_snapshots_sent_total").await;
    assert!(sent.expect("a metric") >= 1.0);

    // With the leader gone it is half of the quorum.
    let (leader, status) = cluster.leader().await;
    leader.kill();
    cluster.leader_after(status.term).await;
    send_and_receive(&cluster, &producer, MUCH).await;
    leader.start();
    send_and_receive(&cluster, &producer, 50).await;
    cluster.replicas_agree().await;
    logs_start_alike(&cluster).await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// The receiver is killed in the middle of a snapshot, then the leader that sends it: it goes on
/// where it was, from whoever leads then, and does not ask for what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_arrives_although_sender_and_receiver_are_killed() {
    let cluster = forgetful().set("raft.snapshot_rate", "4MiB").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    let away = outlive(&cluster, &producer).await;
    away.start();
    eventually("something has arrived", ELECTION, async || match arrived(&away) {
        bytes if bytes > 2 << 20 => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    })
    .await;
    away.kill();
    let kept = arrived(&away);
    assert!(kept > 2 << 20, "what has arrived is kept: {kept}");
    away.start();
    eventually("more has arrived", ELECTION, async || match arrived(&away) {
        bytes if bytes > kept + (1 << 20) => Ok(()),
        bytes => Err(format!("{bytes} bytes, {kept} before")),
    })
    .await;
    let (leader, status) = cluster.leader().await;
    assert!(
        leader.metric("raftmq_snapshot_spared_bytes_total").await.expect("a metric") > 1e6,
        "what had arrived before the kill was not sent again"
    );
    leader.kill();
    leader.start();
    cluster.leader_after(status.term).await;
    send_and_receive(&cluster, &producer, 50).await;
    cluster.replicas_agree().await;
    logs_start_alike(&cluster).await;
    installed(&away).await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// What `mqadmin raftStatus` says of the snapshot on its way to this node, if there is one.
async fn progress(cluster: &Cluster, node: &Node) -> Option<serde_json::Value> {
    let through = cluster.nameservers[0].address.to_string();
    let status = mqadmin::json(cluster, &through, "raftStatus -b broker-a").await;
    let members = status["members"].as_array().expect("members").clone();
    let member = members.into_iter().find(|member| member["node_id"] == node.id)?;
    Some(member["snapshot"].clone()).filter(|snapshot| !snapshot.is_null())
}

/// An operator sees how far a snapshot is and when it will be there, and nothing of it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_a_snapshot_come() {
    const RATE: u64 = 3 << 20;
    let plan = forgetful().set("raft.snapshot_rate", &RATE.to_string());
    let cluster = plan.alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    let away = outlive(&cluster, &producer).await;
    assert_eq!(progress(&cluster, &away).await, None, "nothing is on its way to who is away");
    away.start();
    let of = |snapshot: &serde_json::Value, name: &str| {
        snapshot[name].as_u64().unwrap_or_else(|| panic!("no {name} in {snapshot}"))
    };
    let mut seen: Vec<serde_json::Value> = Vec::new();
    eventually("a good part of it is seen to come", CATCH_UP, async || {
        let before = seen.last().map_or(RATE, |snapshot| of(snapshot, "sent_bytes"));
        let now = progress(&cluster, &away).await;
        seen.extend(now.filter(|snapshot| of(snapshot, "sent_bytes") > before));
        if seen.len() >= 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let through = cluster.nameservers[0].address.to_string();
    let (code, table) =
        mqadmin::run(&cluster, &through, "raftStatus -b broker-a", mqadmin::SOON).await;
    assert!(code == 0 && table.contains("gets a snapshot"), "{table}");
    for (earlier, later) in seen.iter().zip(&seen[1..]) {
        assert_eq!(of(earlier, "total_bytes"), of(later, "total_bytes"));
    }
    let last = seen.last().expect("three");
    let (sent, total) = (of(last, "sent_bytes"), of(last, "total_bytes"));
    let rate = of(last, "bytes_per_second");
    assert!(sent < total && total > SEGMENT, "{last}");
    assert!((RATE / 4..=RATE * 3 / 2).contains(&rate), "{last}");
    let eta = (total - sent) * 1000 / rate;
    assert!(of(last, "eta_ms").abs_diff(eta) <= 1, "{last}: {eta}");

    cluster.replicas_agree().await;
    installed(&away).await;
    assert_eq!(progress(&cluster, &away).await, None);
    cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

async fn installed(node: &Node) {
    let installed = node.metric("raftmq_snapshots_installed_total").await.expect("a metric");
    assert!(installed >= 1.0, "{node:?} has come back by its log, which proves nothing");
}

/// Two of three nodes, the one that sends and the one that receives a snapshot, are restarted again
/// and again before it is installed, while messages are sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_arrives_although_two_of_three_nodes_are_restarted_again_and_again() {
    let cluster = forgetful().set("raft.snapshot_rate", "6MiB").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    let away = outlive(&cluster, &producer).await;
    let sender = producer.clone();
    let load = tokio::spawn(async move {
        let mut sent = 0;
        for _ in 0..6 {
            sent += sender.send(20, 4).await;
        }
        sent
    });
    let old_start = start_of_log(&away);
    away.start();
    for _ in 0..3 {
        let before = arrived(&away);
        eventually("more has arrived", ELECTION, async || {
            // With the snapshot comes a log that begins where that of the others does.
            let done = start_of_log(&away) > old_start;
            match arrived(&away) {
                bytes if bytes > before + (1 << 20) || done => Ok(()),
                bytes => Err(format!("{bytes} bytes, {before} before")),
            }
        })
        .await;
        let (leader, status) = cluster.leader().await;
        leader.kill();
        away.kill();
        leader.start();
        away.start();
        cluster.leader_after(status.term).await;
    }
    let sent = load.await.expect("it ends");
    assert!(sent > 0, "messages were stored meanwhile");
    cluster.replicas_agree().await;
    cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
    logs_start_alike(&cluster).await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// The receiver's disk flips a bit in what has arrived of a snapshot, while the receiver is down: it
/// notices, fetches that part again, and holds the same as the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_damaged_where_it_arrives_is_not_believed() {
    let cluster = forgetful().set("raft.snapshot_rate", "4MiB").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    let away = outlive(&cluster, &producer).await;
    away.start();
    eventually("something has arrived", ELECTION, async || match arrived(&away) {
        bytes if bytes > 6 << 20 => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    })
    .await;
    away.kill();
    let part = largest(&away.directory().join("raft/snapshot/incoming")).expect("a file");
    let at = std::fs::metadata(&part).expect("a file").len() / 2;
    flip(&part, at);
    cluster.ledger.fault(format!("{} at {at}", part.display()));
    away.start();
    send_and_receive(&cluster, &producer, 50).await;
    cluster.replicas_agree().await;
    logs_start_alike(&cluster).await;
    installed(&away).await;

    // Byte by byte, too.
    let through = cluster.nameservers[0].address.to_string();
    let (code, text) = mqadmin::run(&cluster, &through, "verifyReplicas", mqadmin::PATIENCE).await;
    assert_eq!(code, 0, "{text}");
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

fn largest(dir: &Path) -> Option<std::path::PathBuf> {
    let paths = std::fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let files = paths.filter_map(|path| if path.is_dir() { largest(&path) } else { Some(path) });
    files.max_by_key(|path| std::fs::metadata(path).map_or(0, |meta| meta.len()))
}

/// Log, state and snapshots of every node have file systems of their own, between which no file can
/// have two names: snapshots are made, sent and installed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_work_where_log_and_state_have_disks_of_their_own() {
    const DISK: u64 = 1 << 30;
    if !may_mount() {
        return;
    }
    let cluster = forgetful().alone().lay_out().await;
    let mut mounts = Vec::new();
    for node in &cluster.nodes {
        for place in ["raft/log", "state"] {
            let mount = Mount::new(DISK);
            mount.serve(&node.directory().join(place));
            mounts.push(mount);
        }
    }
    cluster.nameservers.iter().for_each(NameServer::start);
    cluster.groups[0].start();
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    send_and_receive(&cluster, &producer, 100).await;
    let away = outlive(&cluster, &producer).await;
    away.start();
    send_and_receive(&cluster, &producer, 100).await;
    cluster.replicas_agree().await;
    logs_start_alike(&cluster).await;
    installed(&away).await;

    // From its own snapshot, too.
    away.kill();
    let state = away.directory().join("state");
    for entry in std::fs::read_dir(&state).expect("a state") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("a file");
    }
    away.start();
    send_and_receive(&cluster, &producer, 20).await;
    cluster.replicas_agree().await;
    assert!(away.process().log().contains("taking the state from the last snapshot"));
    let is_link = |place| away.directory().join(place).is_symlink();
    assert!(is_link("state") && is_link("raft/log"), "it has left its disks");
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
    drop(mounts);
}
