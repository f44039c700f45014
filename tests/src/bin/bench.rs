//! `make bench`: a cluster of two NameServers and three brokers on this machine, and `mqbench` under
//! every load whose figures we keep.
//!
//! `BENCH_SECONDS` sets how long each load is measured, 10 unless given.

#![allow(clippy::print_stdout, reason = "a benchmark talks to its user")]

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use tests::{Cluster, binaries};

/// What is measured: a title, and the arguments of `mqbench` besides the address and the duration.
const LOADS: [(&str, &[&str]); 8] = [
    ("unary sends, 256 in flight", &["produce", "--ceiling"]),
    ("one send at a time", &["produce", "--latency"]),
    (
        "streamed sends, one message each, 2,048 in flight",
        &["produce", "--streamed", "--in-flight", "2048", "--ceiling"],
    ),
    ("batches of 64, 32 in flight", &["produce", "--batch", "64", "--in-flight", "32"]),
    ("send, receive and ack at once, an ack for each", &["both", "--in-flight", "64"]),
    (
        "send, receive and ack at once, acks together",
        &["both", "--in-flight", "64", "--ack", "together"],
    ),
    ("send to receive, idle cluster", &["send-to-receive"]),
    ("what the forwarding hop costs", &["hop"]),
];

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let seconds = std::env::var("BENCH_SECONDS").ok().filter(|s| !s.is_empty());
    let duration = format!("{}s", seconds.as_deref().unwrap_or("10"));
    let cluster = Cluster::of(3).nameservers(2).start().await;
    println!("2 NameServers and 3 brokers of one group on this machine, sync flush, 8 queues\n");
    for (number, (title, arguments)) in LOADS.iter().enumerate() {
        let (leader, _) = cluster.leader().await;
        let topic = format!("bench-{number}");
        cluster.topic(&topic, 8).await;
        println!("== {title}");
        let mut command = Command::new(binaries::program("mqbench"));
        command.args(*arguments).args(["--topic", &topic]);
        command.args(["--endpoint", &leader.addresses.client.to_string()]);
        command.arg("--disk").arg(cluster.scratch.path());
        if arguments[0] == "hop" {
            let nameserver = cluster.nameservers[0].address.to_string();
            command.args(["--leader", &leader.addresses.client.to_string()]);
            command.args(["--access-point", &nameserver]);
        }
        if arguments[0] != "send-to-receive" {
            command.args(["--duration", &duration]);
        }
        let status = tokio::task::spawn_blocking(move || command.status()).await?;
        let status = status.context("start mqbench")?;
        ensure!(status.success(), "{title}: {status}");
        println!();
    }
    for node in &cluster.nodes {
        println!("{node:?}: {} MiB resident after all that", node.memory()? >> 20);
    }
    cluster.finish().await;
    Ok(())
}
