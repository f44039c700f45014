//! How a group forms, and who must not take part in one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use raft::{Error, NodeId, Refusal};
use support::{Cluster, Node, eventually, free_addr, secret};

#[test]
fn any_start_order_will_do_and_nodes_say_whom_they_wait_for() {
    support::logging();
    for order in [[3, 2, 1], [2, 1, 3]] {
        let mut cluster = Cluster::new(3);
        cluster.node(order[0]).start();
        cluster.node(order[1]).start();
        let last = NodeId(order[2]);
        for id in &order[..2] {
            eventually("the node says that it waits for the last", || {
                cluster.nodes[id].status().waiting_for.contains(&last).then_some(())
            });
            assert_eq!(cluster.nodes[id].status().group_id, None);
        }
        cluster.node(order[2]).start();
        cluster.leader();
        cluster.propose("x");
        cluster.converged();
        let groups: Vec<_> = cluster.running_nodes().map(|n| n.status().group_id).collect();
        assert!(groups[0].is_some() && groups.iter().all(|group| *group == groups[0]));
    }
}

#[test]
fn differing_peer_lists_are_refused_by_those_who_hear_of_them() {
    support::logging();
    let mut cluster = Cluster::new(3);
    let strange = cluster.node(3);
    strange.config.peers.insert(NodeId(4), free_addr());
    cluster.start_all();
    for id in [1, 3] {
        let refusal = cluster.nodes[&id].refusal();
        assert!(matches!(refusal, Refusal::PeerListsDiffer { .. }), "{id}: {refusal}");
    }
    for node in cluster.running_nodes() {
        assert_eq!(node.status().group_id, None, "no group has formed");
    }
}

#[test]
fn a_wiped_node_is_refused_and_the_group_goes_on() {
    support::logging();
    for wiped in 1..=3 {
        let mut cluster = Cluster::running(3);
        cluster.propose("before");
        cluster.converged();
        cluster.node(wiped).kill();
        cluster.wipe(wiped);
        cluster.node(wiped).start();
        let refusal = cluster.nodes[&wiped].refusal();
        assert!(matches!(refusal, Refusal::Wiped { .. }), "{refusal}");
        cluster.node(wiped).kill();
        cluster.propose("after");
    }
}

#[test]
fn a_wiped_majority_does_not_form_a_group_beside_the_survivor() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("before");
    cluster.converged();
    let group = cluster.nodes[&3].status().group_id;
    cluster.kill_all();
    cluster.wipe(1);
    cluster.wipe(2);
    cluster.node(1).start();
    cluster.node(2).start();
    eventually("they wait for the survivor", || {
        let waits = |id: u64| cluster.nodes[&id].status().waiting_for.contains(&NodeId(3));
        (waits(1) && waits(2)).then_some(())
    });
    cluster.node(3).start();
    for id in [1, 2] {
        let refusal = cluster.nodes[&id].refusal();
        assert!(matches!(refusal, Refusal::Wiped { .. }), "{refusal}");
        assert_eq!(cluster.nodes[&id].status().group_id, None);
    }
    assert_eq!(cluster.nodes[&3].status().group_id, group);
}

#[test]
fn another_groups_directory_is_refused() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    let mut other = Cluster::running(3);
    other.propose("y");
    cluster.node(2).kill();
    other.node(2).kill();
    let mut astray = Node::new(cluster.config(2));
    astray.config.data_dir = other.data_dir(2);
    astray.start();
    let refusal = astray.refusal();
    assert!(matches!(refusal, Refusal::OtherGroup { .. }), "{refusal}");
    cluster.propose("the group goes on");
}

#[test]
fn another_brokers_and_another_nodes_directory_are_refused_at_once() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.kill_all();
    let mut astray = Node::new(cluster.config(1));
    astray.config.broker_name = "broker-b".into();
    let error = astray.try_start().unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::OtherBroker { .. })), "{error}");
    let mut astray = Node::new(cluster.config(1));
    astray.config.data_dir = cluster.data_dir(2);
    let error = astray.try_start().unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::OtherNode { .. })), "{error}");
}

