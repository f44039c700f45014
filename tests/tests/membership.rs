//! Replicas come and go under the load of official clients: no acknowledged message is lost, and in
//! the end all replicas hold the same.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]
#![allow(clippy::print_stderr, reason = "measured figures are printed for the reader")]

use std::sync::Arc;
use std::time::Duration;

use jepsen::{Anomaly, History};
use tests::cluster::{CATCH_UP, DRAIN, ELECTION};
use tests::mqadmin::{self, SOON, json};
use tests::node::Node;
use tests::official::{Language, Official};
use tests::{Cluster, eventually};

const TOPIC: &str = "orders";
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a node that was removed may take to notice it and to end in good order.
const FAREWELL: Duration = Duration::from_secs(30);
const SENDERS: [Language; 2] = [Language::Python, Language::Node];
const GROUP: &str = "audit";
/// Messages that make the log drop its oldest files, and their bodies' bytes.
const NOISE: usize = 800;
const NOISE_BODY: usize = 64 << 10;

/// Official producers and a consumer at work.
struct Load {
    producers: Vec<Official>,
    consumer: Official,
}

impl Load {
    async fn on(cluster: &Cluster) -> Load {
        let access_point = cluster.nameservers[0].address.to_string();
        let start = |language: Language, mode: &str, more: &[(&str, &str)]| {
            let mut options = vec![("endpoints", access_point.as_str()), ("topic", TOPIC)];
            options.extend(more);
            Official::start(language, mode, cluster.scratch.path(), &options, &[], None)
        };
        let producer = |language: Language| {
            start(language, "produce", &[("prefix", language.name()), ("interval-ms", "10")])
        };
        let producers = SENDERS.map(producer).into_iter().collect();
        let consumer = start(Language::Python, "simple", &[("group", GROUP)]);
        let mut load = Load { producers, consumer };
        load.goes_on(20).await;
        load
    }

    /// Every producer gets so many further sends acknowledged.
    async fn goes_on(&mut self, further: usize) {
        for producer in &mut self.producers {
            let now = producer.of("sent").len();
            producer.has("sent", now + further, PATIENCE).await;
        }
    }

    /// Ends the load: everything acknowledged arrives, and the replicas agree.
    async fn ends(mut self, cluster: Cluster) {
        for producer in &mut self.producers {
            producer.kill().await;
        }
        let senders = SENDERS.map(Language::name);
        let verdict = eventually("everything acknowledged is received", PATIENCE, async || {
            let mut history = History::default();
            for producer in &self.producers {
                producer.enter(&mut history, "", &senders);
                producer.enter_unfinished(&mut history, &senders);
            }
            self.consumer.enter(&mut history, GROUP, &senders);
            let verdict = jepsen::check(&history, &[GROUP]);
            if verdict.lost() == 0 { Ok(verdict) } else { Err(verdict.to_string()) }
        })
        .await;
        let anomalies: Vec<_> = verdict
            .anomalies
            .iter()
            .filter(|anomaly| !matches!(anomaly, Anomaly::Vanished { .. }))
            .collect();
        assert!(anomalies.is_empty(), "{anomalies:#?}");
        eprintln!("official clients: {verdict}");
        cluster.finish().await;
    }

    /// Goes on while the leader is down, which takes all the others where they are three, and ends.
    async fn ends_without_the_leader(mut self, cluster: Cluster) {
        let (leader, status) = cluster.leader().await;
        leader.kill();
        cluster.leader_after(status.term).await;
        self.goes_on(30).await;
        leader.start();
        self.ends(cluster).await;
    }

    /// Sends that failed for good.
    fn failed(&self) -> Vec<String> {
        let of = |producer: &Official| {
            let failed = producer.of("failed").into_iter();
            failed.map(|line| format!("{}: {line:?}", producer.language.name())).collect::<Vec<_>>()
        };
        self.producers.iter().flat_map(of).collect()
    }
}

async fn admin(cluster: &Cluster, command: &str) -> serde_json::Value {
    json(cluster, &cluster.nameservers[0].address.to_string(), command).await
}

