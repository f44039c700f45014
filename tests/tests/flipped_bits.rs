//! One flipped bit in any file of one node: nothing wrong is ever handed out, nothing is lost, the
//! group goes on, and the node is whole again without anybody's help.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::cluster::{CATCH_UP, DRAIN, Plan};
use tests::damage::flip;
use tests::node::Node;
use tests::{Cluster, Producer, eventually};

const BODY: usize = 64 << 10;
/// Bytes of a segment's header and of a frame's.
const HEADERS: u64 = 4096 + 64;
/// How long a process may take to find that it cannot go on.
const END: Duration = Duration::from_secs(20);

/// A group with small segments.
fn plan() -> Plan {
    Cluster::of(3).set("log.segment_size", "9MiB")
}

/// One that reads everything again all the time.
fn scrubbing() -> Plan {
    plan().set("raft.scrub_rate", "512MiB").set("raft.scrub_interval", "1s")
}

fn listed(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}

fn segments(node: &Node) -> Vec<PathBuf> {
    listed(&node.directory().join("raft/log"), ".seg")
}

/// Where a disk's fault hits.
#[derive(Debug, Clone, Copy)]
enum Place {
    SealedFrame,
    SealedHeader,
    ActiveFrame,
    ActiveHeader,
    HardState(u64),
    Identity(&'static str),
    Table,
    StateManifest,
    StateCurrent,
    SnapshotManifest,
    SnapshotFile,
}

impl Place {
    const ALL: [Place; 13] = [
        Place::SealedFrame,
        Place::SealedHeader,
        Place::ActiveFrame,
        Place::ActiveHeader,
        Place::HardState(0),
        Place::HardState(4096),
        Place::Identity("identity"),
        Place::Identity("identity.copy"),
        Place::Table,
        Place::StateManifest,
        Place::StateCurrent,
        Place::SnapshotManifest,
        Place::SnapshotFile,
    ];

    fn find(self, node: &Node) -> (PathBuf, u64) {
        let dir = node.directory();
        let longest = |paths: Vec<PathBuf>| {
            let len = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.size());
            paths.into_iter().max_by_key(len).expect("a file")
        };
        let middle = |path: PathBuf| {
            let at = fs::metadata(&path).expect("a file").size() / 2;
            (path, at)
        };
        match self {
            Place::SealedFrame => (segments(node).remove(0), HEADERS + 1000),
            Place::SealedHeader => (segments(node).remove(0), 50),
            Place::ActiveFrame => (segments(node).pop().expect("a segment"), HEADERS + 1000),
            Place::ActiveHeader => (segments(node).pop().expect("a segment"), 50),
            Place::HardState(slot) => (dir.join("raft/log/hardstate"), slot + 60),
            Place::Identity(name) => (dir.join("raft").join(name), 30),
            Place::Table => middle(longest(listed(&dir.join("state"), ".sst"))),
            Place::StateManifest => {
                let manifests = fs::read_dir(dir.join("state")).expect("a state");
                let paths = manifests.map(|entry| entry.expect("an entry").path());
                let is = |path: &PathBuf| path.to_string_lossy().contains("MANIFEST-");
                middle(paths.filter(is).max().expect("a manifest"))
            }
            Place::StateCurrent => (dir.join("state/CURRENT"), 3),
            Place::SnapshotManifest => (snapshot(node).join("MANIFEST"), 40),
            Place::SnapshotFile => {
                let files = listed(&snapshot(node).join("state"), ".sst");
                middle(longest(files))
            }
        }
    }

    /// What the node says about it.
    fn said(self) -> &'static str {
        match self {
            Place::SealedFrame | Place::SealedHeader | Place::ActiveFrame | Place::ActiveHeader => {
                "a damaged segment was replaced by the peer's"
            }
            Place::HardState(_) => "a slot of the hard state is torn or damaged",
            Place::Identity(_) => "identity is written anew from its copy",
            Place::Table | Place::StateManifest | Place::StateCurrent => "state is damaged",
            Place::SnapshotManifest => "a snapshot cannot be used and is removed",
            Place::SnapshotFile => "this node's snapshot is damaged",
        }
    }
}

