//! What is below the floor goes, and replicas that were away come back: by the log where it still
//! reaches back far enough, else by a snapshot.

mod support;

use std::path::Path;
use std::time::Duration;

use raft::{Config, Limits, LogIndex, LogOffset};
use support::{Cluster, FORGET, PATIENCE, Toy, eventually};

const SEGMENT: u64 = 256 << 10;

/// A group whose logs have many small segments.
fn group() -> Cluster {
    group_with(|_| {})
}

fn group_with(change: impl Fn(&mut Config)) -> Cluster {
    let mut cluster = Cluster::new(3);
    for node in cluster.nodes.values_mut() {
        node.config.segment_size = SEGMENT;
        node.config.limits = Limits {
            command_bytes: 64 << 10,
            entry_bytes: 32 << 10,
            unacked_commands: 1024,
            ..Limits::default()
        };
        change(&mut node.config);
    }
    cluster.start_all();
    cluster.leader();
    cluster
}

/// Proposes `count` commands of 10 kB at whoever leads.
fn write(cluster: &Cluster, name: &str, count: usize) {
    for number in 0..count {
        cluster.propose(&format!("{name} {number} {}", "x".repeat(10_000)));
    }
}

fn forget(cluster: &Cluster) -> LogOffset {
    let number = cluster.propose(FORGET);
    cluster.nodes[&cluster.leader()].toy.state().commands[number].0
}

/// The base of the oldest segment of a node; 0 while there is none, in the middle of a replacement.
fn start_of_log(cluster: &Cluster, id: u64) -> u64 {
    let log = cluster.data_dir(id).join("log");
    let names = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().file_name());
    let bases = names.filter_map(|name| name.to_str()?.strip_suffix(".seg")?.parse().ok());
    bases.min().unwrap_or(0)
}

fn files_of(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() { files.extend(files_of(&path)) } else { files.push(path) }
    }
    files
}

/// All running nodes have applied the same, and their logs start where it may.
fn agree(cluster: &Cluster, floor: LogOffset) {
    let start = floor.0 / SEGMENT * SEGMENT;
    let state = |toy: &Toy| {
        let state = toy.state();
        (state.applied.log_id, state.digest, state.floor, state.commands.len())
    };
    eventually("all nodes have the same state and the same start of the log", || {
        let nodes: Vec<_> = cluster.running_nodes().collect();
        let same = nodes.iter().all(|node| state(&node.toy) == state(&nodes[0].toy));
        let cut = nodes.iter().all(|node| start_of_log(cluster, node.id().0) == start);
        (same && cut).then_some(())
    });
}

/// Every command from the floor on can be read at every node.
fn readable(cluster: &Cluster, floor: LogOffset) {
    for node in cluster.running_nodes() {
        let reader = node.group().reader();
        for (position, bytes) in node.toy.state().commands {
            if position >= floor {
                let len = u32::try_from(bytes.len()).unwrap();
                assert_eq!(reader.bytes(position, len).unwrap(), bytes, "node {}", node.id());
            }
        }
    }
}

fn purged(cluster: &Cluster, id: u64) -> Option<LogIndex> {
    cluster.nodes[&id].status().purged
}

#[test]
fn what_is_below_the_floor_goes_everywhere_and_a_restart_knows_it() {
    let mut cluster = group();
    write(&cluster, "old", 80);
    let floor = forget(&cluster);
    write(&cluster, "new", 10);
    agree(&cluster, floor);
    assert!(start_of_log(&cluster, 1) >= 2 * SEGMENT);
    readable(&cluster, floor);
    let before = cluster.nodes[&1].toy.state();
    cluster.kill_all();
    cluster.start_all();
    write(&cluster, "newer", 5);
    agree(&cluster, floor);
    readable(&cluster, floor);
    let after = cluster.nodes[&1].toy.state();
    assert_eq!(after.commands[..before.commands.len()], before.commands[..]);
}