/// The voters, as the leader has them.
async fn voters(cluster: &Cluster) -> Vec<u64> {
    let status = admin(cluster, "raftStatus -b broker-a").await;
    let members = status["members"].as_array().expect("members");
    let voters = members.iter().filter(|member| member["role"] != "learner");
    voters.map(|member| member["node_id"].as_u64().expect("an id")).collect()
}

/// Waits until the leader has seen that the node waits.
async fn waits(cluster: &Cluster, id: u64) {
    let through = cluster.nameservers[0].address.to_string();
    eventually("the newcomer waits", ELECTION, async || {
        let (_, output) =
            mqadmin::run(cluster, &through, "raftStatus -b broker-a --json", SOON).await;
        let status: serde_json::Value =
            serde_json::from_str(&output).map_err(|_| output.clone())?;
        let waiting = status["waiting"].as_array().cloned().unwrap_or_default();
        if waiting.iter().any(|one| one["node_id"] == id) { Ok(()) } else { Err(output) }
    })
    .await;
}

async fn add(cluster: &mut Cluster, id: u64) -> Arc<Node> {
    let node = cluster.newcomer(id);
    waits(cluster, id).await;
    admin(cluster, &format!("addLearner -b broker-a -i {id} --watch --timeout 60")).await;
    node
}

async fn grow(cluster: &mut Cluster, id: u64) {
    add(cluster, id).await;
    admin(cluster, &format!("promote -b broker-a -i {id} --watch --timeout 60")).await;
}

async fn remove(cluster: &mut Cluster, id: u64) {
    let removed = admin(cluster, &format!("removePeer -b broker-a -i {id} --yes")).await;
    assert_eq!(removed["done"], "removed");
    says_farewell(cluster, id).await;
}

/// A removed node ends by itself and says why.
async fn says_farewell(cluster: &mut Cluster, id: u64) {
    let group = &cluster.groups[0];
    let node = group.nodes.iter().find(|node| node.id == id).expect("it was a member").clone();
    let status = node.exit(FAREWELL).await.expect("a removed node ends");
    assert!(!status.success());
    let log = node.process().log();
    assert!(log.contains("was removed from the group for good"), "{log}");
    cluster.forget(id);
}

/// From one replica to three, to five, and back to three: the clients go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_grows_and_shrinks_under_load() {
    let mut cluster = Cluster::of(1).start().await;
    cluster.topic(TOPIC, 4).await;
    let mut load = Load::on(&cluster).await;
    for id in 2..=5 {
        grow(&mut cluster, id).await;
        load.goes_on(30).await;
    }
    assert_eq!(voters(&cluster).await, [1, 2, 3, 4, 5]);
    // The first, which may lead, and one that does not.
    for id in [1, 4] {
        remove(&mut cluster, id).await;
        load.goes_on(30).await;
    }
    assert_eq!(voters(&cluster).await, [2, 3, 5]);
    load.ends_without_the_leader(cluster).await;
}

/// The leader's machine burns down. A new one takes its place by one command, and what is left of
/// the old one cannot come back as if nothing had happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_lost_is_replaced_under_load() {
    let mut cluster = Cluster::of(3).start().await;
    cluster.topic(TOPIC, 4).await;
    let mut load = Load::on(&cluster).await;
    let (lost, status) = cluster.leader().await;
    lost.kill();
    lost.wipe();
    cluster.leader_after(status.term).await;
    load.goes_on(30).await;

    // Under its old id it would vote without knowing for whom it voted before.
    lost.start();
    assert!(!lost.exit(FAREWELL).await.expect("it ends").success());
    let log = lost.process().log();
    assert!(log.contains("must come back under a new id"), "{log}");

    let id = lost.id;
    cluster.newcomer(4);
    waits(&cluster, 4).await;
    let replace = format!("replacePeer -b broker-a -i {id} --with 4 --yes --timeout 60");
    let replaced = admin(&cluster, &replace).await;
    assert!(replaced["survives"].as_str().expect("a text").contains("when one of them fails"));
    assert!(!voters(&cluster).await.contains(&id));
    cluster.forget(id);
    load.goes_on(30).await;

    // The new one counts: with it the group goes on without another.
    load.ends_without_the_leader(cluster).await;
}

