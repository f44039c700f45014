//! Members come and go while the group works: nothing that was committed is lost, and what must not
//! be done is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use raft::{Change, ChangeError, ChangeRefusal, NodeId, Refusal, RoleKind};
use support::{Cluster, Node, eventually, free_addr};

fn promote(id: u64) -> Change {
    Change::Promote { node: NodeId(id) }
}

fn demote(id: u64) -> Change {
    Change::Demote { node: NodeId(id) }
}

fn remove_peer(id: u64) -> Change {
    Change::Remove { node: NodeId(id) }
}

fn replace(old: u64, with: u64) -> Change {
    Change::Replace { old: NodeId(old), with: NodeId(with) }
}

/// A node that was removed says so, and ends.
fn ends_as_removed(cluster: &mut Cluster, id: u64) {
    let refusal = cluster.nodes[&id].refusal();
    assert_eq!(refusal, Refusal::Removed { node: NodeId(id) });
    assert!(refusal.to_string().contains("--join"), "{refusal}");
    cluster.node(id).kill();
}

#[test]
fn a_group_grows_from_one_to_three_to_five_and_back() {
    support::logging();
    let mut cluster = Cluster::running(1);
    cluster.propose("1");
    for id in 2..=5 {
        cluster.grow(id);
        cluster.propose(&id.to_string());
    }
    assert_eq!(cluster.membership(), (vec![1, 2, 3, 4, 5], vec![]));
    assert_eq!(cluster.converged().commands.len(), 5);
    // The first one goes too, and it may lead.
    for id in [1, 5, 3, 2] {
        cluster.change(&remove_peer(id)).unwrap();
        ends_as_removed(&mut cluster, id);
        cluster.propose("and back");
    }
    assert_eq!(cluster.membership(), (vec![4], vec![]));
    assert_eq!(cluster.converged().commands.len(), 9);
    cluster.node(4).kill();
    cluster.node(4).start();
    cluster.propose("alone, with the same flags");
    assert_eq!(cluster.converged().commands.len(), 10);
}

#[test]
fn a_newcomer_waits_is_seen_and_follows_without_a_vote() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("before");
    cluster.newcomer(4).start();
    assert!(cluster.nodes[&4].status().waits_to_be_added);
    let seen = eventually("the leader sees it wait", || {
        let leads =
            cluster.running_nodes().find(|node| node.group().role().borrow().is_leader())?;
        leads.group().replication()?.waiting.first().cloned()
    });
    assert_eq!((seen.node_id, seen.raft_addr), (NodeId(4), cluster.raft_addr(4)));
    // A restart changes nothing.
    cluster.node(4).kill();
    cluster.node(4).start();
    let change = Change::AddLearner { node: NodeId(4), raft_addr: cluster.raft_addr(4) };
    eventually("it is added", || {
        let leads =
            cluster.running_nodes().find(|node| node.group().role().borrow().is_leader())?;
        leads.change(&change).ok()
    });
    cluster.propose("after");
    assert_eq!(cluster.converged().commands.len(), 2);
    assert_eq!(cluster.membership(), (vec![1, 2, 3], vec![4]));
    let status = cluster.nodes[&4].status();
    assert!(!status.waits_to_be_added);
    assert_eq!(status.role.kind, RoleKind::Learner);
    let leader = cluster.leader();
    eventually("it has caught up, as the leader sees it", || {
        let members = cluster.nodes[&leader].group().replication()?.members;
        let learner = members.into_iter().find(|one| one.member.node_id == NodeId(4))?;
        let there = learner.lag?.entries == 0 && learner.connected && learner.eta.is_some();
        (there && learner.last_contact? < Duration::from_secs(5)).then_some(())
    });
    cluster.change(&promote(4)).unwrap();
    cluster.change(&demote(4)).unwrap();
    assert_eq!(cluster.membership(), (vec![1, 2, 3], vec![4]));
}

