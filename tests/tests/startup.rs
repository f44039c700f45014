//! How a group comes up, and what it refuses.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::sync::Arc;
use std::time::Duration;

use tests::cluster::ELECTION;
use tests::node::Node;
use tests::status::Role;
use tests::{Cluster, Producer, eventually, throughout};

/// Time for a refusal to show: well above a few round trips between processes that just started.
const REFUSAL: Duration = Duration::from_secs(15);

/// Waits until the node says one of `words` in its log, and returns the log.
async fn says(node: &Node, words: &[&str]) -> String {
    eventually(&format!("{node:?} says one of {words:?}"), REFUSAL, async || {
        let log = node.process().log().to_lowercase();
        if words.iter().any(|w| log.contains(w)) { Ok(log) } else { Err(node.process().tail()) }
    })
    .await
}

/// The group serves: a message is sent through it.
async fn serves(cluster: &Cluster, topic: &str) {
    let running: Vec<_> =
        cluster.nodes.iter().filter(|n| n.is_active()).map(|n| n.addresses.client).collect();
    let producer = Producer::new(&running, topic, &cluster.ledger);
    assert_eq!(producer.send(10, 2).await, 10);
}

/// The order in which brokers and NameServers start does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn any_start_order_forms_the_group() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let cluster = Cluster::of(3).lay_out().await;
        for (place, node) in order.into_iter().enumerate() {
            cluster.nodes[node].start();
            if place == 1 {
                cluster.nameservers[0].start();
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        cluster.leader().await;
        cluster.topic("orders", 1).await;
        serves(&cluster, "orders").await;
        cluster.finish().await;
    }
}

