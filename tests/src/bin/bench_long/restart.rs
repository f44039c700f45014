//! Starts over a long log: of one node, and of all of them at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jepsen::Fate;
use tests::Cluster;
use tests::node::Node;

use super::{load, tell};

const LONGEST: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(crate) async fn run(gib: u64) -> Result<()> {
    let cluster = Cluster::of(3).start().await;
    if !load::fits(&cluster, gib << 30)? {
        println!("  left out: {gib} GiB for each of three replicas do not fit onto the disk");
        cluster.finish().await;
        return Ok(());
    }
    cluster.topic("long", 8).await;
    let took = load::fill(&cluster, "long", gib << 30).await?;
    println!("  {gib} GiB of log in {took:.0?}");
    let follower = cluster.followers().await.remove(0);
    for (how, kill) in [("after SIGTERM", false), ("after SIGKILL", true)] {
        match kill {
            true => follower.kill(),
            false => ensure!(follower.stop().await.success(), "{follower:?} did not stop well"),
        }
        let started = Instant::now();
        follower.start();
        ready(&follower, started).await?;
        tell(&format!("one node, {how}, to /ready"), &ms(started.elapsed()), "1 s");
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
    tell("all nodes after SIGKILL, to the first ack", &ms(started.elapsed()), "3.5 s");
    cluster.finish().await;
    Ok(())
}

async fn ready(node: &Node, since: Instant) -> Result<()> {
    while !node.is_ready().await {
        ensure!(since.elapsed() < LONGEST, "{node:?} is not ready after {LONGEST:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