#[test]
fn a_follower_that_lags_but_not_behind_the_floor_is_fed_from_the_log() {
    let mut cluster = group();
    write(&cluster, "old", 80);
    let floor = forget(&cluster);
    agree(&cluster, floor);
    let away = cluster.follower();
    cluster.node(away).kill();
    write(&cluster, "meanwhile", 60);
    cluster.node(away).start();
    agree(&cluster, floor);
    // Its own snapshot gave it back what was before the log; none was sent.
    assert_eq!(cluster.nodes[&away].toy.state().installed, 1);
    readable(&cluster, floor);
}

#[test]
fn a_follower_behind_the_floor_gets_a_snapshot_and_everything_that_may_still_be_read() {
    let mut cluster = group();
    let away = cluster.follower();
    write(&cluster, "old", 10);
    cluster.node(away).kill();
    write(&cluster, "gone", 80);
    let floor = forget(&cluster);
    write(&cluster, "kept", 80);
    agree(&cluster, floor);
    cluster.node(away).start();
    agree(&cluster, floor);
    assert_eq!(cluster.nodes[&away].toy.state().installed, 1);
    readable(&cluster, floor);

    // It is a full member: with it alone beside the leader the group goes on.
    let leader = cluster.leader();
    let other = (1..=3).find(|id| *id != leader && *id != away).unwrap();
    cluster.node(other).kill();
    write(&cluster, "with it", 5);
    // And it can bring others back, as a leader that itself was brought back.
    let floor = forget(&cluster);
    write(&cluster, "more", 60);
    let floor = floor.max(forget(&cluster));
    write(&cluster, "end", 30);
    agree(&cluster, floor);
    let patience = async {
        let handed = cluster.nodes[&leader].group().transfer_leader(Some(raft::NodeId(away)));
        tokio::time::timeout(PATIENCE, handed).await
    };
    cluster.nodes[&leader].runtime().block_on(patience).unwrap().unwrap();
    cluster.node(other).start();
    agree(&cluster, floor);
    assert_eq!(cluster.leader(), away);
    readable(&cluster, floor);
    assert!(purged(&cluster, other).is_some());
}

#[test]
fn a_snapshot_that_was_cut_short_goes_on_after_a_restart() {
    let mut cluster = group_with(|config| config.snapshot_rate = 1 << 20);
    let away = cluster.follower();
    cluster.node(away).kill();
    write(&cluster, "gone", 60);
    let floor = forget(&cluster);
    write(&cluster, "kept", 150);
    agree(&cluster, floor);
    cluster.node(away).start();
    let incoming = cluster.data_dir(away).join("snapshot/incoming");
    let sizes = || -> u64 {
        let files = files_of(&incoming);
        files.iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len())).sum()
    };
    // Killed on the way, twice, the second time the leader.
    eventually("something has arrived", || (sizes() > SEGMENT).then_some(()));
    cluster.node(away).kill();
    let kept = sizes();
    assert!(kept > SEGMENT);
    cluster.node(away).start();
    eventually("more has arrived", || (sizes() > kept).then_some(()));
    let leader = cluster.leader();
    cluster.node(leader).kill();
    cluster.leader();
    cluster.node(leader).start();
    agree(&cluster, floor);
    readable(&cluster, floor);
    write(&cluster, "after", 3);
}

#[test]
fn writes_go_on_while_snapshots_are_made_and_sent() {
    let mut cluster = group_with(|config| config.snapshot_rate = 2 << 20);
    let away = cluster.follower();
    cluster.node(away).kill();
    write(&cluster, "gone", 60);
    forget(&cluster);
    write(&cluster, "kept", 100);
    cluster.node(away).start();
    let mut slowest = Duration::ZERO;
    let mut floor = LogOffset(0);
    for round in 0..40 {
        let started = std::time::Instant::now();
        write(&cluster, &format!("during {round}"), 2);
        if round % 10 == 9 {
            floor = forget(&cluster);
        }
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    agree(&cluster, floor);
    readable(&cluster, floor);
}