/// Leaders and the newcomer itself are killed while it is added and promoted; the commands are
/// given again until they succeed.
#[tokio::test(flavor = "multi_thread")]
async fn kills_in_the_middle_of_a_change_lose_nothing() {
    let mut cluster = Cluster::of(3).start().await;
    cluster.topic(TOPIC, 4).await;
    let mut load = Load::on(&cluster).await;
    let through = cluster.nameservers[0].address.to_string();
    for (round, id) in (4..=6).enumerate() {
        let newcomer = cluster.newcomer(id);
        waits(&cluster, id).await;
        let gone = voters(&cluster).await[0];
        let replace = format!("replacePeer -b broker-a -i {gone} --with {id} --yes --timeout 60");
        let (leader, status) = cluster.leader().await;
        let victim = if round == 1 { Arc::clone(&newcomer) } else { Arc::clone(&leader) };
        let replacing = mqadmin::run(&cluster, &through, &replace, mqadmin::PATIENCE);
        let killing = async {
            tokio::time::sleep(Duration::from_millis(150 + 100 * round as u64)).await;
            victim.kill();
            if victim.id == leader.id {
                cluster.leader_after(status.term).await;
            }
            victim.start();
        };
        let ((code, output), ()) = tokio::join!(replacing, killing);
        eprintln!("round {round}: {code}: {output}");
        eventually("the change is made", PATIENCE, async || {
            let (code, output) =
                mqadmin::run(&cluster, &through, &replace, mqadmin::PATIENCE).await;
            if code == 0 { Ok(()) } else { Err(output) }
        })
        .await;
        let now = voters(&cluster).await;
        assert!(now.contains(&id) && !now.contains(&gone) && now.len() == 3, "{now:?}");
        says_farewell(&mut cluster, gone).await;
        load.goes_on(30).await;
    }
    load.ends(cluster).await;
}

