//! A snapshot of 1 GiB that is sent to a replica while the others serve.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::Cluster;

use super::{load, setting, tell};

const GIB: u64 = 1 << 30;
const LONGEST: Duration = Duration::from_secs(300);

pub(crate) async fn run() -> Result<()> {
    // What is kept is a little over 1 GiB; what went before it is gone everywhere.
    let plan = Cluster::of(3).set("log.segment_size", "64MiB");
    let plan = plan.set("log.retention_bytes", &(GIB + GIB / 8).to_string());
    let cluster = plan.set("raft.snapshot_rate", "50MiB").start().await;
    let seconds = format!("{}s", setting("BENCH_SECONDS", 10)?);
    cluster.topic("sent", 8).await;
    let before = load::figure(&cluster, &load::paced("sent", &seconds)).await?;
    println!("  before: sends p50 {:.2} ms, p99 {:.2} ms", before.p50_ms, before.p99_ms);
    let follower = cluster.followers().await.remove(0);
    follower.stop().await;
    load::fill(&cluster, "sent", 2 * GIB + GIB / 2).await?;
    let (leader, _) = cluster.leader().await;
    let started = Instant::now();
    while leader.metric("raftmq_log_start_offset").await? < 1e9 {
        ensure!(started.elapsed() < LONGEST, "retention removes nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    follower.start();
    let started = Instant::now();
    let during = load::figure(&cluster, &load::paced("sent", "15s")).await?;
    let ratio = during.p99_ms / before.p99_ms;
    tell("sends meanwhile", &format!("p99 {:.2} ms, {ratio:.1}x", during.p99_ms), "3x");
    cluster.replicas_agree().await;
    println!("  the replica is as far as the others {:.0?} after its start", started.elapsed());
    let log = follower.process().log();
    ensure!(log.contains("snapshot installed"), "it was fed from the log, not by a snapshot");
    cluster.finish().await;
    Ok(())
}
