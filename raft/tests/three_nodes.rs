//! Three replicas: agreement, failover, restart.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use raft::{BootId, Flush, LogIndex, NodeId, ProposeError, RoleKind};
use support::{Cluster, eventually};

#[test]
fn a_group_of_one_leads_itself() {
    support::logging();
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.propose("a"), 0);
    assert_eq!(cluster.propose("b"), 1);
    cluster.node(1).read_barrier().unwrap();
    cluster.node(1).kill();
    cluster.node(1).start();
    assert_eq!(cluster.propose("c"), 2);
    assert_eq!(cluster.nodes[&1].toy.texts(), ["a", "b", "c"]);
}

#[test]
fn all_replicas_apply_the_same_commands_at_the_same_positions() {
    support::logging();
    let cluster = Cluster::running(3);
    for number in 0..100 {
        assert_eq!(cluster.propose(&format!("command {number}")), number);
    }
    let state = cluster.converged();
    assert_eq!(state.commands.len(), 100);
    for node in cluster.running_nodes() {
        let reader = node.group().reader();
        for (position, bytes) in &state.commands {
            let len = u32::try_from(bytes.len()).unwrap();
            assert_eq!(reader.bytes(*position, len).unwrap(), bytes);
        }
    }
}

#[test]
fn the_status_names_the_members_with_their_client_addresses() {
    support::logging();
    let cluster = Cluster::running(3);
    let leader = cluster.leader();
    for node in cluster.running_nodes() {
        let status = eventually("the node follows", || {
            let status = node.status();
            (status.leader == Some(NodeId(leader)) && status.waiting_for.is_empty())
                .then_some(status)
        });
        assert!(status.purged <= status.applied);
        assert!(status.applied <= status.committed && status.committed <= status.last);
        let members: Vec<_> =
            status.members.iter().map(|m| (m.node_id.0, m.client_addr.as_str(), m.voter)).collect();
        assert_eq!(
            members,
            [(1, "client-1:8081", true), (2, "client-2:8081", true), (3, "client-3:8081", true)]
        );
        let kind = if node.id() == NodeId(leader) { RoleKind::Leader } else { RoleKind::Follower };
        assert_eq!(status.role.kind, kind);
        assert!(status.group_id.is_some());
    }
}

#[test]
fn a_follower_names_the_leader_and_proposes_nothing() {
    support::logging();
    let cluster = Cluster::running(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let error = cluster.nodes[&follower].propose("x").unwrap_err();
    let ProposeError::NotLeader { leader: Some(member) } = error else { panic!("{error:?}") };
    assert_eq!(member.node_id, NodeId(leader));
    assert_eq!(member.client_addr, format!("client-{leader}:8081"));
    let refused = cluster.nodes[&follower].read_barrier().unwrap_err();
    assert!(matches!(refused, ProposeError::NotLeader { .. }), "{refused:?}");
    assert!(cluster.converged().commands.is_empty());
}

#[test]
fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    support::logging();
    let mut cluster = Cluster::running(3);
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..20 {
            let command = format!("{round}/{number}");
            cluster.propose(&command);
            expected.push(command);
        }
        let leader = cluster.leader();
        cluster.node(leader).kill();
        let killed = Instant::now();
        let after = format!("{round}/after");
        cluster.propose(&after);
        expected.push(after);
        assert!(killed.elapsed() < Duration::from_millis(1500), "took {:?}", killed.elapsed());
        let new_leader = cluster.leader();
        cluster.nodes[&new_leader].read_barrier().unwrap();
        assert_eq!(cluster.nodes[&new_leader].toy.texts(), expected);
        cluster.node(leader).start();
        cluster.converged();
    }
    for node in cluster.running_nodes() {
        assert_eq!(node.toy.texts(), expected);
    }
}

#[test]
fn a_killed_follower_catches_up() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("before");
    let follower = cluster.follower();
    cluster.node(follower).kill();
    let body = "x".repeat(100_000);
    for number in 0..40 {
        cluster.propose(&format!("{number} {body}"));
    }
    cluster.node(follower).start();
    assert_eq!(cluster.converged().commands.len(), 41);
}

#[test]
fn all_killed_at_once_come_back_with_everything_acknowledged() {
    support::logging();
    let mut cluster = Cluster::running(3);
    for number in 0..50 {
        cluster.propose(&number.to_string());
    }
    cluster.kill_all();
    cluster.start_all();
    assert_eq!(cluster.propose("after"), 50);
    assert_eq!(cluster.converged().commands.len(), 51);
}

#[test]
fn a_tail_that_was_never_committed_is_cut_off() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("committed");
    let leader = cluster.leader();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.node(*id).kill();
    }
    // The leader appends what it can no longer commit.
    let old = &cluster.nodes[&leader];
    let before = old.status().last;
    let parts = vec![bytes::Bytes::from_static(b"never committed")];
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = old.runtime().block_on(old.group().propose(parts, deadline)).unwrap_err();
    assert_eq!(error, ProposeError::Unknown);
    assert!(old.status().last > before, "the entry is in the old leader's log");
    cluster.node(leader).kill();
    for id in &others {
        cluster.node(*id).start();
    }
    cluster.propose("instead");
    cluster.node(leader).start();
    cluster.converged();
    for node in cluster.running_nodes() {
        assert_eq!(node.toy.texts(), ["committed", "instead"]);
    }
}

