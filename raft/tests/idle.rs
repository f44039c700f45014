//! What a group costs when there is nothing to do. In a process of its own, because it counts what
//! the whole process uses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use support::Cluster;

/// Processor time that this process has used, in ms.
fn used() -> u64 {
    const MS_PER_TICK: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    (ticks(11) + ticks(12)) * MS_PER_TICK
}

/// Processor time used over a second.
fn used_in_a_second() -> u64 {
    let before = used();
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
    used() - before
}

#[test]
fn an_idle_group_and_a_dead_replica_cost_next_to_nothing() {
    support::logging();
    let mut cluster = Cluster::running(3);
    cluster.propose("x");
    cluster.converged();
    let healthy = used_in_a_second();
    assert!(healthy < 200, "three idle replicas use {healthy} ms a second");
    let follower = cluster.follower();
    cluster.node(follower).kill();
    // The first seconds are eager on purpose.
    used_in_a_second();
    let one_dead = used_in_a_second();
    assert!(one_dead < 200, "two replicas and a dead one use {one_dead} ms a second");
}
