//! `mqbench` as a load, and what it says.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Cluster, binaries};
use tokio::process::{Child, Command};

use crate::table::Table;

/// Bytes of a message of 1 KiB in the log.
pub(crate) const STORED: u64 = 1200;
/// Messages that [`fill`] sends before it looks how long the log is.
const AT_ONCE: std::ops::RangeInclusive<u64> = 4_000..=400_000;
/// Messages a second that it tries to send.
const PER_SECOND: u64 = 100_000;
/// A log that does not grow in so many rounds does not take what is sent.
const IDLE_ROUNDS: u32 = 5;

/// A figure of `mqbench`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// A load that runs.
pub(crate) struct Running(Child);

/// Starts `mqbench` against the leader of the first group.
pub(crate) async fn start(cluster: &Cluster, arguments: &[&str]) -> Result<Running> {
    let (leader, _) = cluster.leader().await;
    start_at(cluster, leader.addresses.client, arguments)
}

/// Starts `mqbench` against this access point.
pub(crate) fn start_at(cluster: &Cluster, at: SocketAddr, arguments: &[&str]) -> Result<Running> {
    let mut command = Command::new(binaries::program("mqbench"));
    command.args(arguments).arg("--json");
    command.args(["--endpoint", &at.to_string()]);
    command.arg("--disk").arg(cluster.scratch.path());
    command.stdout(Stdio::piped()).kill_on_drop(true);
    Ok(Running(command.spawn().context("start mqbench")?))
}

impl Running {
    /// What the first figure says, once the load has ended.
    pub(crate) async fn figure(self) -> Result<Figure> {
        let json = self.end().await?;
        let figure = &json["figures"][0];
        let number = |value: &Value| {
            value.as_f64().with_context(|| format!("a figure without a number: {json:#}"))
        };
        Ok(Figure {
            per_second: number(&figure["messages_per_second"])?,
            p50_ms: number(&figure["latency"]["p50_ms"])?,
            p99_ms: number(&figure["latency"]["p99_ms"])?,
        })
    }
}

impl Running {
    /// All that it says in the end.
    async fn end(self) -> Result<Value> {
        let output = self.0.wait_with_output().await.context("wait for mqbench")?;
        ensure!(output.status.success(), "mqbench: {}", output.status);
        serde_json::from_slice(&output.stdout).context("what mqbench says")
    }
}

/// Runs a load to its end.
pub(crate) async fn figure(cluster: &Cluster, arguments: &[&str]) -> Result<Figure> {
    start(cluster, arguments).await?.figure().await
}

/// Sends at a steady rate, well below what the cluster carries: latency is what is asked for.
pub(crate) fn paced<'a>(topic: &'a str, duration: &'a str) -> [&'a str; 7] {
    ["produce", "--topic", topic, "--rate", "2000", "--duration", duration]
}

/// Fills the log until it has so many bytes, with batches of 1 KiB messages. Returns the time.
pub(crate) async fn fill(cluster: &Cluster, topic: &str, bytes: u64) -> Result<Duration> {
    let started = Instant::now();
    let (leader, _) = cluster.leader().await;
    let mut end = log_end(&leader).await?;
    let mut idle = 0;
    while end < bytes {
        // A little more than is missing, so that a second round is the exception.
        let missing = (bytes - end) / STORED * 17 / 16;
        let messages = missing.clamp(*AT_ONCE.start(), *AT_ONCE.end());
        let seconds = messages.div_ceil(PER_SECOND);
        let (duration, rate) = (format!("{seconds}s"), messages.div_ceil(seconds).to_string());
        let arguments = ["produce", "--topic", topic, "--duration", &duration, "--rate", &rate];
        let batches = ["--batch", "64", "--in-flight", "32", "--warm-up", "0s"];
        start(cluster, &[&arguments[..], &batches].concat()).await?.end().await?;
        let now = log_end(&leader).await?;
        idle = if now > end { 0 } else { idle + 1 };
        ensure!(idle < IDLE_ROUNDS, "the log does not grow beyond {now} bytes");
        end = now;
    }
    Ok(started.elapsed())
}

pub(crate) async fn log_end(node: &tests::node::Node) -> Result<u64> {
    let end = node.metric("raftmq_log_end_offset").await?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a log offset")]
    Ok(end as u64)
}

/// Whether so many bytes for each replica fit onto the disk, with some to spare. If not, the table
/// says so.
pub(crate) fn fits(cluster: &Cluster, what: &str, bytes: u64, table: &mut Table) -> Result<bool> {
    const SPARE: u64 = 8 << 30;
    let found = rustix::fs::statvfs(cluster.scratch.path())?;
    let free = found.f_bavail * found.f_frsize;
    let needed = bytes * cluster.nodes.len() as u64 + SPARE;
    if needed > free {
        let (needed, free) = (needed >> 20, free >> 20);
        table.note(what, format!("left out: {needed} MiB of disk needed, {free} MiB free"));
    }
    Ok(needed <= free)
}

/// `1.23 ms`.
pub(crate) fn ms(value: f64) -> String {
    format!("{value:.2} ms")
}

/// A p99 beside that of another time, which it may exceed so many times.
pub(crate) fn beside(table: &mut Table, what: &str, now: Figure, before: Figure, times: f64) {
    let ratio = now.p99_ms / before.p99_ms;
    let measured = format!("p50 {}, p99 {}: {ratio:.1}x", ms(now.p50_ms), ms(now.p99_ms));
    table.reach(what, measured, format!("p99 at most {times}x"), ratio <= times);
}