#[test]
fn what_would_harm_the_group_is_refused_and_changes_nothing() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.converged();
    let unknown = cluster.change(&promote(9)).unwrap_err();
    assert!(matches!(unknown, ChangeRefusal::NotMember { .. }), "{unknown}");
    let nobody = Change::AddLearner { node: NodeId(9), raft_addr: free_addr() };
    let refused = cluster.change(&nobody).unwrap_err();
    assert!(matches!(refused, ChangeRefusal::NotThere { .. }), "{refused}");
    let taken = Change::AddLearner { node: NodeId(9), raft_addr: cluster.raft_addr(2) };
    let refused = cluster.change(&taken).unwrap_err();
    assert!(matches!(refused, ChangeRefusal::AddressTaken { .. }), "{refused}");
    let dead = cluster.follower();
    cluster.node(dead).kill();
    let leader = cluster.leader();
    let alive = cluster.running_nodes().map(|node| node.id().0).find(|id| *id != leader).unwrap();
    let refused = cluster.change(&remove_peer(alive)).unwrap_err();
    assert!(matches!(refused, ChangeRefusal::NoQuorum { fit: 1, needed: 2, .. }), "{refused}");
    assert_eq!(cluster.membership(), (vec![1, 2, 3], vec![]));
    let follower = cluster.nodes[&alive].change(&remove_peer(dead)).unwrap_err();
    assert_eq!(follower, ChangeError::NotLeader);
    // The dead one may go: then the two that live are all.
    let two = cluster.change(&remove_peer(dead)).unwrap();
    assert!(two.survives.contains("either"), "{}", two.survives);
    cluster.propose("two work");
    cluster.change(&remove_peer(alive)).unwrap();
    ends_as_removed(&mut cluster, alive);
    let last = cluster.change(&remove_peer(leader)).unwrap_err();
    assert_eq!(last, ChangeRefusal::LastVoter { node: NodeId(leader) });
    cluster.propose("one works");
    assert_eq!(cluster.converged().commands.len(), 3);
}

#[test]
fn a_dead_node_is_replaced_and_what_is_left_of_it_must_not_come_back() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.converged();
    let dead = cluster.follower();
    cluster.node(dead).kill();
    cluster.add_learner(4);
    eventually("it is replaced", || cluster.change(&replace(dead, 4)).ok());
    cluster.propose("y");
    let (voters, learners) = cluster.membership();
    assert!(voters.contains(&4) && !voters.contains(&dead) && voters.len() == 3, "{voters:?}");
    assert_eq!(learners, [] as [u64; 0]);
    // Its directory, with the flags that it always had.
    cluster.node(dead).start();
    ends_as_removed(&mut cluster, dead);
    // Its id, with an empty directory.
    cluster.wipe(dead);
    cluster.newcomer(dead).start();
    let refusal = cluster.nodes[&dead].refusal();
    assert!(refusal.to_string().contains("no id is used twice"), "{refusal}");
    cluster.node(dead).kill();
    cluster.propose("z");
    assert_eq!(cluster.converged().commands.len(), 3);
}

#[test]
fn a_leader_that_lost_its_disk_comes_back_under_a_new_id() {
    support::logging();
    let mut cluster = Cluster::running(3);
    for number in 0..20 {
        cluster.propose(&number.to_string());
    }
    cluster.converged();
    let lost = cluster.leader();
    cluster.node(lost).kill();
    cluster.wipe(lost);
    cluster.propose("without it");
    cluster.newcomer(lost).start();
    let refusal = cluster.nodes[&lost].refusal();
    assert!(refusal.to_string().contains("lost its data"), "{refusal}");
    cluster.node(lost).kill();
    cluster.add_learner(4);
    eventually("it is replaced", || cluster.change(&replace(lost, 4)).ok());
    cluster.propose("with the new one");
    assert_eq!(cluster.converged().commands.len(), 22);
}

#[test]
fn a_node_that_moved_is_found_at_its_new_address() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.converged();
    let moved = cluster.follower();
    let addr = free_addr();
    let change = Change::UpdateAddress { node: NodeId(moved), raft_addr: addr.clone() };
    let refused = cluster.change(&change).unwrap_err();
    assert!(matches!(refused, ChangeRefusal::NotThere { .. }), "{refused}");
    let other = Change::UpdateAddress {
        node: NodeId(moved),
        raft_addr: cluster.raft_addr(cluster.leader()),
    };
    assert!(matches!(cluster.change(&other), Err(ChangeRefusal::AddressTaken { .. })));
    cluster.node(moved).kill();
    cluster.node(moved).config.listen = Some(addr);
    cluster.node(moved).start();
    let leader = cluster
        .running_nodes()
        .find(|node| node.group().role().borrow().is_leader())
        .map(|node| node.id().0)
        .unwrap();
    eventually("the address is changed", || match cluster.nodes[&leader].change(&change) {
        Ok(changed) => Some(changed),
        Err(ChangeError::Refused(ChangeRefusal::NotThere { .. }) | ChangeError::Busy(_)) => None,
        Err(error) => panic!("{error}"),
    });
    cluster.propose("y");
    assert_eq!(cluster.converged().commands.len(), 2);
}

