//! Starts over a long log: of one node, and of all of them at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jepsen::Fate;
use tests::Cluster;
use tests::node::Node;

use crate::Plan;
use crate::load;
use crate::table::Table;

/// Bytes of log.
const FULL: u64 = 4 << 30;
const LEAST: u64 = 16 << 20;
const LONGEST: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const READY: Duration = Duration::from_secs(1);
const FIRST_ACK: Duration = Duration::from_millis(3500);

pub(crate) async fn run(plan: Plan, table: &mut Table) -> Result<()> {
    let bytes = plan.size.of(FULL, LEAST);
    let cluster = Cluster::of(3).start().await;
    let over = format!("start over {} MiB of log", bytes >> 20);
    if load::fits(&cluster, &over, bytes, table)? {
        measure(&cluster, bytes, &over, table).await?;
    }
    cluster.finish().await;
    Ok(())
}

async fn measure(cluster: &Cluster, bytes: u64, over: &str, table: &mut Table) -> Result<()> {
    cluster.topic("long", 8).await;
    let took = load::fill(cluster, "long", bytes).await?;
    println!("  {} MiB of log in {took:.0?}", bytes >> 20);
    let follower = cluster.followers().await.remove(0);
    for (how, kill) in [("SIGTERM", false), ("SIGKILL", true)] {
        match kill {
            true => follower.kill(),
            false => ensure!(follower.stop().await.success(), "{follower:?} did not stop well"),
        }
        let started = Instant::now();
        follower.start();
        ready(&follower, started).await?;
        let took = started.elapsed();
        let what = format!("{over}: one node after {how}, to `/ready`");
        table.reach(what, ms(took), ms(READY), took <= READY);
        cluster.replicas_agree().await;
    }
    let producer = cluster.producer("long");
    cluster.groups[0].kill();
    let started = Instant::now();
    cluster.groups[0].start();
    while producer.send_one().await != Fate::Done {
        ensure!(started.elapsed() < LONGEST, "no send is acknowledged after {LONGEST:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let took = started.elapsed();
    let what = format!("{over}: all nodes after SIGKILL, to the first ack");
    table.reach(what, ms(took), ms(FIRST_ACK), took <= FIRST_ACK);
    Ok(())
}

/// Waits until `/ready` says so.
pub(crate) async fn ready(node: &Node, since: Instant) -> Result<()> {
    while !node.is_ready().await {
        ensure!(since.elapsed() < LONGEST, "{node:?} is not ready after {LONGEST:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// `12 ms`.
pub(crate) fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