fn snapshot(node: &Node) -> PathBuf {
    let mut found = listed(&node.directory().join("raft/snapshot"), "");
    found.retain(|path| path.join("MANIFEST").exists());
    found.pop().unwrap_or_else(|| panic!("{node:?} has no snapshot"))
}

async fn says(node: &Node, before: usize, text: &str) {
    eventually(&format!("{node:?} says {text:?}"), CATCH_UP, async || {
        let log = node.process().log();
        if log[before.min(log.len())..].contains(text) {
            Ok(())
        } else {
            Err(node.process().tail())
        }
    })
    .await;
}

/// Sends, and has it received before it is forgotten.
async fn send_and_receive(cluster: &Cluster, producer: &Producer, count: usize) {
    let mut left = count;
    while left > 0 {
        let now = left.min(100);
        assert_eq!(producer.send(now, 16).await, now);
        cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
        left -= now;
    }
}

/// A node is killed, a bit flips in one of its files, and it is started again while messages are
/// sent: for each kind of file.
#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_while_a_node_is_down_is_repaired_without_anybody() {
    let cluster = scrubbing().set("log.retention_bytes", "27MiB").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    send_and_receive(&cluster, &producer, 700).await;
    for place in Place::ALL {
        let node = cluster.followers().await.remove(0);
        eventually("each node has a snapshot", CATCH_UP, async || {
            let dir = node.directory().join("raft/snapshot");
            let whole = listed(&dir, "").iter().any(|path| path.join("MANIFEST").exists());
            if whole { Ok(()) } else { Err(format!("{dir:?}")) }
        })
        .await;
        node.kill();
        let before = node.process().log().len();
        let (path, at) = place.find(&node);
        cluster.ledger.fault(format!("{place:?}: {} at {at}", path.display()));
        flip(&path, at);
        let sender = producer.clone();
        let load = tokio::spawn(async move { sender.send(30, 4).await });
        node.start();
        assert_eq!(load.await.expect("it ends"), 30, "{place:?}: the group goes on");
        says(&node, before, place.said()).await;
        cluster.replicas_agree().await;
        send_and_receive(&cluster, &producer, 20).await;
    }
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// A bit flips in a segment that a running node has read already, on the leader and on a follower:
/// reading everything again finds it, and it is the same file as everywhere else afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_under_a_running_node_is_found_and_repaired() {
    let cluster = scrubbing().alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    send_and_receive(&cluster, &producer, 300).await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.followers().await.remove(0);
    let whole = cluster.followers().await.remove(1);
    let good = fs::read(&segments(&whole)[0]).expect("a segment");
    for node in [&leader, &follower] {
        let path = segments(node).remove(0);
        flip(&path, HEADERS + 5000);
        let sender = producer.clone();
        let load = tokio::spawn(async move { sender.send(50, 4).await });
        eventually("the segment is whole again", CATCH_UP, async || {
            let repaired = node.metric("raftmq_damage_repaired_total").await.unwrap_or(0.0);
            match fs::read(&path).expect("a segment") == good && repaired >= 1.0 {
                true => Ok(()),
                false => Err(format!("{repaired} repaired")),
            }
        })
        .await;
        assert_eq!(load.await.expect("it ends"), 50);
    }
    assert!(leader.metric("raftmq_scrubbed_bytes_total").await.expect("a metric") > 1e6);
    cluster.finish_with_everything_received("orders", &["audit", "late"]).await;
}

/// Nothing looks for damage, but somebody reads what is damaged: the leader repairs it before it
/// answers.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_consumer_meets_is_repaired_before_it_gets_an_answer() {
    let cluster = plan().set("raft.scrub_rate", "0").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    assert_eq!(producer.send(300, 16).await, 300);
    // What is kept in memory would be read from there.
    for node in &cluster.nodes {
        node.stop().await;
    }
    cluster.heal();
    cluster.leader().await;
    cluster.replicas_agree().await;
    // Each node has another place of damage: whoever leads has one, and the others can help.
    for (node, at) in cluster.nodes.iter().zip([1_u64, 2, 3]) {
        flip(&segments(node)[0], HEADERS + at * 1_500_000);
    }
    cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
    cluster.ledger.must_hold(&["audit"]);
    let (leader, _) = cluster.leader().await;
    let repaired = leader.metric("raftmq_damage_repaired_total").await.expect("a metric");
    assert!(repaired >= 1.0, "{repaired}");
    cluster.finish().await;
}

