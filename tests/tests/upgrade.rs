//! Two releases: formats of a newer one are refused by name and left alone, a group is upgraded node
//! by node under load, and does not go back once it uses what only the newer release knows.
//!
//! The newer release is the same program with `fault.level`, which makes it understand one feature
//! level more.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tests::cluster::{CATCH_UP, ELECTION};
use tests::node::Node;
use tests::process::run_to_end;
use tests::{Cluster, binaries, eventually, throughout};

/// A process that must not start ends soon.
const REFUSED: Duration = Duration::from_secs(30);

/// Every file below `dir` but locks, with its content.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => dirs.push(path),
                false if path.ends_with("LOCK") => {}
                false => {
                    found.insert(path.clone(), fs::read(&path).expect("a file"));
                }
            }
        }
    }
    found
}

/// Sets the version in a header, `covered` bytes of which its checksum covers.
fn at_version(file: &mut [u8], from: usize, covered: usize, version: u32) {
    file[from + 8..from + 12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&file[from + 8..from + covered]);
    file[from + 4..from + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Starts a node that must refuse to, and returns what it said.
async fn refused(node: &Node) -> String {
    let before = node.process().log().len();
    node.start();
    let status = node.exit(REFUSED).await.expect("it ends by itself");
    assert!(!status.success(), "{}", node.process().tail());
    node.process().log().split_off(before)
}

fn the_one(dir: &Path, suffix: &str) -> PathBuf {
    let mut found: Vec<PathBuf> =
        tree(dir).into_keys().filter(|p| p.to_string_lossy().ends_with(suffix)).collect();
    found.sort();
    found.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused_by_name_and_nothing_is_changed() {
    let cluster = Cluster::of(1).set("log.segment_size", "16MiB").start().await;
    let node = &cluster.nodes[0];
    cluster.topic("orders", 1).await;
    assert_eq!(cluster.producer("orders").send(20, 4).await, 20);
    // It makes a snapshot.
    let kept = cluster.scratch.path().join("kept").display().to_string();
    let nameserver = cluster.nameservers[0].address.to_string();
    let arguments = ["backup", "-b", "broker-a", "--to", &kept, "-n", &nameserver];
    let mqadmin = binaries::program("mqadmin");
    let (status, output) = run_to_end(&mqadmin, &arguments, cluster.scratch.path(), REFUSED).await;
    assert!(status.success(), "{output}");
    node.stop().await;

    let raft = node.directory().join("raft");
    let segment = the_one(&raft.join("log"), ".seg");
    let identity = |file: &mut Vec<u8>| {
        let text = String::from_utf8(file.clone()).expect("text");
        *file = text.replace("raftmq identity 1", "raftmq identity 9").into_bytes();
    };
    let hard_state = |file: &mut Vec<u8>| {
        at_version(file, 0, 512, 9);
        at_version(file, 4096, 512, 9);
    };
    let manifest = |file: &mut Vec<u8>| {
        let all = file.len();
        at_version(file, 0, all, 9);
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let formats: [(PathBuf, &str, Change<'_>); 4] = [
        (raft.join("identity"), "identity", &identity),
        (raft.join("log").join("hardstate"), "hardstate", &hard_state),
        (segment, ".seg", &|file| at_version(file, 0, 4096, 9)),
        (the_one(&raft.join("snapshot"), "MANIFEST"), "snapshot", &manifest),
    ];
    for (path, name, change) in formats {
        let good = fs::read(&path).expect("a file");
        let mut newer = good.clone();
        change(&mut newer);
        assert_ne!(good, newer, "{name}");
        fs::write(&path, &newer).expect("written");
        let before = tree(&raft);
        let said = refused(node).await;
        for part in [name, "version 9", "up to", "newer", "nothing was changed"] {
            assert!(said.contains(part), "{name}: {part:?} is not in {said}");
        }
        let after = tree(&raft);
        let differ: Vec<_> =
            after.iter().filter(|(path, now)| before.get(*path) != Some(now)).collect();
        assert!(
            differ.is_empty(),
            "{name}: {:?} changed",
            differ.iter().map(|d| d.0).collect::<Vec<_>>()
        );
        assert_eq!(before.len(), after.len(), "{name}: files are gone");
        fs::write(&path, &good).expect("written");
    }
    node.start();
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}

/// A node of a release that has no wire version in common with the others is refused by the leader,
/// as an access point, and by the NameServer; both name the versions and the way out. The others go
/// on, and it is welcome again in their own release.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_speaks_only_a_newer_wire_version_is_refused_by_name() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    let producer = cluster.producer("orders");
    assert_eq!(producer.send(50, 4).await, 50);
    let node = cluster.followers().await.remove(0);
    node.stop().await;
    let ours = cluster.arguments("broker-a", cluster.peers());
    let mut newer = ours.clone();
    newer.extend(["--set".into(), "fault.wire=9".into()]);
    node.set_arguments(newer);
    let before = node.process().log().len();
    let (leader, _) = cluster.leader().await;
    let led = leader.process().log().len();
    let named = cluster.nameservers[0].process().log().len();
    node.start();
    eventually("both name the versions and the way out", ELECTION, async || {
        let said = node.process().log().split_off(before);
        let peer = leader.process().log().split_off(led);
        let names = |log: &str, theirs: u32, ours: u32| {
            log.contains(&format!("it speaks wire versions {theirs}, and this release {ours}"))
                && log.contains("upgrade by way of a release that speaks both")
        };
        let good = names(&said, 1, 9) || names(&peer, 9, 1);
        if good { Ok(()) } else { Err(format!("{said}\n{peer}")) }
    })
    .await;
    eventually("the NameServer names it", ELECTION, async || {
        let log = cluster.nameservers[0].process().log().split_off(named);
        if log.contains("wire versions 9") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(producer.send(50, 4).await, 50, "two of three go on");
    node.kill();
    node.set_arguments(ours);
    node.start();
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}

/// The arguments of the release that understands `level`.
fn release(cluster: &Cluster, level: u32) -> Vec<OsString> {
    let mut arguments = cluster.arguments("broker-a", cluster.peers());
    if level > 1 {
        arguments.extend(["--set".into(), format!("fault.level={level}").into()]);
    }
    arguments
}

async fn level_of(node: &Node) -> Result<u32, String> {
    let level = node.metric("raftmq_feature_level").await.map_err(|error| format!("{error:#}"))?;
    Ok(if level == 1.0 { 1 } else { 2 })
}

async fn restarted_as(cluster: &Cluster, node: &Node, level: u32) {
    node.stop().await;
    node.set_arguments(release(cluster, level));
    node.start();
    eventually("the node is back", ELECTION, async || match node.is_ready().await {
        true => Ok(()),
        false => Err("not ready".to_owned()),
    })
    .await;
    cluster.replicas_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_upgraded_node_by_node_under_load_and_does_not_go_back() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 4).await;
    let producer = Arc::new(cluster.producer("orders"));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (sender, until) = (Arc::clone(&producer), stopped.clone());
    let load = tokio::spawn(async move {
        let mut sent = 0;
        while !*until.borrow() {
            sent += sender.send(20, 4).await;
        }
        sent
    });
    for node in &cluster.nodes[..2] {
        restarted_as(&cluster, node, 2).await;
    }
    // Also with a leader that understands more.
    let (leader, status) = cluster.leader().await;
    if leader.id == cluster.nodes[2].id {
        restarted_as(&cluster, &leader, 1).await;
        cluster.leader_after(status.term).await;
    }
    let (leader, _) = cluster.leader().await;
    assert_ne!(leader.id, cluster.nodes[2].id);
    throughout("a mixed group stays at the old level", Duration::from_secs(3), async || {
        for node in &cluster.nodes {
            match level_of(node).await? {
                1 => {}
                other => return Err(format!("{node:?} is at level {other}")),
            }
        }
        Ok(())
    })
    .await;
    restarted_as(&cluster, &cluster.nodes[2], 2).await;
    eventually("the group is at the new level", CATCH_UP, async || {
        for node in &cluster.nodes {
            match level_of(node).await? {
                2 => {}
                other => return Err(format!("{node:?} is at level {other}")),
            }
        }
        Ok(())
    })
    .await;
    stop.send_replace(true);
    let sent = load.await.expect("the load ends");
    assert!(sent > 100, "{sent} messages were sent");
    cluster.replicas_agree().await;

    let node = &cluster.nodes[1];
    node.stop().await;
    node.set_arguments(release(&cluster, 1));
    let said = refused(node).await;
    assert!(said.contains("feature level 2") && said.contains("up to 1"), "{said}");
    node.set_arguments(release(&cluster, 2));
    node.start();
    cluster.finish_with_everything_received("orders", &["billing"]).await;
}
