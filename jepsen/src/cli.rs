//! The commands of the `jepsen` program.

mod campaign;
mod check;
mod ci;
mod doctor;
mod export;
mod index;
mod run;
mod run_dir;
mod selftest;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use doctor::{Ability, abilities};
pub use run_dir::RunDir;

/// Runs a broker cluster under faults, and judges what clients saw.
#[derive(Debug, Parser)]
#[command(name = "jepsen", version, about)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster in a network of its own, breaks it while clients work, and judges it.
    ///
    /// Exit code: 0 valid, 1 invalid, 2 unknown, 3 the harness itself failed, 64 usage.
    Run(crate::run::Options),
    /// Five composite runs and what belongs to them, in five minutes: what has to hold before a change
    /// is good.
    Ci(campaign::Campaign),
    /// Every workload under every package of faults, one run each.
    TestAll {
        #[command(flatten)]
        campaign: campaign::Campaign,
        #[command(flatten)]
        matrix: campaign::Matrix,
    },
    /// The same workloads under other faults, for as long as there is time.
    Soak {
        #[command(flatten)]
        campaign: campaign::Campaign,
        /// How long, in minutes.
        #[arg(long, default_value_t = 60)]
        time: u64,
    },
    /// Sows bugs in the brokers, one at a time, and shows that each is found.
    ///
    /// Exit code: 0 all were found and nothing else was, 1 something was missed, 2 unknown, 3 the
    /// harness itself failed, 64 usage.
    Selftest(selftest::Selftest),
    /// Lists the faults.
    Nemeses,
    /// Judges recorded runs; writes results.json, report.html and the slice of each anomaly.
    ///
    /// Exit code: 0 valid, 1 invalid, 2 unknown, 3 the record itself is broken, 64 usage.
    Check {
        /// Directories with test.json and history.jsonl.
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// Only these checkers of properties, by name.
        #[arg(long, value_delimiter = ',')]
        checker: Vec<String>,
        /// Prints the results as JSON, one object per run.
        #[arg(long)]
        json: bool,
        /// Writes nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Writes a history for a checker of others.
    Export {
        dir: PathBuf,
        #[arg(long, value_enum)]
        format: Format,
        /// Where to; the terminal unless given.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Writes index.html over all judged runs below a directory.
    Index { store: PathBuf },
    /// Says which faults this machine can make.
    Doctor {
        #[arg(long)]
        json: bool,
        /// Removes what runs left behind that were ended by force.
        #[arg(long)]
        clean: bool,
    },
}

/// Whose form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON array of operations.
    Porcupine,
    /// Events as EDN maps.
    Edn,
    /// Queues as lists: list-append transactions as JSON lines.
    Elle,
}

/// Wrong usage: what the shell's own tools answer.
const USAGE: u8 = 64;
/// The record, and not the cluster, is at fault.
const HARNESS: u8 = 3;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // What cannot be printed cannot be reported either.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let done = match args.command {
        Command::Check { dirs, checker, json, dry_run } => {
            check::run(&dirs, &checker, json, dry_run)
        }
        Command::Run(options) => run::run(options),
        Command::Ci(campaign) => ci::ci(&campaign),
        Command::TestAll { campaign, matrix } => campaign::test_all(&campaign, &matrix),
        Command::Soak { campaign, time } => campaign::soak(&campaign, time),
        Command::Selftest(args) => selftest::run(&args),
        Command::Nemeses => {
            for class in crate::nemesis::Class::ALL {
                println!("{:16}{}", class.name(), class.meaning().trim());
            }
            for scenario in crate::nemesis::Scenario::ALL {
                let name = scenario.proof();
                println!("{name:30}{}", scenario.meaning().trim());
            }
            Ok(0)
        }
        Command::Export { dir, format, output } => export::run(&dir, format, output.as_deref()),
        Command::Index { store } => index::run(&store),
        Command::Doctor { clean: true, .. } => doctor::clean(),
        Command::Doctor { json, .. } => doctor::run(json),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("jepsen: {error:#}");
            ExitCode::from(HARNESS)
        }
    }
}
