//! Several runs in a row, and what they did together; `jepsen soak`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::HARNESS;
use super::check::worst;
use super::run::{TIMING, Timing};
use crate::judge::{Judgement, Validity};
use crate::nemesis::Class;

/// Beside its faults, a run starts a cluster, reads everything to the end and judges.
const BESIDE: u64 = 45;

/// What runs of a campaign share.
#[derive(Debug, Clone, Args)]
pub(super) struct Campaign {
    /// Decides the seeds of all runs. Chosen and told if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Directory of `broker` and `namesrv`; that of this program unless given.
    #[arg(long)]
    pub bin: Option<PathBuf>,
    /// Where runs are kept.
    #[arg(long, default_value = "store")]
    pub store: PathBuf,
    /// Where disks of nodes are made.
    #[arg(long, default_value = "/dev/shm")]
    pub disks: PathBuf,
    /// Requests per second that clients aim at.
    #[arg(long, default_value_t = 4_000)]
    rate: u64,
}

/// One run of a campaign.
#[derive(Debug, Clone)]
pub(super) struct Leg {
    pub workload: String,
    pub nemesis: String,
    pub nodes: u8,
    pub seconds: u64,
    pub seed: u64,
}

/// What came of it.
pub(super) struct Done {
    pub leg: Leg,
    pub code: u8,
    took: Duration,
    pub judgement: Option<Judgement>,
    judged_ms: u64,
    log: PathBuf,
}

/// The workloads of composite runs, and how many nodes they have.
const WORKLOADS: [(&str, u8); 5] = [
    ("log+offset", 3),
    ("queue+meta", 5),
    ("fifo+idem", 3),
    ("txn+broadcast", 3),
    ("delay+rebalance", 3),
];
/// Faults of one leg of `soak`, in seconds.
const SOAK_SECONDS: u64 = 120;
/// A run that is shorter than this shows little.
const SECONDS_MIN: u64 = 20;

/// Other faults for the same workloads, until the time is over.
pub(super) fn soak(campaign: &Campaign, minutes: u64) -> Result<u8> {
    let mut random = seeds(campaign);
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let mut done = Vec::new();
    for (workload, nodes) in WORKLOADS.into_iter().cycle() {
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        let Some(seconds) = left.checked_sub(BESIDE).map(|left| left.min(SOAK_SECONDS)) else {
            break;
        };
        if seconds < SECONDS_MIN && !done.is_empty() {
            break;
        }
        let possible = Class::ALL
            .iter()
            .filter(|class| (5 <= nodes || !class.needs_five()) && **class != Class::Upgrade);
        let mut names: Vec<&str> = possible.map(|class| class.name()).collect();
        let wanted = random.random_range(4..9);
        while wanted < names.len() {
            names.swap_remove(random.random_range(0..names.len()));
        }
        let leg = Leg {
            workload: workload.to_owned(),
            nemesis: names.join(","),
            nodes,
            seconds,
            seed: random.random_range(0..1 << 32),
        };
        done.push(run(campaign, leg, until + Duration::from_secs(BESIDE))?);
    }
    let totals = Totals::of(&done);
    print(&done, &totals);
    Ok(conclude(&done, Vec::new()))
}

/// Which runs `test-all` consists of.
#[derive(Debug, Clone, Args)]
pub(super) struct Matrix {
    /// Workloads, separated by commas.
    #[arg(
        long,
        short,
        value_delimiter = ',',
        default_value = "queue,log,offset,fifo,txn,delay,rebalance,idem,broadcast,meta"
    )]
    workload: Vec<String>,
    /// What breaks; each package or class has runs of its own. All packages unless given.
    #[arg(long, short, value_delimiter = ',')]
    nemesis: Vec<String>,
    /// Runs of each pair, each with a seed of its own.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Seconds of work under faults, of each run.
    #[arg(long, default_value_t = 20)]
    time: u64,
    #[arg(long, default_value_t = 3)]
    nodes: u8,
}

/// Every workload under every package of faults.
pub(super) fn test_all(campaign: &Campaign, matrix: &Matrix) -> Result<u8> {
    let mut random = seeds(campaign);
    let mut packages: Vec<String> =
        Class::ALL.iter().map(|class| class.package().to_owned()).collect();
    packages.retain(|package| package != Class::Upgrade.package());
    packages.dedup();
    let nemeses = if matrix.nemesis.is_empty() { &packages } else { &matrix.nemesis };
    let mut done = Vec::new();
    for (workload, nemesis) in
        matrix.workload.iter().flat_map(|w| nemeses.iter().map(move |n| (w, n)))
    {
        for _ in 0..matrix.count {
            let leg = Leg {
                workload: workload.clone(),
                nemesis: nemesis.clone(),
                nodes: matrix.nodes,
                seconds: matrix.time,
                seed: random.random_range(0..1 << 32),
            };
            let until = Instant::now() + Duration::from_secs(matrix.time + 2 * BESIDE);
            done.push(run(campaign, leg, until)?);
        }
    }
    print(&done, &Totals::of(&done));
    Ok(conclude(&done, Vec::new()))
}

