//! A backlog that nobody consumes, and its end: producers must not notice either.

use anyhow::Result;
use tests::Cluster;

use super::{load, setting, tell};

/// Of a message of 1 KiB in the log.
const STORED: u64 = 1200;

pub(crate) async fn run(messages: u64) -> Result<()> {
    let cluster = Cluster::of(3).start().await;
    if !load::fits(&cluster, messages * STORED)? {
        println!("  left out: {messages} messages do not fit onto the disk three times");
        cluster.finish().await;
        return Ok(());
    }
    let seconds = format!("{}s", setting("BENCH_SECONDS", 10)?);
    cluster.topic("backlog", 8).await;
    let term = cluster.leader().await.1.term;
    let empty = load::figure(&cluster, &load::paced("backlog", &seconds)).await?;
    println!("  empty log: sends p50 {:.2} ms, p99 {:.2} ms", empty.p50_ms, empty.p99_ms);
    let took = load::fill(&cluster, "backlog", messages * STORED).await?;
    println!("  {messages} messages, {} MiB, in {took:.0?}", (messages * STORED) >> 20);

    let full = load::figure(&cluster, &load::paced("backlog", &seconds)).await?;
    let ratio = full.p99_ms / empty.p99_ms;
    tell("sends beside the backlog", &format!("p99 {:.2} ms, {ratio:.1}x", full.p99_ms), "2x");

    // Drained while sends go on.
    let consume = ["consume", "--topic", "backlog", "--ack", "together", "--duration", &seconds];
    let draining = load::start(&cluster, &consume).await?;
    let beside = load::figure(&cluster, &load::paced("backlog", &seconds)).await?;
    let drained = draining.figure().await?;
    let rate = drained.per_second * 1024.0 / 1e6;
    tell("drained", &format!("{rate:.0} MB/s"), "100 MB/s");
    let ratio = beside.p99_ms / empty.p99_ms;
    println!("  sends while it is drained: p99 {:.2} ms, {ratio:.1}x", beside.p99_ms);
    let elections = cluster.leader().await.1.term - term;
    tell("elections", &elections.to_string(), "0");
    for node in &cluster.nodes {
        println!("  {node:?}: {} MiB resident", node.memory()? >> 20);
    }
    cluster.finish().await;
    Ok(())
}