#[test]
fn a_second_group_under_the_same_name_is_refused() {
    support::logging();
    let cluster = Cluster::running(3);
    cluster.propose("x");
    // Its list names a node that belongs to the first group.
    let dir = tempfile::tempdir().unwrap();
    let mut config = cluster.config(2);
    config.peers = BTreeMap::from([
        (NodeId(1), cluster.peers[&NodeId(1)].clone()),
        (NodeId(2), free_addr()),
        (NodeId(7), free_addr()),
    ]);
    config.node_id = NodeId(7);
    config.data_dir = dir.path().join("7");
    let mut second = Node::new(config);
    second.start();
    let refusal = second.refusal();
    assert!(matches!(refusal, Refusal::SecondGroup { .. }), "{refusal}");
    cluster.propose("the first group goes on");
}

#[test]
fn nodes_with_a_secret_form_a_group_and_one_with_another_is_refused() {
    support::logging();
    let mut cluster = Cluster::new(3);
    for node in cluster.nodes.values_mut() {
        node.config.secret = secret("the shared secret");
    }
    cluster.start_all();
    cluster.leader();
    cluster.propose("x");
    cluster.converged();
    for wrong in [secret("some other secret"), None] {
        cluster.node(3).kill();
        cluster.node(3).config.secret = wrong;
        cluster.node(3).start();
        let refusal = cluster.nodes[&3].refusal();
        assert!(matches!(refusal, Refusal::WrongSecret { .. }), "{refusal}");
    }
    cluster.node(3).kill();
    cluster.node(3).config.secret = secret("the shared secret");
    cluster.node(3).start();
    cluster.propose("y");
    assert_eq!(cluster.converged().commands.len(), 2);
}

#[test]
fn a_new_node_with_another_secret_is_refused() {
    support::logging();
    let mut cluster = Cluster::new(2);
    cluster.node(1).config.secret = secret("the shared secret");
    cluster.start_all();
    for node in cluster.running_nodes() {
        let refusal = node.refusal();
        assert!(matches!(refusal, Refusal::WrongSecret { .. }), "{refusal}");
        assert_eq!(node.status().group_id, None);
    }
}

#[test]
fn a_later_start_with_another_list_uses_the_replicated_membership() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.converged();
    let follower = cluster.follower();
    cluster.node(follower).kill();
    cluster.node(follower).config.peers.insert(NodeId(9), free_addr());
    cluster.node(follower).start();
    cluster.propose("y");
    cluster.converged();
    let members = cluster.nodes[&follower].status().members;
    let ids: Vec<u64> = members.iter().map(|member| member.node_id.0).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    support::logging();
    let mut cluster = Cluster::new(1);
    let _taken = std::net::TcpListener::bind(&cluster.peers[&NodeId(1)]).unwrap();
    let error = cluster.node(1).try_start().unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error}");
}

#[test]
fn a_founder_killed_while_the_group_forms_carries_on() {
    support::logging();
    let mut cluster = Cluster::new(3);
    cluster.node(2).start();
    cluster.node(3).start();
    // Killed as soon as it has founded the group, wherever the invitations are by then.
    cluster.node(1).start();
    eventually("the founder has a group", || cluster.nodes[&1].status().group_id);
    cluster.node(1).kill();
    let down = Instant::now();
    cluster.node(1).start();
    cluster.leader();
    cluster.propose("x");
    cluster.converged();
    assert!(down.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_node_whose_log_was_removed_is_refused_at_once() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.converged();
    cluster.node(2).kill();
    support::remove(&cluster.data_dir(2).join("log"));
    let error = cluster.node(2).try_start().unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::LogGone { .. })), "{error}");
    cluster.propose("the others go on");
}
