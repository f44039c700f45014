//! `mqbench` as a load, and what it says.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Cluster, binaries};
use tokio::process::{Child, Command};

/// A figure of `mqbench`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// A load that runs.
pub(crate) struct Running(Child);

/// Starts `mqbench` against the leader.
pub(crate) async fn start(cluster: &Cluster, arguments: &[&str]) -> Result<Running> {
    let (leader, _) = cluster.leader().await;
    let mut command = Command::new(binaries::program("mqbench"));
    command.args(arguments).arg("--json");
    command.args(["--endpoint", &leader.addresses.client.to_string()]);
    command.arg("--disk").arg(cluster.scratch.path());
    command.stdout(Stdio::piped()).kill_on_drop(true);
    Ok(Running(command.spawn().context("start mqbench")?))
}

impl Running {
    /// What the first figure says, once the load has ended.
    pub(crate) async fn figure(self) -> Result<Figure> {
        let output = self.0.wait_with_output().await.context("wait for mqbench")?;
        ensure!(output.status.success(), "mqbench: {}", output.status);
        let json: Value = serde_json::from_slice(&output.stdout).context("what mqbench says")?;
        let figure = &json["figures"][0];
        let number = |value: &Value| value.as_f64().context("a figure without a number");
        Ok(Figure {
            per_second: number(&figure["messages_per_second"])?,
            p50_ms: number(&figure["latency"]["p50_ms"])?,
            p99_ms: number(&figure["latency"]["p99_ms"])?,
        })
    }
}

/// Runs a load to its end.
pub(crate) async fn figure(cluster: &Cluster, arguments: &[&str]) -> Result<Figure> {
    start(cluster, arguments).await?.figure().await
}

/// Sends at a steady rate, well below what the cluster carries: latency is what is asked for.
pub(crate) fn paced<'a>(topic: &'a str, seconds: &'a str) -> [&'a str; 7] {
    ["produce", "--topic", topic, "--rate", "2000", "--duration", seconds]
}

/// Fills the log until it has so many bytes, with batches of 1 KiB messages. Returns the time.
pub(crate) async fn fill(cluster: &Cluster, topic: &str, bytes: u64) -> Result<Duration> {
    let started = Instant::now();
    let (leader, _) = cluster.leader().await;
    while log_end(&leader).await? < bytes {
        let arguments = ["--batch", "64", "--in-flight", "32", "--warmup", "0s"];
        let mut all = vec!["produce", "--topic", topic, "--duration", "5s"];
        all.extend(arguments);
        figure(cluster, &all).await?;
    }
    Ok(started.elapsed())
}

pub(crate) async fn log_end(node: &tests::node::Node) -> Result<u64> {
    let end = node.metric("raftmq_log_end_offset").await?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a log offset")]
    Ok(end as u64)
}

/// Whether so many bytes for each replica fit onto the disk, with some to spare.
pub(crate) fn fits(cluster: &Cluster, bytes: u64) -> Result<bool> {
    const SPARE: u64 = 8 << 30;
    let found = rustix::fs::statvfs(cluster.scratch.path())?;
    let free = found.f_bavail * found.f_frsize;
    let replicas = cluster.nodes.len() as u64;
    Ok(bytes * replicas + SPARE <= free)
}
