//! More than a group can take, and stopping in the middle of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::{Limits, ProposeError};
use support::{Cluster, PATIENCE};
use tokio::task::JoinHandle;

/// A running group with narrow bounds.
fn narrow(size: u64) -> Cluster {
    let mut cluster = Cluster::new(size);
    for node in cluster.nodes.values_mut() {
        node.config.limits = Limits {
            entry_bytes: 4 << 10,
            command_bytes: 64 << 10,
            unacked_bytes: 256 << 10,
            apply_lag_bytes: 64 << 10,
            ..Limits::default()
        };
    }
    cluster.start_all();
    cluster.leader();
    cluster
}

type Outcome = Result<usize, ProposeError>;

/// Proposes `count` commands of 1 KiB on the leader, all at once.
fn burst(cluster: &Cluster, count: usize, patience: Duration) -> Vec<JoinHandle<Outcome>> {
    let node = &cluster.nodes[&cluster.leader()];
    let deadline = Instant::now() + patience;
    let propose = |_| {
        let group = node.group().clone();
        let parts = vec![Bytes::from(vec![b'x'; 1 << 10])];
        node.runtime().spawn(async move { group.propose(parts, deadline).await })
    };
    (0..count).map(propose).collect()
}

fn outcomes(cluster: &Cluster, proposals: Vec<JoinHandle<Outcome>>) -> Vec<Outcome> {
    let runtime = cluster.nodes[&1].runtime();
    proposals.into_iter().map(|proposal| runtime.block_on(proposal).unwrap()).collect()
}

fn count(outcomes: &[Outcome], matches: impl Fn(&Outcome) -> bool) -> usize {
    outcomes.iter().filter(|outcome| matches(outcome)).count()
}

#[test]
fn a_burst_fills_a_bounded_queue_and_the_rest_is_told_so() {
    support::logging();
    let cluster = narrow(3);
    let term = cluster.nodes[&1].status().term;
    let leader = &cluster.nodes[&cluster.leader()];
    leader.toy.gate.close();
    let proposals = burst(&cluster, 2000, PATIENCE);
    support::eventually("more than the bound was proposed", || {
        (proposals.iter().filter(|proposal| proposal.is_finished()).count() > 1000).then_some(())
    });
    leader.toy.gate.open();
    let outcomes = outcomes(&cluster, proposals);
    let done = count(&outcomes, Result::is_ok);
    let declined = count(&outcomes, |outcome| *outcome == Err(ProposeError::Overloaded));
    assert_eq!(done + declined, outcomes.len(), "nothing is in between");
    assert!((256..600).contains(&done), "{done} of 256 KiB were accepted");
    assert_eq!(cluster.converged().commands.len(), done);
    // Full service afterwards, without an election.
    cluster.propose("after");
    assert_eq!(cluster.nodes[&1].status().term, term);
}

#[test]
fn past_the_deadline_what_was_proposed_is_unknown_and_what_was_not_is_not_done() {
    support::logging();
    let cluster = narrow(3);
    let leader = &cluster.nodes[&cluster.leader()];
    leader.toy.gate.close();
    let proposals = burst(&cluster, 200, Duration::from_millis(300));
    let outcomes = outcomes(&cluster, proposals);
    let unknown = count(&outcomes, |outcome| *outcome == Err(ProposeError::Unknown));
    let not_done = count(&outcomes, |outcome| *outcome == Err(ProposeError::Overloaded));
    assert_eq!(unknown + not_done, 200, "{outcomes:?}");
    assert!(unknown > 0 && not_done > 0, "{unknown} unknown, {not_done} not done");
    leader.toy.gate.open();
    // What was not done is not there; what was unknown happens to have been done.
    assert_eq!(cluster.converged().commands.len(), unknown);
}

#[test]
fn a_stop_answers_what_was_accepted_and_refuses_what_comes_later() {
    support::logging();
    let mut cluster = narrow(3);
    let old = cluster.leader();
    let proposals = burst(&cluster, 200, PATIENCE);
    let node = cluster.node(old);
    let group = node.group().clone();
    node.runtime().block_on(group.shutdown());
    let late = node.propose("late").unwrap_err();
    assert_eq!(late, ProposeError::Stopped);
    let outcomes = outcomes(&cluster, proposals);
    let done = count(&outcomes, Result::is_ok);
    let refused = count(&outcomes, |outcome| *outcome == Err(ProposeError::Stopped));
    assert_eq!(done + refused, 200, "{outcomes:?}");
    drop(group);
    cluster.node(old).kill();
    assert_eq!(cluster.converged().commands.len(), done);
}

#[test]
fn a_leader_killed_under_load_loses_nothing_that_it_acknowledged() {
    support::logging();
    let mut cluster = Cluster::running(3);
    for round in 0..3 {
        let leader = cluster.leader();
        let node = &cluster.nodes[&leader];
        let deadline = Instant::now() + PATIENCE;
        let (sender, acknowledged) = std::sync::mpsc::channel();
        for proposer in 0..32 {
            let (group, sender) = (node.group().clone(), sender.clone());
            node.runtime().spawn(async move {
                for number in 0.. {
                    let command = format!("{round}/{proposer}/{number}");
                    let parts = vec![Bytes::from(command.clone())];
                    if group.propose(parts, deadline).await.is_err()
                        || sender.send(command).is_err()
                    {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut expected: Vec<String> = acknowledged.iter().take(500).collect();
        cluster.node(leader).kill();
        expected.extend(acknowledged.iter());
        cluster.propose("barrier");
        let new_leader = cluster.leader();
        let applied: std::collections::BTreeSet<String> =
            cluster.nodes[&new_leader].toy.texts().into_iter().collect();
        for command in &expected {
            assert!(applied.contains(command), "{command} was acknowledged and is lost");
        }
        cluster.node(leader).start();
        cluster.converged();
    }
}
