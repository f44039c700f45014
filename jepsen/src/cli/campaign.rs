//! Several runs in a row, and what they prove together: `jepsen ci` and `jepsen soak`.

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

use super::HARNESS;
use super::check::worst;
use crate::judge::{Judgement, Validity};
use crate::nemesis::Class;

/// Beside its faults, a run starts a cluster, reads everything to the end and judges.
const BESIDE: u64 = 45;
const UNKNOWN: u8 = 2;

/// What runs of a campaign share.
#[derive(Debug, Clone, Args)]
pub(super) struct Campaign {
    /// Decides the seeds of all runs. Chosen and told if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Directory of `broker` and `namesrv`; that of this program unless given.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where runs are kept.
    #[arg(long, default_value = "store")]
    store: PathBuf,
    /// Where disks of nodes are made.
    #[arg(long, default_value = "/dev/shm")]
    disks: PathBuf,
    /// Requests per second that clients aim at.
    #[arg(long, default_value_t = 2_000)]
    rate: u64,
}

/// One run of a campaign.
#[derive(Debug, Clone)]
struct Leg {
    workload: &'static str,
    nemesis: String,
    nodes: u8,
    seconds: u64,
    seed: u64,
}

/// What came of it.
struct Done {
    leg: Leg,
    code: u8,
    took: Duration,
    judgement: Option<Judgement>,
    log: PathBuf,
}

/// The composite runs: together they have all workloads but one, and faults of most classes.
const LEGS: [(&str, &str, u8); 5] = [
    ("log+offset", "kill,pause,part-leader,power,power-all,fsfreeze", 3),
    ("queue+meta", "kill,part-ring,part-bridge,part-halves,power,ns-kill", 5),
    ("fifo+idem", "transfer,kill-all,loss,part-one,enospc,power", 3),
    ("txn+broadcast", "kill,restart,part-clients,part-one-way,power-all,ns-pause", 3),
    ("delay+rebalance", "kill,transfer,clock-bump,clock-strobe,reset,cpu", 3),
];

/// What a campaign has to reach; less is `unknown`.
struct Floors {
    operations: u64,
    faults: u64,
    classes: u64,
    leader_changes: u64,
    power_cycles: u64,
}

const CI: Floors =
    Floors { operations: 150_000, faults: 50, classes: 12, leader_changes: 15, power_cycles: 8 };
/// Faults of one leg of `ci`, in seconds.
const CI_SECONDS: u64 = 25;
/// The hard end of `ci`.
const CI_LIMIT: Duration = Duration::from_secs(330);
/// Faults of one leg of `soak`, in seconds.
const SOAK_SECONDS: u64 = 120;

pub(super) fn ci(campaign: &Campaign) -> Result<u8> {
    let mut random = seeds(campaign);
    let legs = LEGS.map(|(workload, nemesis, nodes)| Leg {
        workload,
        nemesis: nemesis.to_owned(),
        nodes,
        seconds: CI_SECONDS,
        seed: random.random_range(0..1 << 32),
    });
    let until = Instant::now() + CI_LIMIT;
    let mut done = Vec::new();
    for leg in legs {
        done.push(run(campaign, leg, until)?);
    }
    conclude(&done, Some(&CI))
}

/// Other faults for the same workloads, until the time is over.
pub(super) fn soak(campaign: &Campaign, minutes: u64) -> Result<u8> {
    let mut random = seeds(campaign);
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let mut done = Vec::new();
    for (workload, _, nodes) in LEGS.into_iter().cycle() {
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        let Some(seconds) = left.checked_sub(BESIDE).map(|left| left.min(SOAK_SECONDS)) else {
            break;
        };
        if seconds < CI_SECONDS && !done.is_empty() {
            break;
        }
        let possible = Class::ALL.iter().filter(|class| 5 <= nodes || !class.needs_five());
        let mut names: Vec<&str> = possible.map(|class| class.name()).collect();
        let wanted = random.random_range(4..9);
        while wanted < names.len() {
            names.swap_remove(random.random_range(0..names.len()));
        }
        let leg = Leg {
            workload,
            nemesis: names.join(","),
            nodes,
            seconds,
            seed: random.random_range(0..1 << 32),
        };
        done.push(run(campaign, leg, until + Duration::from_secs(BESIDE))?);
    }
    conclude(&done, None)
}

fn seeds(campaign: &Campaign) -> StdRng {
    let seed = campaign.seed.unwrap_or_else(|| rand::rng().random_range(0..1 << 32));
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn run(campaign: &Campaign, leg: Leg, until: Instant) -> Result<Done> {
    let store = campaign.store.join(format!("{}-{}", leg.workload, leg.seed));
    fs::create_dir_all(&store).with_context(|| store.display().to_string())?;
    let log = store.join("jepsen.log");
    let output = File::create(&log)?;
    let began = Instant::now();
    let limit = until.saturating_duration_since(began).as_secs().max(1);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--workload", leg.workload, "--nemesis", &leg.nemesis]);
    let mut add = |flag: &str, value: String| {
        command.arg(flag).arg(value);
    };
    add("--nodes", leg.nodes.to_string());
    add("--time", leg.seconds.to_string());
    add("--rate", campaign.rate.to_string());
    add("--seed", leg.seed.to_string());
    add("--nemesis-interval", "0.8".into());
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
    let done = Done { leg, code, took: began.elapsed(), judgement, log };
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

fn conclude(done: &[Done], floors: Option<&Floors>) -> Result<u8> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "run",
        "operations",
        "faults",
        "leaders",
        "lost bytes",
        "longest gap",
        "verdict",
    ]);
    let mut classes: BTreeMap<String, u64> = BTreeMap::new();
    let mut cycles = 0;
    for run in done {
        let recoveries = run.judgement.as_ref().map_or(&[][..], |j| j.recoveries.as_slice());
        for recovery in recoveries {
            *classes.entry(recovery.class.clone()).or_default() += 1;
            if recovery.class.starts_with("power") {
                cycles += recovery.targets.len() as u64;
            }
        }
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
            verdict,
        ]);
    }
    println!("{table}");
    let sum = |what: &str| done.iter().map(|run| run.count(what)).sum::<u64>();
    let faults: u64 = classes.values().sum();
    let all: Vec<String> =
        classes.iter().map(|(class, count)| format!("{class} {count}")).collect();
    println!("faults: {}", all.join(", "));
    let mut codes: Vec<u8> = done.iter().map(|run| run.code).collect();
    if let Some(floors) = floors {
        let reached = [
            ("operations", sum("operations"), floors.operations),
            ("faults", faults, floors.faults),
            ("classes of faults", classes.len() as u64, floors.classes),
            ("leader changes", sum("leader changes"), floors.leader_changes),
            ("power cycles", cycles, floors.power_cycles),
            ("bytes that power losses took", sum("bytes that power losses took"), 1),
        ];
        for (what, got, want) in reached {
            let enough = want <= got;
            println!("{what}: {got}{}", if enough { "" } else { ", which is too little" });
            if !enough {
                println!("  {want} are needed for this to prove anything");
                codes.push(UNKNOWN);
            }
        }
    }
    let anomalies: u64 = done
        .iter()
        .filter_map(|run| run.judgement.as_ref())
        .filter(|judgement| judgement.valid == Validity::Invalid)
        .map(|judgement| judgement.kinds().values().sum::<u64>())
        .sum();
    println!("anomalies: {anomalies}");
    let passed = done.iter().filter(|run| run.code == 0).count();
    println!("{passed} passed, {} failed, 0 skipped", done.len() - passed);
    Ok(worst(&codes))
}