/// Kills the leader at each moment of a change, at random distances from its beginning, and makes
/// the change again until it is done.
#[test]
fn a_leader_killed_at_any_moment_of_a_change_loses_nothing() {
    support::logging();
    let mut cluster = Cluster::running(3);
    let mut proposed = 0;
    let mut old = 1;
    for (newcomer, round) in (4..).zip(0..6_u64) {
        cluster.propose(&proposed.to_string());
        proposed += 1;
        cluster.add_learner(newcomer);
        let leader = cluster.leader();
        // One of the first three goes in each round, and the leader dies in the middle of it.
        let gone = if old == leader { cluster.follower_but(newcomer) } else { old };
        let change = replace(gone, newcomer);
        std::thread::scope(|scope| {
            let node = &cluster.nodes[&leader];
            let changing = scope.spawn(|| {
                eventually("it was begun", || match node.change(&change) {
                    Err(ChangeError::Refused(
                        ChangeRefusal::NotConnected { .. } | ChangeRefusal::Lags { .. },
                    )) => None,
                    other => Some(other),
                })
            });
            std::thread::park_timeout(Duration::from_millis(round * 4));
            // It does not matter how it ended.
            drop(changing.join());
        });
        cluster.node(leader).kill();
        let started = Instant::now();
        cluster.leader();
        cluster.propose(&proposed.to_string());
        proposed += 1;
        assert!(started.elapsed() < Duration::from_secs(20));
        cluster.node(leader).start();
        eventually("the change is made", || cluster.change(&change).ok());
        let (voters, learners) = cluster.membership();
        assert!(voters.contains(&newcomer) && !voters.contains(&gone), "{voters:?} {learners:?}");
        assert_eq!((voters.len(), learners.len()), (3, 0));
        if cluster.nodes[&gone].is_running() {
            ends_as_removed(&mut cluster, gone);
        }
        old = voters[0];
    }
    let state = cluster.converged();
    assert_eq!(state.commands.len(), proposed);
}

/// The leader dies when a majority has stored that there are two sets of voters, and before it could
/// go on to the second.
#[test]
fn a_change_that_a_leader_left_between_two_sets_of_voters_is_finished_by_the_next() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.add_learner(4);
    cluster.promote(4);
    cluster.change(&demote(4)).unwrap();
    cluster.converged();
    let leader = cluster.leader();
    let gone = cluster.follower_but(4);
    let voters = |id: u64, cluster: &Cluster| {
        cluster.nodes[&id].status().members.iter().filter(|member| member.voter).count()
    };
    // It goes on only when it has applied the first half.
    let gate = cluster.nodes[&leader].toy.gate.clone();
    gate.close();
    std::thread::scope(|scope| {
        let node = &cluster.nodes[&leader];
        scope.spawn(|| node.change(&replace(gone, 4)));
        let others = [1, 2, 3, 4].into_iter().filter(|id| *id != leader);
        eventually("the others know both sets", || {
            others.clone().all(|id| voters(id, &cluster) == 4).then_some(())
        });
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whatever still waits at the gate is let go once its runtime is ending.
            std::thread::park_timeout(Duration::from_millis(300));
            gate.open();
        });
        cluster.node(leader).kill();
    });
    let next = cluster.leader();
    eventually("there is one set of voters", || (voters(next, &cluster) == 3).then_some(()));
    cluster.propose("y");
    cluster.node(leader).start();
    eventually("the change is made", || cluster.change(&replace(gone, 4)).ok());
    ends_as_removed(&mut cluster, gone);
    let (now, learners) = cluster.membership();
    assert!(now.contains(&4) && !now.contains(&gone) && learners.is_empty(), "{now:?}");
    assert_eq!(cluster.converged().commands.len(), 2);
}

