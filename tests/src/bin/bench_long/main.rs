//! `make bench-long`: what a broker group does after a long time: restarts over a long log, a backlog
//! that nobody consumes, very many queues, a snapshot that is sent under load.
//!
//! `bench_long restart|backlog|queues|snapshot`; without a word all of them. The environment scales
//! them: `BENCH_GIB` (of log, 4), `BENCH_MESSAGES` (of backlog, 10,000,000), `BENCH_QUEUES`
//! (100,000), `BENCH_SECONDS` (of each measured load, 10). Each figure is printed beside what it has
//! to reach; what does not fit onto the disk is said and left out.

#![allow(clippy::print_stdout, reason = "a benchmark talks to its user")]

mod backlog;
mod load;
mod queues;
mod restart;
mod snapshot;

use std::process::ExitCode;

use anyhow::{Result, bail};

/// A number in the environment.
fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => Ok(text.parse()?),
        Ok(_) | Err(_) => Ok(default),
    }
}

/// One line of the result.
fn tell(what: &str, measured: &str, reach: &str) {
    println!("  {what}: {measured} (to reach: {reach})");
}

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
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let all = ["restart", "backlog", "queues", "snapshot"].map(str::to_owned);
    for scenario in if wanted.is_empty() { &all[..] } else { &wanted[..] } {
        println!("== {scenario}");
        match scenario.as_str() {
            "restart" => restart::run(setting("BENCH_GIB", 4)?).await?,
            "backlog" => backlog::run(setting("BENCH_MESSAGES", 10_000_000)?).await?,
            "queues" => queues::run(setting("BENCH_QUEUES", 100_000)?).await?,
            "snapshot" => snapshot::run().await?,
            other => bail!("{other:?} is none of restart, backlog, queues, snapshot"),
        }
    }
    Ok(())
}