/// Nobody leads as long as it is watched: several times what an election takes.
async fn nobody_leads(because: &str, seconds: u64, nodes: &[Arc<Node>]) {
    throughout(because, Duration::from_secs(seconds), async || {
        for node in nodes {
            match node.status().await {
                Ok(status) if status.role == Role::Leader => return Err(status.to_string()),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    })
    .await;
}

/// With one peer missing the others wait for it by name, and form the group when it comes.
#[tokio::test(flavor = "multi_thread")]
async fn the_group_waits_for_a_late_peer_and_says_so() {
    let cluster = Cluster::of(3).lay_out().await;
    cluster.nameservers[0].start();
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    let log = says(&cluster.nodes[0], &["waiting for"]).await;
    let late = &cluster.nodes[2];
    assert!(
        log.contains(&late.addresses.raft.to_string()) || log.contains("3"),
        "the log names the peer that is missing: {log}"
    );
    nobody_leads("one initial peer has not been seen", 10, &cluster.nodes[..2]).await;
    late.start();
    cluster.leader().await;
    cluster.topic("orders", 1).await;
    serves(&cluster, "orders").await;
    cluster.finish().await;
}

/// Brokers that disagree about who belongs to the group do not form one.
#[tokio::test(flavor = "multi_thread")]
async fn differing_peer_lists_are_refused() {
    let cluster = Cluster::of(3).lay_out().await;
    let odd = format!("{},4={}", cluster.peers(), cluster.host.free_port());
    cluster.nodes[2].set_arguments(cluster.arguments(&cluster.broker_name, &odd));
    cluster.nodes.iter().for_each(|node| node.start());
    let voices = async || {
        let logs = cluster.nodes.iter().map(|n| n.process().log().to_lowercase());
        let all: String = logs.collect();
        let clear = ["differ", "different peers", "another peer list"];
        if clear.iter().any(|w| all.contains(w)) {
            Ok(())
        } else {
            Err(cluster.nodes[0].process().tail())
        }
    };
    eventually("somebody says that the lists differ", REFUSAL, voices).await;
    for node in &cluster.nodes {
        let leads = node.status().await.is_ok_and(|s| s.role == Role::Leader);
        assert!(!leads, "{node:?} leads");
    }
    cluster.no_panics();
}

/// A broker that lost its disk does not come back under its old id: it could have forgotten what
/// it promised. The others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_broker_with_an_old_id_is_refused() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    serves(&cluster, "orders").await;
    cluster.replicas_agree().await;
    let wiped = cluster.followers().await.remove(0);
    wiped.kill();
    wiped.wipe();
    wiped.start();
    says(&wiped, &["wiped", "lost its", "known to", "has data", "already", "empty data directory"])
        .await;
    let voter = wiped.status().await.is_ok_and(|s| s.last > 0);
    assert!(!voter, "the wiped broker joined as if nothing had happened");
    wiped.kill();
    serves(&cluster, "orders").await;
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// A majority that lost its disks does not form a new group beside the survivor that has the data.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_majority_does_not_start_over_beside_a_survivor() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    serves(&cluster, "orders").await;
    cluster.nodes.iter().for_each(|node| node.kill());
    for node in &cluster.nodes[..2] {
        node.wipe();
    }
    cluster.nodes.iter().for_each(|node| node.start());
    nobody_leads("a majority forgot what it acknowledged", 8, &cluster.nodes).await;
    cluster.no_panics();
}

/// A data directory belongs to one group and one node.
#[tokio::test(flavor = "multi_thread")]
async fn another_groups_directory_is_refused() {
    let mine = Cluster::of(1).start().await;
    mine.topic("orders", 1).await;
    serves(&mine, "orders").await;
    mine.nodes[0].kill();
    let theirs = Cluster::of(1).broker_name("broker-b").lay_out().await;
    copy(mine.nodes[0].directory(), theirs.nodes[0].directory());
    theirs.nodes[0].start();
    let exit = theirs.nodes[0].exit(REFUSAL).await.expect("it refuses and ends");
    assert!(!exit.success());
    let log = theirs.nodes[0].process().log().to_lowercase();
    assert!(log.contains("broker-a"), "the text names the owner: {log}");
    theirs.no_panics();

    mine.nodes[0].start();
    mine.leader().await;
    mine.finish_with_everything_received("orders", &["audit"]).await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// Two groups that claim one name: the NameServer keeps the first, and the second says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_group_under_a_known_name_is_refused() {
    let first = Cluster::of(1).start().await;
    first.topic("orders", 1).await;
    let second = Cluster::of(1).lay_out().await;
    let mut arguments = second.arguments(&first.broker_name, second.peers());
    let at = arguments.iter().position(|a| a == "--namesrv").expect("it has a NameServer");
    arguments[at + 1] = first.nameservers[0].address.to_string().into();
    second.nodes[0].set_arguments(arguments);
    second.nodes[0].start();
    says(&second.nodes[0], &["another group", "refused", "taken by", "belongs to"]).await;

    let status = first.nameservers[0].status().await.expect("a status").to_string();
    assert!(!status.contains(&second.nodes[0].addresses.client.to_string()), "{status}");
    let through = [first.nameservers[0].address];
    assert_eq!(Producer::new(&through, "orders", &first.ledger).send(10, 2).await, 10);
    second.no_panics();
    drop(second);
    first.finish_with_everything_received("orders", &["audit"]).await;
}

/// A broker with the wrong secret is not let into the group, which works without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_refused() {
    let cluster = Cluster::of(3).lay_out().await;
    let file = |name: &str, text: &str| {
        let path = cluster.scratch.path().join(name);
        std::fs::write(&path, text).expect("a secret file");
        path
    };
    let (right, wrong) = (file("right", "correct horse battery staple"), file("wrong", "guess"));
    for (node, secret) in cluster.nodes.iter().zip([&right, &right, &right]) {
        let mut arguments = cluster.arguments(&cluster.broker_name, cluster.peers());
        arguments.extend(["--raft-secret-file".into(), secret.into()]);
        node.set_arguments(arguments);
        node.start();
    }
    cluster.nameservers[0].start();
    cluster.leader().await;
    cluster.topic("orders", 1).await;
    serves(&cluster, "orders").await;

    let stranger = cluster.followers().await.remove(0);
    stranger.kill();
    let mut arguments = cluster.arguments(&cluster.broker_name, cluster.peers());
    arguments.extend(["--raft-secret-file".into(), (&wrong).into()]);
    stranger.set_arguments(arguments);
    let (_, before) = cluster.leader().await;
    stranger.start();
    says(&stranger, &["secret", "authenticat"]).await;
    serves(&cluster, "orders").await;
    let applied = stranger.status().await.map(|s| s.applied).unwrap_or(0);
    let (_, now) = cluster.leader().await;
    assert!(applied < now.applied, "the stranger applied {applied} of {}", now.applied);
    assert_eq!(now.term, before.term, "a stranger forces no election");
    stranger.kill();
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// A restart with another `--raft-peers` uses the membership that the group agreed on, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_start_uses_the_replicated_membership() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    cluster.replicas_agree().await;
    let node = cluster.followers().await.remove(0);
    node.kill();
    let own = format!("{}={}", node.id, node.addresses.raft);
    node.set_arguments(cluster.arguments(&cluster.broker_name, &own));
    node.start();
    eventually("it follows its old group", ELECTION, async || {
        let status = node.status().await.map_err(|e| e.to_string())?;
        if status.members.len() == 3 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    serves(&cluster, "orders").await;
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}

/// An orderly stop hands over and ends with code 0; nobody notices more than a pause.
#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_hands_over() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    for _ in 0..3 {
        let (leader, before) = cluster.leader().await;
        let exit = leader.stop().await;
        assert!(exit.success(), "{exit}");
        cluster.leader_after(before.term).await;
        serves(&cluster, "orders").await;
        leader.start();
        cluster.replicas_agree().await;
    }
    cluster.finish_with_everything_received("orders", &["audit"]).await;
}
