//! Backups: taken while the group serves, small when little is new, and good for a new cluster in
//! which everything is that was acknowledged before.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tests::cluster::DRAIN;
use tests::node::Node;
use tests::process::run_to_end;
use tests::{Cluster, Ledger, Producer, binaries, eventually, throughout};

/// A few dozen mebibytes at the disk's speed, on a machine with other work.
const TAKEN: Duration = Duration::from_secs(120);
/// A restored node waits for a leader before it counts itself in.
const FORMED: Duration = Duration::from_secs(90);
const BODY: usize = 64 << 10;

async fn backup(cluster: &Cluster, to: &Path, more: &[&str]) -> (i32, String) {
    let nameserver = cluster.nameservers[0].address.to_string();
    let to = to.to_str().expect("a plain path");
    let mut arguments = vec!["backup", "-b", "broker-a", "--to", to, "--json", "-n", &nameserver];
    arguments.extend(more);
    let program = binaries::program("mqadmin");
    let (status, output) = run_to_end(&program, &arguments, cluster.scratch.path(), TAKEN).await;
    (status.code().expect("it ends by itself"), output)
}

async fn taken(cluster: &Cluster, to: &Path) -> Value {
    let (code, output) = backup(cluster, to, &[]).await;
    assert_eq!(code, 0, "{output}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

async fn restore(cluster: &Cluster, node: &Node, from: &Path) -> (i32, String) {
    let (id, dir) = (node.id.to_string(), node.directory().display().to_string());
    let from = from.to_str().expect("a plain path");
    let arguments = [
        "restore",
        "--from",
        from,
        "--data-dir",
        &dir,
        "--broker-name",
        "broker-a",
        "--node-id",
        &id,
        "--raft-peers",
        cluster.peers(),
    ];
    let program = binaries::program("broker");
    let (status, output) = run_to_end(&program, &arguments, cluster.scratch.path(), TAKEN).await;
    (status.code().expect("it ends by itself"), output)
}

/// All that was there is gone: processes, directories, and what NameServers knew.
fn lose_everything(cluster: &Cluster) {
    for node in &cluster.nodes {
        node.kill();
        node.wipe();
    }
    cluster.nameservers.iter().for_each(tests::nameserver::NameServer::restart);
}

fn segments(backup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(backup.join("log")).expect("a backup has a log");
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_taken_under_load_becomes_a_new_cluster_with_everything_in_it() {
    let cluster = Cluster::of(3).set("log.segment_size", "16MiB").start().await;
    let kept = cluster.scratch.path().join("kept");
    cluster.topic("orders", 4).await;
    cluster.topic("traffic", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    assert_eq!(producer.send(600, 8).await, 600);
    cluster.consumer("billing", "orders").receives_everything(DRAIN).await;
    // Acked is acked: billing must get these and nothing else from the new cluster.
    assert_eq!(producer.send(50, 8).await, 50);
    let term = cluster.leader().await.1.term;

    // What is sent meanwhile may or may not be in it.
    let meanwhile = Arc::new(Ledger::new());
    let sender = Producer::new(&cluster.access_points(), "traffic", &meanwhile);
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn(async move {
        let mut sent = 0;
        while !*stopped.borrow_and_update() {
            sent += sender.send(20, 4).await;
        }
        sent
    });
    let first = taken(&cluster, &kept).await;
    stop.send_replace(true);
    let sent = load.await.expect("the load ends");
    assert!(sent > 0, "nothing was sent while the backup was taken");
    let (leader, status) = cluster.leader().await;
    assert_eq!(status.term, term, "a backup elects nobody");
    assert_ne!(first["node_id"], leader.id, "a follower was copied");
    let received = first["received_bytes"].as_u64().expect("a number");
    assert!(received > 40 << 20, "{first}");

    let second = taken(&cluster, &kept).await;
    let again = second["received_bytes"].as_u64().expect("a number");
    assert!(again < received / 8, "the second backup shipped {again} of {received}: {second}");
    assert!(second["index"].as_u64() >= first["index"].as_u64(), "{first} {second}");

    lose_everything(&cluster);
    for node in &cluster.nodes {
        let (code, output) = restore(&cluster, node, &kept).await;
        assert_eq!(code, 0, "{output}");
        assert!(output.contains("log.segment_size=16MiB"), "{output}");
    }
    cluster.nodes.iter().for_each(|node| node.start());
    eventually("the new group has a leader", FORMED, async || {
        for node in &cluster.nodes {
            let status = node.status().await.map_err(|error| format!("{error:#}"))?;
            if status.leader_id.is_none_or(|leader| leader == 0) {
                return Err(status.to_string());
            }
        }
        Ok(())
    })
    .await;
    let group = cluster.leader().await.1.group_id;
    assert_ne!(group, status.group_id, "a restored group is a new one");
    cluster.consumer("billing", "orders").receives_everything(DRAIN).await;
    // It goes on.
    assert_eq!(producer.send(50, 8).await, 50);
    cluster.finish_with_everything_received("orders", &["billing", "audit"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_with_the_file_that_is_wrong() {
    let cluster = Cluster::of(3).set("log.segment_size", "16MiB").start().await;
    let kept = cluster.scratch.path().join("kept");
    cluster.topic("orders", 1).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    assert_eq!(producer.send(300, 8).await, 300);
    let first = taken(&cluster, &kept).await;

    let (node, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    node.stop().await;
    let (code, output) = restore(&cluster, node, &kept).await;
    assert_ne!(code, 0, "a directory in use was written over");
    assert!(output.contains("directory of its own"), "{output}");
    let aside = node.directory().with_extension("aside");
    fs::rename(node.directory(), &aside).expect("the directory moves");

    // One byte in the middle of a sealed segment.
    let segment = segments(&kept)[0].clone();
    let good = fs::read(&segment).expect("a segment");
    let mut bad = good.clone();
    bad[5 << 20] ^= 1;
    fs::write(&segment, &bad).expect("written");
    let (code, output) = restore(&cluster, node, &kept).await;
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    assert_ne!(code, 0, "{output}");
    assert!(output.contains(&name) && output.contains("damaged"), "{output}");
    assert!(!node.directory().join("raft").join("identity").exists(), "half a replica");

    // One that is gone.
    fs::remove_file(&segment).expect("removed");
    let (code, output) = restore(&cluster, node, &kept).await;
    assert_ne!(code, 0, "{output}");
    assert!(output.contains(&name) && output.contains("missing"), "{output}");

    // The next backup brings it back.
    let mended = taken(&cluster, &kept).await;
    let received = mended["received_bytes"].as_u64().expect("a number");
    assert!(received >= 16 << 20, "{first} {mended}");
    assert_eq!(fs::read(&segment).expect("it is back"), good);
    let (code, output) = restore(&cluster, node, &kept).await;
    assert_eq!(code, 0, "{output}");

    // A restored node is of another group than the one that still lives, and keeps out of it.
    node.start();
    let status = node.exit(FORMED).await.expect("it ends by itself");
    assert!(!status.success());
    let log = node.process().log();
    assert!(log.contains("belongs to group"), "{log}");
    let (_, leader) = cluster.leader().await;
    throughout("the others go on", Duration::from_secs(1), async || {
        let status = other.status().await.map_err(|error| format!("{error:#}"))?;
        if status.term == leader.term { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    fs::remove_dir_all(node.directory()).expect("removed");
    fs::rename(&aside, node.directory()).expect("the directory comes back");
    node.start();

    // A replica that is not there.
    let (code, output) = backup(&cluster, &kept, &["-i", "9"]).await;
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("no node 9"), "{output}");
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}