/// What a replica that was away needs first has gone from everybody's log, and so has what a new one
/// needs: both come by a snapshot, and count.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_come_back_and_new_ones_come_after_the_log_has_been_cut() {
    let mut cluster = Cluster::of(3)
        .set("log.segment_size", "9MiB")
        .set("log.retention_bytes", "27MiB")
        .start()
        .await;
    cluster.topic("noise", 1).await;
    let producer = cluster.producer("noise").with_bodies_of(NOISE_BODY);
    producer.send(20, 8).await;
    let away = cluster.followers().await.remove(0);
    let left_at = away.status().await.expect("it runs").last;
    away.kill();
    assert_eq!(producer.send(NOISE, 8).await, NOISE);
    eventually("what it needs is gone from the log", CATCH_UP, async || {
        let (_, leader) = cluster.leader().await;
        if leader.purged > left_at { Ok(()) } else { Err(leader.to_string()) }
    })
    .await;
    away.start();
    eventually("it is back", CATCH_UP, async || {
        let (_, leader) = cluster.leader().await;
        let status = away.status().await.map_err(|error| format!("{error:#}"))?;
        if status.applied >= leader.committed { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    cluster.topic(TOPIC, 2).await;
    let mut load = Load::on(&cluster).await;
    grow(&mut cluster, 4).await;
    let gone = voters(&cluster).await[0];
    remove(&mut cluster, gone).await;
    load.goes_on(30).await;
    load.ends(cluster).await;
}

/// Each node of the group is stopped and started again, as an upgrade does: no send of an official
/// client fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_send() {
    let cluster = Cluster::of(3).alone().start().await;
    cluster.topic(TOPIC, 4).await;
    let mut load = Load::on(&cluster).await;
    for node in &cluster.nodes {
        // Drained first, so that nothing is in flight when it stops.
        admin(&cluster, &format!("drain -b broker-a -i {}", node.id)).await;
        let (leader, _) = cluster.leader().await;
        assert_ne!(leader.id, node.id, "a drained node does not lead");
        assert!(node.stop().await.success());
        load.goes_on(30).await;
        node.start();
        eventually("it has caught up", CATCH_UP, async || {
            let (_, leader) = cluster.leader().await;
            let status = node.status().await.map_err(|error| format!("{error:#}"))?;
            if status.applied >= leader.committed { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        load.goes_on(30).await;
    }
    let failed = load.failed();
    assert!(failed.is_empty(), "{failed:#?}");
    load.ends(cluster).await;
}

/// What an operator must not do is refused with a text that says why, and nothing changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_stop_the_group_is_refused() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic(TOPIC, 1).await;
    cluster.producer(TOPIC).send(20, 4).await;
    let through = cluster.nameservers[0].address.to_string();
    let followers = cluster.followers().await;
    followers[0].kill();
    let (alive, dead) = (followers[1].id, followers[0].id);
    let refused = [
        (format!("removePeer -b broker-a -i {alive} --yes"), "2 of the 2 voters"),
        ("promote -b broker-a -i 9".to_owned(), "not a member"),
        ("addLearner -b broker-a -i 9".to_owned(), "--join"),
        (format!("addLearner -b broker-a -i {alive} -r 127.0.0.1:1"), "member already"),
        (format!("transferLeader -b broker-a -i {dead}"), "not connected"),
        (format!("removePeer -b broker-a -i {dead}"), "--yes"),
    ];
    for (command, named) in refused {
        let (code, output) = mqadmin::run(&cluster, &through, &command, SOON).await;
        assert!(code != 0 && output.contains(named), "{command}: {code}: {output}");
    }
    assert_eq!(voters(&cluster).await.len(), 3);
    let (code, table) = mqadmin::run(&cluster, &through, "raftStatus -b broker-a", SOON).await;
    assert!(code == 0 && table.contains("not connected"), "{table}");
    followers[0].start();
    cluster.finish_with_everything_received(TOPIC, &[GROUP]).await;
}

/// Leaders of several broker groups on the same nodes are spread over them.
#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_balanced_over_the_nodes() {
    let cluster = Cluster::of(3).groups(3).start().await;
    let through = cluster.nameservers[0].address.to_string();
    for group in ["broker-a", "broker-b", "broker-c"] {
        eventually("the first node leads every group", ELECTION, async || {
            let transfer = format!("transferLeader -b {group} -i 1");
            let (code, output) = mqadmin::run(&cluster, &through, &transfer, SOON).await;
            if code == 0 { Ok(()) } else { Err(output) }
        })
        .await;
    }
    eventually("each node leads one", DRAIN, async || {
        let (_, moved) = mqadmin::run(&cluster, &through, "balanceLeaders", SOON).await;
        let mut leads = Vec::new();
        for group in &cluster.groups {
            leads.push(group.leader().await.0.id);
        }
        leads.sort_unstable();
        if leads == [1, 2, 3] { Ok(()) } else { Err(format!("{leads:?}: {moved}")) }
    })
    .await;
    cluster.finish().await;
}

/// In a group with a secret only who knows it can join.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_a_group_that_has_a_secret() {
    let secrets = tempfile::tempdir().expect("a directory");
    let secret = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let ours = secret("ours", "what the replicas of this group share\n");
    let theirs = secret("theirs", "what some other replicas share\n");
    let mut cluster = Cluster::of(3).set("raft_secret_file", &ours).start().await;
    cluster.topic(TOPIC, 2).await;
    let producer = cluster.producer(TOPIC);
    assert_eq!(producer.send(50, 4).await, 50);

    let stranger = cluster.newcomer_with(4, &[("raft_secret_file", &theirs)]);
    eventually("the stranger is told why", ELECTION, async || {
        let log = stranger.process().log();
        if log.contains("secret") { Ok(()) } else { Err(stranger.process().tail()) }
    })
    .await;
    let status = admin(&cluster, "raftStatus -b broker-a").await;
    assert_eq!(status["waiting"], serde_json::json!([]), "{status}");
    stranger.kill();
    cluster.forget(4);

    grow(&mut cluster, 5).await;
    assert_eq!(voters(&cluster).await, [1, 2, 3, 5]);
    cluster.finish_with_everything_received(TOPIC, &[GROUP]).await;
}
