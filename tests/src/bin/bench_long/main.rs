//! `make bench-long`: what a broker group does after a long time: restarts over a long log, a backlog
//! that nobody consumes, very many queues, a snapshot that is sent under load, several groups.
//!
//! Each scenario has a cluster of its own. In the end all figures are printed as one Markdown table,
//! each beside what it has to reach; what does not fit onto the disk is said there and left out.
//! `--scale 0.01` makes everything a hundredth as large: for a look at whether it works, in a minute.

#![allow(clippy::print_stdout, reason = "a benchmark talks to its user")]

mod backlog;
mod groups;
mod load;
mod queues;
mod restart;
mod size;
mod snapshot;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use self::size::Size;
use self::table::Table;

/// Figures that need a long log.
#[derive(Debug, Parser)]
struct Args {
    /// All of them unless some are named.
    scenarios: Vec<Scenario>,
    /// Of the full sizes: 4 GiB of log, 10,000,000 messages of backlog, 100,000 queues, a snapshot
    /// of 1 GiB.
    #[arg(long, env = "BENCH_SCALE", default_value = "1")]
    scale: Size,
    /// How long each load is measured.
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Starts over a long log.
    Restart,
    /// Messages that nobody consumes, and their end.
    Backlog,
    /// Very many queues in one group.
    Queues,
    /// A snapshot that is sent to a replica under load.
    Snapshot,
    /// One, two and four broker groups.
    Groups,
}

/// What a scenario is given.
#[derive(Debug, Clone, Copy)]
struct Plan {
    size: Size,
    seconds: u64,
}

impl Plan {
    /// How long each load is measured, as `mqbench` takes it.
    fn duration(self) -> String {
        format!("{}s", self.seconds)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut table = Table::new(args.scale);
    let ended = run(&args, &mut table).await;
    println!("\n{table}");
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, table: &mut Table) -> Result<()> {
    let plan = Plan { size: args.scale, seconds: args.seconds };
    let all = Scenario::value_variants();
    for scenario in if args.scenarios.is_empty() { all } else { &args.scenarios[..] } {
        println!("== {scenario:?}");
        match scenario {
            Scenario::Restart => restart::run(plan, table).await?,
            Scenario::Backlog => backlog::run(plan, table).await?,
            Scenario::Queues => queues::run(plan, table).await?,
            Scenario::Snapshot => snapshot::run(plan, table).await?,
            Scenario::Groups => groups::run(plan, table).await?,
        }
    }
    Ok(())
}