#[test]
fn leadership_is_handed_over_on_request() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("before");
    let (old, target) = (cluster.leader(), cluster.follower());
    let node = &cluster.nodes[&old];
    let taken = node.runtime().block_on(node.group().transfer_leader(Some(NodeId(target))));
    assert_eq!(taken, Ok(NodeId(target)));
    assert_eq!(cluster.leader(), target);
    cluster.propose("after");
    assert_eq!(cluster.converged().commands.len(), 2);
    // And to nobody in particular.
    let node = cluster.node(target);
    let taken = node.runtime().block_on(node.group().transfer_leader(None)).unwrap();
    assert_ne!(taken, NodeId(target));
}

#[test]
fn a_leader_that_is_shut_down_hands_over_first() {
    support::logging();
    let mut cluster = Cluster::running(3);
    for number in 0..20 {
        cluster.propose(&number.to_string());
    }
    let old = cluster.leader();
    let term = cluster.nodes[&old].status().term;
    cluster.node(old).shutdown();
    let new = cluster.leader();
    assert_ne!(new, old);
    assert_eq!(cluster.nodes[&new].status().term.0, term.0 + 1, "one election");
    cluster.propose("after");
    cluster.node(old).start();
    assert_eq!(cluster.converged().commands.len(), 21);
}

#[test]
fn many_proposers_share_entries() {
    support::logging();
    let cluster = Cluster::running(3);
    let node = &cluster.nodes[&cluster.leader()];
    let before = node.status().last.unwrap();
    const COMMANDS: usize = 2000;
    let mut numbers = node.runtime().block_on(async {
        let deadline = Instant::now() + support::PATIENCE;
        let proposals = (0..COMMANDS).map(|number| {
            let group = node.group().clone();
            let parts = vec![bytes::Bytes::from(number.to_string())];
            tokio::spawn(async move { group.propose(parts, deadline).await })
        });
        let mut numbers = Vec::new();
        for proposal in proposals.collect::<Vec<_>>() {
            numbers.push(proposal.await.unwrap().unwrap());
        }
        numbers
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (0..COMMANDS).collect::<Vec<_>>());
    let LogIndex(entries) = LogIndex(node.status().last.unwrap().0 - before.0);
    assert!(entries < COMMANDS as u64 / 4, "{entries} entries for {COMMANDS} commands");
    assert_eq!(cluster.converged().commands.len(), COMMANDS);
}

#[test]
fn a_large_command_passes_and_one_that_is_too_large_is_rejected() {
    support::logging();
    let cluster = Cluster::running(3);
    let node = &cluster.nodes[&cluster.leader()];
    let limit = node.config.limits.command_bytes;
    assert_eq!(node.propose(&"x".repeat(limit)), Ok(0));
    let error = node.propose(&"x".repeat(limit + 1)).unwrap_err();
    assert_eq!(error, ProposeError::TooLarge { bytes: limit + 1, max: limit });
    assert_eq!(cluster.converged().commands.len(), 1);
}

#[test]
fn a_leader_without_a_quorum_confirms_no_read() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("before");
    let leader = cluster.leader();
    cluster.nodes[&leader].read_barrier().unwrap();
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.node(id).kill();
    }
    let error = cluster.nodes[&leader].read_barrier().unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { .. }), "{error:?}");
}

#[test]
fn a_state_machine_that_cannot_apply_stops_its_node() {
    support::logging();
    for poison in ["error", "panic"] {
        let mut cluster = Cluster::running(3);
        let follower = cluster.follower();
        cluster.nodes[&follower].toy.poison(poison);
        cluster.propose(poison);
        let failure = cluster.nodes[&follower].failure();
        assert!(matches!(*failure, raft::Error::Apply(_)), "{failure:?}");
        cluster.node(follower).kill();
        cluster.propose("the others go on");
    }
}

/// Of three machines, one loses its power while nobody waits for disks: what it had acknowledged
/// may be gone, so its vote must not help to elect anybody until a leader has filled it up again,
/// however often its process restarts meanwhile.
#[test]
fn after_a_power_cut_with_asynchronous_flush_a_node_has_no_vote_until_it_has_caught_up() {
    support::logging();
    let mut cluster = Cluster::new(3);
    for node in cluster.nodes.values_mut() {
        node.config.flush = Flush::Async;
        node.config.boot_id = Some(BootId(1));
        node.config.timing.suspect_for = 10 * support::PATIENCE;
    }
    cluster.start_all();
    cluster.leader();
    cluster.propose("acknowledged");
    cluster.kill_all();

    cluster.node(1).config.boot_id = Some(BootId(2));
    cluster.node(1).start();
    cluster.node(2).start();
    let suspect = |cluster: &Cluster| cluster.nodes[&1].status().suspect.then_some(());
    eventually("it suspects itself", || suspect(&cluster));
    nobody_leads(&cluster);
    cluster.node(1).kill();
    cluster.node(1).start();
    eventually("it still does after a restart", || suspect(&cluster));
    nobody_leads(&cluster);

    cluster.node(3).start();
    cluster.leader();
    eventually("it has caught up", || suspect(&cluster).is_none().then_some(()));
    cluster.propose("with its vote");
    cluster.node(1).kill();
    cluster.node(1).start();
    cluster.leader();
    assert!(suspect(&cluster).is_none());
    cluster.converged();
}

/// Watches for longer than an election takes.
fn nobody_leads(cluster: &Cluster) {
    let election = 2 * cluster.nodes[&1].config.timing.election_max;
    let until = Instant::now() + 3 * election / 2;
    while Instant::now() < until {
        for node in cluster.running_nodes() {
            let leads = node.group().role().borrow().is_leader();
            assert!(!leads, "node {} was elected with a vote in doubt", node.id());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
