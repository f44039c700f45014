//! Random faults from a seed, bounded: what is broken is healed again, and a majority that was
//! taken away comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::Cluster;
use crate::node::Node;

/// Sets the seed of randomized tests.
const SEED: &str = "MQTEST_SEED";

/// The seed of this run: from the environment, or a fresh one. It is printed, so that a failure can
/// be run again.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("{SEED} is a number")),
        Err(_) => rand::random(),
    };
    eprintln!("{test}: {SEED}={seed}");
    seed
}

/// What may happen to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillLeader,
    KillFollower,
    KillAll,
    PauseLeader,
    PauseFollower,
    StopLeader,
}

const FAULTS: [Fault; 6] = [
    Fault::KillLeader,
    Fault::KillFollower,
    Fault::KillAll,
    Fault::PauseLeader,
    Fault::PauseFollower,
    Fault::StopLeader,
];

/// Breaks and heals `cluster` until `duration` has passed; each kind of fault comes up once before
/// one comes up twice. Ends with everything running.
pub async fn break_and_heal(cluster: &Cluster, seed: u64, duration: Duration) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let start = Instant::now();
    let mut done = Vec::new();
    let mut bag: Vec<Fault> = Vec::new();
    while start.elapsed() < duration {
        if bag.is_empty() {
            bag.extend(FAULTS);
        }
        let fault = bag.swap_remove(random.random_range(0..bag.len()));
        cluster.ledger.fault(format!("{fault:?}"));
        inflict(cluster, fault).await;
        pause(&mut random, 300..2500).await;
        cluster.heal();
        cluster.ledger.fault("healed");
        done.push(fault);
        pause(&mut random, 500..2000).await;
    }
    cluster.heal();
    cluster.leader().await;
    done
}

async fn pause(random: &mut StdRng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(ms))).await;
}

async fn inflict(cluster: &Cluster, fault: Fault) {
    let (leader, _) = cluster.leader().await;
    match fault {
        Fault::KillLeader => leader.kill(),
        Fault::PauseLeader => leader.pause(),
        // Its end is not waited for: an orderly stop is still under way when the next fault comes.
        Fault::StopLeader => leader.process().terminate(),
        Fault::KillFollower => with_follower(cluster, &leader, Node::kill),
        Fault::PauseFollower => with_follower(cluster, &leader, Node::pause),
        Fault::KillAll => cluster.nodes.iter().for_each(|node| node.kill()),
    }
}

fn with_follower(cluster: &Cluster, leader: &Arc<Node>, fault: impl Fn(&Node)) {
    if let Some(follower) = cluster.nodes.iter().find(|n| n.id != leader.id && n.is_active()) {
        fault(follower);
    }
}