#[test]
fn leadership_goes_only_to_who_can_take_it_and_a_drained_node_gives_it_away() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.converged();
    cluster.add_learner(4);
    let leader = cluster.leader();
    let transfer = |cluster: &Cluster, from: u64, to: Option<u64>| {
        let node = &cluster.nodes[&from];
        node.runtime().block_on(node.group().transfer_leader(to.map(NodeId)))
    };
    let learner = transfer(&cluster, leader, Some(4)).unwrap_err();
    assert_eq!(learner, raft::TransferError::NotVoter(NodeId(4)));
    let drain = |node: &Node, on: bool| node.runtime().block_on(node.group().drain(on));
    drain(&cluster.nodes[&leader], true).unwrap();
    let second = cluster.leader();
    assert_ne!(second, leader);
    assert!(cluster.nodes[&leader].status().drained);
    eventually("the others know that it is drained", || {
        (transfer(&cluster, second, Some(leader))
            == Err(raft::TransferError::Drained(NodeId(leader))))
        .then_some(())
    });
    // It does not stand even when the leader dies.
    cluster.node(second).kill();
    let third = cluster.leader();
    assert_ne!(third, leader);
    cluster.node(second).start();
    drain(&cluster.nodes[&leader], false).unwrap();
    eventually("it leads again", || {
        let now = cluster.leader();
        match transfer(&cluster, now, Some(leader)) {
            Ok(new) => (new.0 == leader).then_some(()),
            Err(_) => None,
        }
    });
}

#[test]
fn the_preferred_node_leads_once_it_can() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    let preferred = cluster.follower();
    cluster.node(preferred).kill();
    cluster.node(preferred).config.preferred_leader = true;
    cluster.node(preferred).start();
    eventually("it leads", || (cluster.leader() == preferred).then_some(()));
    cluster.propose("y");
    assert_eq!(cluster.converged().commands.len(), 2);
}

/// The log of the group begins after what the newcomer needs first.
#[test]
fn a_newcomer_that_the_log_does_not_reach_gets_a_snapshot_and_a_vote() {
    support::logging();
    let mut cluster = Cluster::new(2);
    let small = |config: &mut raft::Config| {
        config.segment_size = 256 << 10;
        config.limits = raft::Limits {
            command_bytes: 64 << 10,
            entry_bytes: 32 << 10,
            unacked_commands: 1024,
            ..raft::Limits::default()
        };
    };
    cluster.nodes.values_mut().for_each(|node| small(&mut node.config));
    cluster.start_all();
    for number in 0..60 {
        cluster.propose(&format!("{number} {}", "x".repeat(10_000)));
    }
    cluster.propose(support::FORGET);
    eventually("the beginning of the log is gone", || {
        cluster.nodes[&cluster.leader()].status().purged
    });
    small(&mut cluster.newcomer(3).config);
    cluster.node(3).start();
    let change = Change::AddLearner { node: NodeId(3), raft_addr: cluster.raft_addr(3) };
    eventually("it is added", || cluster.change(&change).ok());
    cluster.promote(3);
    cluster.propose("with three");
    let state = |cluster: &Cluster, id: u64| {
        let state = cluster.nodes[&id].toy.state();
        (state.applied.log_id, state.digest, state.commands.len())
    };
    let same = |cluster: &Cluster, commands: usize| {
        let first = state(cluster, 1);
        let all = [2, 3].into_iter().all(|id| state(cluster, id) == first);
        (all && first.2 == commands).then_some(())
    };
    eventually("all three hold the same", || same(&cluster, 62));
    assert!(cluster.nodes[&3].toy.state().installed > 0);

    // Without its state it knows nobody but those whom it was told of when it came.
    cluster.node(3).kill();
    support::remove(&cluster.data_dir(3).join("snapshot"));
    cluster.node(3).start();
    cluster.propose("and again");
    eventually("all three hold the same again", || same(&cluster, 63));
}

#[test]
fn the_last_one_that_could_lead_does_so_although_it_is_drained() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.converged();
    let leader = cluster.leader();
    let followers: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    for id in &followers {
        let node = &cluster.nodes[id];
        node.runtime().block_on(node.group().drain(true)).unwrap();
    }
    let node = &cluster.nodes[&leader];
    for id in &followers {
        let drained = raft::TransferError::Drained(NodeId(*id));
        eventually("the leader knows that they are drained", || {
            let members = node.group().replication()?.members;
            let peer = members.into_iter().find(|one| one.member.node_id == NodeId(*id))?;
            peer.drained.then_some(())
        });
        let refused = node.runtime().block_on(node.group().transfer_leader(Some(NodeId(*id))));
        assert_eq!(refused, Err(drained));
    }
    let refused = node.runtime().block_on(node.group().drain(true)).unwrap_err();
    assert!(refused.to_string().contains("nobody"), "{refused}");
    cluster.node(leader).kill();
    assert!(followers.contains(&cluster.leader()));
    cluster.propose("y");
}
