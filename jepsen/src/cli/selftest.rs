//! `jepsen selftest`: shows that the suite finds what is wrong.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::USAGE;
use crate::selftest::{self, CASES, Case, ELSEWHERE, FAST, Place};

/// Which bugs, and where.
#[derive(Debug, Clone, Args)]
pub(super) struct Selftest {
    /// Bugs and positive controls by their names, B07 or PC1; all unless given.
    names: Vec<String>,
    /// Only the fast ones.
    #[arg(long, conflicts_with = "names")]
    fast: bool,
    /// Seeds that are tried until a bug is found.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    seeds: Vec<u64>,
    /// Runs at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    jobs: u8,
    /// Directory of `broker` and `namesrv`; that of this program unless given. Release builds have
    /// no bugs to offer.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where runs are kept.
    #[arg(long, default_value = "store/selftest")]
    store: PathBuf,
    /// Where disks of nodes are made.
    #[arg(long, default_value = "/dev/shm")]
    disks: PathBuf,
    /// Prints the results as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Selftest) -> Result<u8> {
    let known = |name: &str| {
        CASES.iter().any(|case| case.name == name) || ELSEWHERE.iter().any(|bug| bug.name == name)
    };
    if let Some(stranger) = args.names.iter().find(|name| !known(name)) {
        eprintln!("jepsen: nothing is called {stranger}; there are {}", all().join(", "));
        return Ok(USAGE);
    }
    let wanted = |name: &str| match args.fast {
        true => FAST.contains(&name),
        false => args.names.is_empty() || args.names.iter().any(|wanted| wanted == name),
    };
    let place = Place {
        bin: args.bin.clone(),
        store: args.store.clone(),
        disks: args.disks.clone(),
        jobs: args.jobs.into(),
        seeds: args.seeds.clone(),
        controls: true,
    };
    conclude(&place, &wanted, args.json)
}

/// The fast ones, in about a minute: for `ci`, whose own runs show that nothing is found without
/// bugs. Prints what came of them; the exit code is that of `jepsen selftest`.
pub(super) fn fast(place: &Place) -> Result<u8> {
    let place = Place { controls: false, ..place.clone() };
    conclude(&place, &|name| FAST.contains(&name), false)
}

fn conclude(place: &Place, wanted: &dyn Fn(&str) -> bool, json: bool) -> Result<u8> {
    let cases: Vec<&'static Case> = CASES.iter().filter(|case| wanted(case.name)).collect();
    let mut report = selftest::run(place, &cases)?;
    report.elsewhere.extend(ELSEWHERE.iter().filter(|bug| wanted(bug.name)));
    report.sort();
    let results = report.json();
    let file = place.store.join("selftest.json");
    fs::write(&file, serde_json::to_string_pretty(&results)?)
        .with_context(|| file.display().to_string())?;
    match json {
        true => println!("{results}"),
        false => println!("{}", report.table()),
    }
    let (passed, failed, skipped) = report.counts();
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(report.code())
}

fn all() -> Vec<&'static str> {
    let mut names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    names.extend(ELSEWHERE.iter().map(|bug| bug.name));
    names.sort_unstable();
    names
}