pub(super) fn seeds(campaign: &Campaign) -> StdRng {
    let seed = campaign.seed.unwrap_or_else(|| rand::rng().random_range(0..1 << 32));
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

pub(super) fn run(campaign: &Campaign, leg: Leg, until: Instant) -> Result<Done> {
    let store = campaign.store.join(format!("{}-{}", leg.workload, leg.seed));
    fs::create_dir_all(&store).with_context(|| store.display().to_string())?;
    let log = store.join("jepsen.log");
    let output = File::create(&log)?;
    let began = Instant::now();
    let limit = until.saturating_duration_since(began).as_secs().max(1);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--workload", &leg.workload, "--nemesis", &leg.nemesis]);
    let mut add = |flag: &str, value: String| {
        command.arg(flag).arg(value);
    };
    add("--nodes", leg.nodes.to_string());
    add("--time", leg.seconds.to_string());
    add("--rate", campaign.rate.to_string());
    add("--seed", leg.seed.to_string());
    add("--nemesis-interval", "0.5".into());
    add("--time-limit", limit.to_string());
    add("--store", store.display().to_string());
    add("--disks", campaign.disks.display().to_string());
    if let Some(bin) = &campaign.bin {
        add("--bin", bin.display().to_string());
    }
    let status = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("this program, once more")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(HARNESS);
    let results = fs::read_to_string(store.join("latest/results.json")).ok();
    let judgement = results.and_then(|text| serde_json::from_str(&text).ok());
    let timing = fs::read_to_string(store.join("latest").join(TIMING)).ok();
    let timing: Timing =
        timing.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let (took, judged_ms) = (began.elapsed(), timing.judged_ms);
    let done = Done { leg, code, took, judgement, judged_ms, log };
    println!("{}", done.line());
    if done.code != 0 {
        println!("{}", tail(&done.log));
    }
    Ok(done)
}

impl Done {
    fn line(&self) -> String {
        let verdict = match self.code {
            0 => "valid",
            1 => "INVALID",
            2 => "unknown",
            _ => "harness failure",
        };
        format!("{} seed {}: {verdict}, {:.0?}", self.leg.workload, self.leg.seed, self.took)
    }

    fn count(&self, what: &str) -> u64 {
        let counts = self.judgement.as_ref().map(|judgement| &judgement.coverage.counts);
        counts.and_then(|counts| counts.get(what)).copied().unwrap_or(0)
    }
}

/// The end of a log.
fn tail(log: &Path) -> String {
    const LINES: usize = 25;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    last.iter().map(|line| format!("    {line}\n")).collect()
}

/// What the runs of a campaign did together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    pub operations: u64,
    /// Installed faults of each class.
    pub faults: BTreeMap<String, u64>,
    pub leader_changes: u64,
    /// Nodes whose power failed.
    pub power_cycles: u64,
    pub lost_bytes: u64,
    pub membership_changes: u64,
    pub snapshots: u64,
    pub segment_rolls: u64,
    /// To judge all of them.
    pub judged_ms: u64,
    pub anomalies: u64,
    pub harness_failures: u64,
}

impl Totals {
    pub(super) fn of(done: &[Done]) -> Self {
        let sum = |what: &str| done.iter().map(|run| run.count(what)).sum::<u64>();
        let mut totals = Self {
            operations: sum("operations"),
            leader_changes: sum("leader changes"),
            lost_bytes: sum("bytes that power losses took"),
            membership_changes: sum("membership changes"),
            snapshots: sum("snapshots built"),
            segment_rolls: sum("segment rolls"),
            judged_ms: done.iter().map(|run| run.judged_ms).sum(),
            harness_failures: done.iter().filter(|run| run.judgement.is_none()).count() as u64,
            ..Self::default()
        };
        for judgement in done.iter().filter_map(|run| run.judgement.as_ref()) {
            for recovery in &judgement.recoveries {
                *totals.faults.entry(recovery.class.clone()).or_default() += 1;
                if recovery.class.starts_with("power") {
                    totals.power_cycles += recovery.targets.len() as u64;
                }
            }
            if judgement.valid == Validity::Invalid {
                totals.anomalies += judgement.kinds().values().sum::<u64>();
            }
        }
        totals
    }
}

/// The figures of all runs, for people.
pub(super) fn print(done: &[Done], totals: &Totals) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "run",
        "operations",
        "faults",
        "leaders",
        "lost bytes",
        "longest gap",
        "judged",
        "verdict",
    ]);
    for run in done {
        let recoveries = run.judgement.as_ref().map_or(&[][..], |j| j.recoveries.as_slice());
        let gap = recoveries.iter().map(|r| r.gap_ms).max().unwrap_or(0);
        let verdict = run.judgement.as_ref().map_or_else(
            || String::from("harness failure"),
            |judgement| judgement.valid.to_string(),
        );
        table.add_row([
            format!("{} x{}", run.leg.workload, run.leg.nodes),
            run.count("operations").to_string(),
            recoveries.len().to_string(),
            run.count("leader changes").to_string(),
            run.count("bytes that power losses took").to_string(),
            format!("{gap} ms"),
            format!("{} ms", run.judged_ms),
            verdict,
        ]);
    }
    println!("{table}");
    let all: Vec<String> =
        totals.faults.iter().map(|(class, count)| format!("{class} {count}")).collect();
    println!("faults: {}", all.join(", "));
    println!("anomalies: {}", totals.anomalies);
}

/// The last line, and the exit code; `others` are the codes of what was no run.
pub(super) fn conclude(done: &[Done], others: Vec<u8>) -> u8 {
    let mut codes = others;
    codes.extend(done.iter().map(|run| run.code));
    let passed = codes.iter().filter(|code| **code == 0).count();
    println!("{passed} passed, {} failed, 0 skipped", codes.len() - passed);
    worst(&codes)
}