/// The leader's state is damaged while it leads: it hands over, takes its own place without the
/// state, and gets another replica's, but for the log, which it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_damaged_state_hands_over_and_comes_back() {
    let cluster = scrubbing().set("log.retention_bytes", "27MiB").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    send_and_receive(&cluster, &producer, 700).await;
    let (leader, status) = cluster.leader().await;
    let pid = leader.process().pid();
    let (path, at) = Place::Table.find(&leader);
    flip(&path, at);
    let sender = producer.clone();
    let load = tokio::spawn(async move { sender.send(100, 4).await });
    says(&leader, 0, "starting over without the damaged state").await;
    cluster.leader_after(status.term).await;
    assert_eq!(load.await.expect("it ends"), 100);
    cluster.replicas_agree().await;
    assert_eq!(leader.process().pid(), pid, "nobody had to start it");
    cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// A state that is lost altogether comes back from a peer, of whose snapshot the log is spared.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_rebuilt_from_a_peer_which_sends_no_log_that_is_there() {
    let cluster = plan().set("log.retention_bytes", "27MiB").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    send_and_receive(&cluster, &producer, 700).await;
    let node = cluster.followers().await.remove(0);
    node.kill();
    fs::remove_dir_all(node.directory().join("state")).expect("a state");
    fs::remove_dir_all(node.directory().join("raft/snapshot")).expect("snapshots");
    node.start();
    says(&node, 0, "the state was replaced by a peer's").await;
    cluster.replicas_agree().await;
    let mut spared = 0.0;
    for node in &cluster.nodes {
        spared += node.metric("raftmq_snapshot_spared_bytes_total").await.expect("a metric");
    }
    assert!(spared > 9e6, "segments that are there are not sent: {spared}");
    says(&node, 0, "recovered").await;
    let log = node.process().log();
    let line = log.lines().rfind(|line| line.contains(" recovered ")).expect("one line");
    for field in ["segments=", "cut_bytes=", "checked_bytes=", "replayed=", "state_at=", "took="] {
        assert!(line.contains(field), "{field} is missing in {line}");
    }
    cluster.consumer("audit", "orders").receives_everything(DRAIN).await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// With both copies of what a node must not guess gone, it does not start and says what to do; the
/// others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_know_its_vote_or_its_group_refuses_and_names_the_way_out() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    let producer = cluster.producer("orders");
    producer.send(100, 16).await;
    let node = cluster.followers().await.remove(0);
    let raft = node.directory().join("raft");
    let places: [[(PathBuf, u64); 2]; 2] = [
        [(raft.join("log/hardstate"), 60), (raft.join("log/hardstate"), 4096 + 60)],
        [(raft.join("identity"), 30), (raft.join("identity.copy"), 30)],
    ];
    for places in places {
        node.kill();
        let before = node.process().log().len();
        places.iter().for_each(|(path, at)| flip(path, *at));
        node.start();
        let status = node.exit(END).await.expect("it refuses");
        assert!(!status.success());
        says(&node, before, "let it join under a new id with an empty data directory").await;
        assert_eq!(producer.send(50, 16).await, 50, "two of three go on");
        places.iter().for_each(|(path, at)| flip(path, *at));
    }
    node.start();
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// A disk that answers EIO: to a write or a sync the node ends and says so, and what was
/// acknowledged is there; to a read it fetches the segment from a peer.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_answers_eio_costs_nothing_that_was_acknowledged() {
    let cluster = scrubbing().alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(16 << 10);
    assert_eq!(producer.send(800, 16).await, 800);
    let group = &cluster.groups[0];
    for (fault, said) in [
        ("sync 10", "log stops"),
        ("write 10", "log stops"),
        ("read 30", "a damaged segment was replaced by the peer's"),
    ] {
        let node = cluster.followers().await.remove(0);
        node.stop().await;
        let before = node.process().log().len();
        let plain = cluster.arguments(&group.name, &group.peers);
        let mut faulty = plain.clone();
        faulty.extend(["--set".into(), format!("fault.disk={fault}").into()]);
        node.set_arguments(faulty);
        node.start();
        let (sender, told) = (producer.clone(), Arc::new(AtomicBool::new(false)));
        let enough = Arc::clone(&told);
        let load = tokio::spawn(async move {
            let (mut sent, mut done) = (0, 0);
            while sent < 400 || !enough.load(Ordering::Relaxed) {
                done += sender.send(20, 4).await;
                sent += 20;
            }
            (sent, done)
        });
        says(&node, before, said).await;
        told.store(true, Ordering::Relaxed);
        if !fault.starts_with("read") {
            let status = node.exit(END).await.expect("it ends by itself");
            assert!(!status.success());
            says(&node, before, "Input/output error").await;
        }
        let (sent, done) = load.await.expect("it ends");
        assert_eq!(done, sent, "{fault}: the group goes on");
        node.kill();
        node.set_arguments(plain);
        node.start();
        cluster.replicas_agree().await;
    }
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// The exit code of a program, and what it wrote.
fn run(program: &str, arguments: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(tests::binaries::program(program))
        .args(arguments)
        .output()
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ends by itself"), String::from_utf8_lossy(&text).into_owned())
}

