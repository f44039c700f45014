//! Runs of this program, as many at a time as was said, each with its own seed.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result};

use super::summary::{Outcome, Report, Tried};
use super::table::{Case, Setup};
use crate::judge::Judgement;

/// Requests per second: little, so that two runs fit on two processors.
const RATE: u64 = 600;
/// Faults come fast: runs are short.
const INTERVAL: &str = "0.6";
/// A cluster that lost what was flushed lazily stands still for half a minute before it goes on.
const FINAL_S: u64 = 45;
/// Starting, draining and judging, at most, in seconds.
const BESIDE_S: u64 = 100;
/// What a run that told nothing counts as.
const HARNESS: u8 = 3;

/// Where runs are made and kept.
#[derive(Debug, Clone)]
pub struct Place {
    /// Directory of `broker` and `namesrv`; that of this program if absent.
    pub bin: Option<PathBuf>,
    pub store: PathBuf,
    pub disks: PathBuf,
    /// Runs at a time.
    pub jobs: usize,
    /// Seeds that are tried for a bug until it is found; a run without a bug has the first.
    pub seeds: Vec<u64>,
    /// Whether each setup is run without a bug, too.
    pub controls: bool,
}

/// What is to be run.
#[derive(Debug, Clone, Copy)]
enum Job {
    /// With the bug, or with the unsafe setting.
    Wrong(&'static Case),
    /// Without it.
    Right(Setup),
}

/// Runs each case, and where it is asked for each of their setups once without any bug.
pub fn run(place: &Place, cases: &[&'static Case]) -> Result<Report> {
    let mut jobs: VecDeque<Job> = cases.iter().copied().map(Job::Wrong).collect();
    let mut setups: Vec<Setup> = Vec::new();
    for case in cases.iter().filter(|case| place.controls && !case.is_control()) {
        if !setups.contains(&case.setup) {
            setups.push(case.setup);
        }
    }
    jobs.extend(setups.into_iter().map(Job::Right));
    fs::create_dir_all(&place.store).with_context(|| place.store.display().to_string())?;
    let (jobs, report) = (Mutex::new(jobs), Mutex::new(Report::default()));
    let work = || -> Result<()> {
        loop {
            let Some(job) = jobs.lock().expect("no holder panics").pop_front() else {
                return Ok(());
            };
            match job {
                Job::Wrong(case) => {
                    let outcome = wrong(place, case)?;
                    println!("{}", outcome.line());
                    report.lock().expect("no holder panics").outcomes.push(outcome);
                }
                Job::Right(setup) => {
                    let tried = one(place, &setup, None, first(place))?;
                    println!("{} without a bug: {}", setup.name(), tried.verdict());
                    report.lock().expect("no holder panics").controls.push((setup, tried));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..place.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker returns"))
    })?;
    Ok(report.into_inner().expect("no holder panics"))
}

fn first(place: &Place) -> u64 {
    place.seeds.first().copied().unwrap_or(1)
}

/// Seed after seed, until it is found.
fn wrong(place: &Place, case: &'static Case) -> Result<Outcome> {
    let bug = (!case.is_control()).then_some(case.name);
    let mut outcome = Outcome { case, tries: Vec::new() };
    for seed in place.seeds.iter().copied().chain(place.seeds.is_empty().then_some(1)) {
        outcome.tries.push(one(place, &case.setup, bug, seed)?);
        if outcome.is_caught() {
            break;
        }
    }
    Ok(outcome)
}

fn one(place: &Place, setup: &Setup, bug: Option<&str>, seed: u64) -> Result<Tried> {
    let name = format!("{}-{}-{seed}", bug.unwrap_or("right"), setup.name());
    let store = place.store.join(name);
    fs::create_dir_all(&store).with_context(|| store.display().to_string())?;
    let log = File::create(store.join("jepsen.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--workload", setup.workload, "--nemesis", setup.nemesis]);
    command.args(["--nemesis-interval", INTERVAL]);
    let mut add = |flag: &str, value: String| {
        command.arg(flag).arg(value);
    };
    add("--nodes", setup.nodes.to_string());
    add("--time", setup.seconds.to_string());
    add("--rate", RATE.to_string());
    add("--seed", seed.to_string());
    add("--final-time-limit", FINAL_S.to_string());
    add("--time-limit", (setup.seconds + BESIDE_S).to_string());
    add("--store", path(&store));
    add("--disks", path(&place.disks));
    if !setup.schedule.is_empty() {
        let schedule = store.join("faults.json");
        fs::write(&schedule, setup.schedule)?;
        add("--schedule", path(&schedule));
    }
    if let Some(bin) = &place.bin {
        add("--bin", path(bin));
    }
    let bug = bug.map(|bug| format!("fault.bug={bug}"));
    for set in setup.set.iter().copied().chain(bug.as_deref()) {
        add("--set", set.to_owned());
    }
    let began = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("this program, once more")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(HARNESS);
    let results = fs::read_to_string(store.join("latest/results.json")).ok();
    let judgement: Option<Judgement> = results.and_then(|text| serde_json::from_str(&text).ok());
    Ok(Tried { seed, code, seconds: began.elapsed().as_secs(), judgement, store })
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
