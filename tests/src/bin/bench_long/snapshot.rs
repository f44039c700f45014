//! A snapshot of 1 GiB that is sent to a replica while the others serve.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::Cluster;

use crate::Plan;
use crate::load;
use crate::table::Table;

/// Bytes that are sent, at least.
const FULL: u64 = 1 << 30;
/// Several of the smallest segments.
const LEAST: u64 = 64 << 20;
/// Bytes a second.
const RATE: u64 = 50 << 20;
/// A smaller snapshot goes more slowly, so that a load has the time to meet it.
const SHORTEST: Duration = Duration::from_secs(10);
const SEGMENTS: u64 = 16;
const SMALLEST_SEGMENT: u64 = 9 << 20;
const LONGEST: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn run(plan: Plan, table: &mut Table) -> Result<()> {
    let bytes = plan.size.of(FULL, LEAST);
    let rate = RATE.min(bytes / SHORTEST.as_secs());
    let segment = (bytes / SEGMENTS).max(SMALLEST_SEGMENT);
    // What is kept is a little more than the size; what went before it is gone everywhere.
    let cluster = Cluster::of(3)
        .set("log.segment_size", &segment.to_string())
        .set("log.retention_bytes", &(bytes + bytes / 8).to_string())
        .set("raft.snapshot_rate", &rate.to_string())
        .start()
        .await;
    cluster.topic("sent", 8).await;
    let duration = plan.duration();
    let before = load::figure(&cluster, &load::paced("sent", &duration)).await?;
    let latency = format!("p50 {}, p99 {}", load::ms(before.p50_ms), load::ms(before.p99_ms));
    table.note("2,000 sends a second before the snapshot", latency);
    let follower = cluster.followers().await.remove(0);
    let needs = load::log_end(&follower).await?;
    ensure!(follower.stop().await.success(), "{follower:?} did not stop well");
    load::fill(&cluster, "sent", 2 * bytes + bytes / 2).await?;
    let (leader, _) = cluster.leader().await;
    let started = Instant::now();
    #[allow(clippy::cast_precision_loss, reason = "a log offset far below 2^53")]
    while leader.metric("raftmq_log_start_offset").await? <= needs as f64 {
        ensure!(started.elapsed() < LONGEST, "retention removes nothing");
        tokio::time::sleep(LOOK_EVERY).await;
    }

    follower.start();
    let started = Instant::now();
    let lasts = format!("{}s", (bytes / rate).saturating_sub(3).max(5));
    let during = load::figure(&cluster, &load::paced("sent", &lasts)).await?;
    cluster.replicas_agree().await;
    let took = started.elapsed();
    let sent = leader.metric("raftmq_snapshot_sent_bytes_total").await? / f64::from(1 << 20);
    ensure!(
        follower.metric("raftmq_snapshots_installed_total").await? >= 1.0,
        "it was fed from the log, not by a snapshot"
    );
    let what = format!("sends while a snapshot of {sent:.0} MiB goes at {} MiB/s", rate >> 20);
    load::beside(table, &what, during, before, 3.0);
    table.note("its receiver is as far as the others", format!("{took:.0?} after its start"));
    cluster.finish().await;
    Ok(())
}
