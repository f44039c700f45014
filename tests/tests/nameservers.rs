//! NameServers: stateless, replaceable, and not misled by yesterday's leader.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use proto::registry::registry_client::RegistryClient;
use proto::registry::{Member, RegisterRequest, Role, SnapshotRequest};
use tests::cluster::{DRAIN, ELECTION};
use tests::{Cluster, Consumer, Producer, eventually};

/// Heartbeats come every five seconds.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A NameServer opens no file for writing, changes nothing in its directory, and has written no
/// byte to a disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_nameserver_writes_nothing_to_disk() {
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 2).await;
    cluster.producer("orders").send(100, 16).await;
    for nameserver in &cluster.nameservers {
        let pid = nameserver.process().pid().expect("it runs");
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
        for descriptor in descriptors {
            let path = descriptor.expect("an entry").path();
            let Ok(target) = std::fs::read_link(&path) else { continue };
            let is_its_log = target.starts_with(cluster.scratch.path());
            let is_a_file =
                target.is_absolute() && target.is_file() && !target.starts_with("/proc");
            assert!(is_its_log || !is_a_file, "it holds {} open", target.display());
        }
    }
    let mut written: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(cluster.scratch.path()).expect("the scratch directory") {
        written.push(entry.expect("an entry").path());
    }
    let foreign = written.iter().filter(|p| {
        let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("namesrv") && !name.ends_with(".log")
    });
    assert_eq!(foreign.count(), 0, "{written:?}");
    cluster.finish().await;
}

/// A NameServer that is killed and started again knows the routes within a heartbeat.
#[tokio::test(flavor = "multi_thread")]
async fn routes_are_back_within_a_heartbeat() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 4).await;
    let nameserver = &cluster.nameservers[0];
    nameserver.restart();
    let start = Instant::now();
    let queues = eventually("the route is back", 4 * HEARTBEAT, async || {
        nameserver.rpc().query_route("orders").await.map_err(|e| e.to_string())
    })
    .await;
    let took = start.elapsed();
    assert!(took < HEARTBEAT + Duration::from_secs(2), "the route was back after {took:?}");
    assert_eq!(queues.len(), 4);
    cluster.finish().await;
}

/// Clients at one of two NameServers go on at the other.
#[tokio::test(flavor = "multi_thread")]
async fn either_of_two_nameservers_is_enough() {
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 2).await;
    let only_nameservers: Vec<_> = cluster.nameservers.iter().map(|n| n.address).collect();
    let producer = Producer::new(&only_nameservers, "orders", &cluster.ledger);
    assert_eq!(producer.send(100, 8).await, 100);
    cluster.nameservers[0].kill();
    assert_eq!(producer.send(100, 8).await, 100);
    cluster.nameservers[0].start();
    eventually("the first is back", ELECTION, async || {
        cluster.nameservers[0].rpc().query_route("orders").await.map_err(|e| e.to_string())
    })
    .await;
    cluster.nameservers[1].kill();
    assert_eq!(producer.send(100, 8).await, 100);
    Consumer::new(&only_nameservers, "audit", "orders", &cluster.ledger)
        .receives_everything(DRAIN)
        .await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// Brokers do without NameServers: clients that dial a broker are served while all are down.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_serve_without_any_nameserver() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 2).await;
    cluster.nameservers[0].kill();
    let brokers: Vec<_> = cluster.nodes.iter().map(|n| n.addresses.client).collect();
    let producer = Producer::new(&brokers, "orders", &cluster.ledger);
    assert_eq!(producer.send(100, 8).await, 100);
    Consumer::new(&brokers, "audit", "orders", &cluster.ledger).receives_everything(DRAIN).await;
    cluster.ledger.must_hold(&["audit"]);
    cluster.finish().await;
}

/// Every broker and every NameServer serves every call, whoever leads.
#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_an_access_point() {
    let cluster = Cluster::of(3).nameservers(2).start().await;
    cluster.topic("orders", 2).await;
    for (number, address) in cluster.access_points().into_iter().enumerate() {
        let producer = Producer::new(&[address], "orders", &cluster.ledger);
        assert_eq!(producer.send(20, 4).await, 20, "through {address}");
        let group = format!("group-{number}");
        Consumer::new(&[address], &group, "orders", &cluster.ledger)
            .receives_everything(DRAIN)
            .await;
        cluster.ledger.must_hold(&[&group]);
    }
    cluster.finish().await;
}

/// A report of a leader of an older term changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_leader_is_ignored() {
    let cluster = Cluster::of(3).start().await;
    cluster.topic("orders", 1).await;
    let (old, before) = cluster.leader().await;
    old.kill();
    let (new, after) = cluster.leader_after(before.term).await;

    let nameserver = &cluster.nameservers[0];
    let mut registry = RegistryClient::connect(format!("http://{}", nameserver.address))
        .await
        .expect("the NameServer answers");
    let mut leader_known = async || {
        let snapshot = registry.snapshot(SnapshotRequest::default()).await.expect("a snapshot");
        let groups = snapshot.into_inner().groups;
        let group = groups.iter().find(|g| g.broker_name == cluster.broker_name);
        group.map(|g| (g.leader_id, g.term, g.group_id.clone())).expect("the group is known")
    };
    let group_id = eventually("the new leader is known", 2 * HEARTBEAT, async || {
        let (leader, term, group_id) = leader_known().await;
        let known = leader == new.id && term >= after.term;
        if known { Ok(group_id) } else { Err(format!("{leader} in term {term}")) }
    })
    .await;

    // What the old leader would say if it had been cut off instead of killed.
    let stale = RegisterRequest {
        cluster: "DefaultCluster".into(),
        broker_name: cluster.broker_name.clone(),
        group_id,
        node_id: old.id,
        client_address: old.addresses.client.to_string(),
        role: Role::Leader.into(),
        term: before.term,
        leader_id: old.id,
        members: vec![Member {
            node_id: old.id,
            raft_address: old.addresses.raft.to_string(),
            client_address: old.addresses.client.to_string(),
            voter: true,
        }],
        boot_id: 1,
        ..Default::default()
    };
    let mut second = RegistryClient::connect(format!("http://{}", nameserver.address))
        .await
        .expect("the NameServer answers");
    second.register(stale).await.expect("an answer");
    let (leader, term, _) = leader_known().await;
    assert_eq!(leader, new.id, "term {term}");
    let producer = Producer::new(&[nameserver.address], "orders", &cluster.ledger);
    assert_eq!(producer.send(20, 4).await, 20);
    old.start();
    cluster.finish().await;
}