/// The tools that look for damage find it and say where: the one that asks all replicas, and the one
/// that needs none of them.
#[tokio::test(flavor = "multi_thread")]
async fn tools_find_what_is_damaged_and_name_it() {
    let cluster = plan().set("raft.scrub_rate", "0").start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    assert_eq!(producer.send(300, 16).await, 300);
    let address = cluster.nameservers[0].address.to_string();
    let verify = || {
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            run("mqadmin", &["verifyReplicas", "-n", &address, "--json"])
        })
    };
    let sender = producer.clone();
    let load = tokio::spawn(async move { sender.send(100, 4).await });
    let (code, text) = verify().await.expect("it runs");
    assert_eq!(code, 0, "{text}");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let replicas = report["brokers"][0]["replicas"].as_array().expect("a list").clone();
    assert_eq!(replicas.len(), 3);
    assert!(replicas.iter().all(|replica| replica["digest"] == replicas[0]["digest"]), "{text}");
    assert!(replicas[0]["segments"].as_array().is_some_and(|all| !all.is_empty()), "{text}");
    assert_eq!(load.await.expect("it ends"), 100);

    let node = cluster.followers().await.remove(0);
    let dir = node.directory().display().to_string();
    flip(&segments(&node)[0], HEADERS + 5000);
    let (code, text) = verify().await.expect("it runs");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("segment 0") && text.contains("body checksum"), "{text}");
    assert!(text.contains("replicas differ"), "{text}");

    let (code, text) = run("broker", &["inspect", &dir]);
    assert!(code == 1 && text.contains("--force-read-only"), "{code}: {text}");
    let (code, text) = run("broker", &["inspect", &dir, "--check", "--force-read-only"]);
    assert_eq!(code, 3, "{text}");
    node.stop().await;
    let (code, text) = run("broker", &["inspect", &dir]);
    assert_eq!(code, 0, "nothing was compared: {text}");
    let arguments = ["inspect", &dir, "--check", "--json", "--from", "3", "--limit", "2"];
    let (code, text) = run("broker", &arguments);
    assert_eq!(code, 3, "{text}");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let parts = report["parts"].as_array().expect("a list");
    let wrong: Vec<_> = parts.iter().filter(|part| !part["problem"].is_null()).collect();
    assert_eq!(wrong.len(), 1, "{text}");
    assert!(wrong[0]["name"].as_str().is_some_and(|name| name.ends_with(".seg")), "{text}");
    let names: Vec<&str> = parts.iter().filter_map(|part| part["name"].as_str()).collect();
    for name in ["identity", "identity.copy", "log/hardstate, slot 1", "state", "state, queue"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    assert_eq!(report["entries"].as_array().map(Vec::len), Some(2), "{text}");
    assert_eq!(report["entries"][0]["index"], 3);
    flip(&segments(&node)[0], HEADERS + 5000);
    let (code, text) = run("broker", &["inspect", &dir, "--check"]);
    assert_eq!(code, 0, "{text}");
    node.start();
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// Two of three are damaged while they are down, in different places: each makes up for the other, or
/// the third does, and meanwhile nobody is told anything wrong.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_that_are_damaged_in_different_places_make_each_other_whole() {
    let cluster = scrubbing().set("log.retention_bytes", "27MiB").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    send_and_receive(&cluster, &producer, 700).await;
    let pairs = [
        [Place::SealedFrame, Place::ActiveFrame],
        [Place::ActiveHeader, Place::SealedHeader],
        [Place::StateManifest, Place::SealedFrame],
        [Place::Table, Place::StateCurrent],
    ];
    for places in pairs {
        let two = cluster.followers().await;
        eventually("each node has a snapshot", CATCH_UP, async || {
            let has = |node: &Node| {
                let dir = node.directory().join("raft/snapshot");
                listed(&dir, "").iter().any(|path| path.join("MANIFEST").exists())
            };
            if two.iter().all(|node| has(node)) { Ok(()) } else { Err("no".to_owned()) }
        })
        .await;
        two.iter().for_each(|node| node.kill());
        let before: Vec<usize> = two.iter().map(|node| node.process().log().len()).collect();
        for (node, place) in two.iter().zip(places) {
            let (path, at) = place.find(node);
            cluster.ledger.fault(format!("{node:?}: {place:?}: {} at {at}", path.display()));
            flip(&path, at);
        }
        let sender = producer.clone();
        let load = tokio::spawn(async move { sender.send(30, 4).await });
        two.iter().for_each(|node| node.start());
        assert_eq!(load.await.expect("it ends"), 30, "{places:?}: the group goes on");
        for ((node, place), before) in two.iter().zip(places).zip(before) {
            says(node, before, place.said()).await;
        }
        cluster.replicas_agree().await;
        send_and_receive(&cluster, &producer, 20).await;
    }
    let address = cluster.nameservers[0].address.to_string();
    let verify =
        tokio::task::spawn_blocking(move || run("mqadmin", &["verifyReplicas", "-n", &address]));
    let (code, text) = verify.await.expect("it runs");
    assert_eq!(code, 0, "{text}");
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// A node that waits for others to repair it is alive, is not ready, and says what it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_to_be_repaired_says_so() {
    let cluster = plan().set("log.retention_bytes", "27MiB").alone().start().await;
    cluster.topic("orders", 4).await;
    let producer = cluster.producer("orders").with_bodies_of(BODY);
    send_and_receive(&cluster, &producer, 700).await;
    let node = cluster.followers().await.remove(0);
    let page = async |path: &'static str| {
        let page = tests::http::get_async(node.addresses.metrics, path).await;
        page.map_err(|error| format!("{error:#}"))
    };
    let lost_state = || {
        fs::remove_dir_all(node.directory().join("state")).expect("a state");
        fs::remove_dir_all(node.directory().join("raft/snapshot")).expect("snapshots");
    };
    let damaged_log = || {
        let (path, at) = Place::ActiveFrame.find(&node);
        flip(&path, at);
    };
    let faults: [(&dyn Fn(), &str); 2] = [
        (&damaged_log, "repairing the log"),
        (&lost_state, "getting the state from another replica"),
    ];
    for (fault, why) in faults {
        cluster.groups[0].kill();
        fault();
        // An unclean stop has everything looked at.
        node.start();
        eventually("it says what it waits for", END, async || {
            let ready = page("/ready").await;
            let said = ready.as_ref().err().is_some_and(|e| e.contains("503") && e.contains(why));
            if said { Ok(()) } else { Err(format!("{ready:?}")) }
        })
        .await;
        assert_eq!(page("/health").await.as_deref(), Ok("live\n"));
        let status = page("/status").await.expect("a page");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["node_id"], node.id, "{status}");
        assert!(status["starting"].as_str().is_some_and(|text| text.contains(why)), "{status}");
        cluster.heal();
        cluster.replicas_agree().await;
        eventually("it is ready", END, async || match node.is_ready().await {
            true => Ok(()),
            false => Err(format!("{:?}", page("/ready").await)),
        })
        .await;
    }
    send_and_receive(&cluster, &producer, 20).await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}
