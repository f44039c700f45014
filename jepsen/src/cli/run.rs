//! `jepsen run`: one run, judged.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::check::{check, code};
use super::{HARNESS, USAGE};
use crate::nemesis::{Class, missing};
use crate::run::{Options, RUN_ID, enter, run as record};

/// Nothing is wrong, and nothing is shown either.
const UNKNOWN: u8 = 2;

/// What is written beside the results.
pub(super) const TIMING: &str = "timing.json";

/// How long the harness itself took.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Timing {
    /// To read the record, judge it, and write the report.
    pub judged_ms: u64,
}

pub(super) fn run(mut options: Options) -> Result<u8> {
    if let Err(error) = options.workloads().and_then(|_| options.needed()) {
        eprintln!("jepsen: {error:#}");
        return Ok(USAGE);
    }
    let seed = *options.seed.get_or_insert_with(|| rand::rng().random_range(0..1 << 32));
    if let Ok(id) = std::env::var(RUN_ID) {
        return inside(&options, &id, seed);
    }
    let mut missing = missing(&options.needed()?);
    if options.classes()?.contains(&Class::Upgrade) && options.prev_bin.is_none() {
        missing.push("upgrade needs another program to begin with: --prev-bin".into());
    }
    if !missing.is_empty() {
        println!("unknown: this machine cannot make what was asked for");
        missing.iter().for_each(|why| println!("  {why}"));
        println!("0 passed, 1 failed, 0 skipped");
        return Ok(UNKNOWN);
    }
    let id = format!("{:08x}", rand::rng().random::<u32>());
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.extend(["--seed".into(), seed.to_string()]);
    // The last one counts, and an earlier one would be refused as a second.
    if std::env::args().any(|argument| argument == "--seed" || argument.starts_with("--seed=")) {
        arguments.truncate(arguments.len() - 2);
    }
    // A parent of its own, which stays for as long as the run does: the system ends the run with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(enter(&id, &options.disks, &arguments))?;
    Ok(code.unwrap_or(HARNESS))
}

fn inside(options: &Options, id: &str, seed: u64) -> Result<u8> {
    let command = format!("jepsen {}", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let recorded = runtime.block_on(async {
        tokio::select! {
            recorded = record(options, id, &command) => recorded,
            () = too_long(options.time_limit) => {
                Err(anyhow!("not done within {} s; the seed was {seed}", options.time_limit))
            }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                Err(anyhow!("interrupted; the seed was {seed}"))
            }
        }
    });
    // Clients that still wait for a node that is gone are not waited for.
    runtime.shutdown_background();
    let dir = recorded?;
    judge(&dir)
}

/// Ends when a run has taken too long; never where there is no limit.
async fn too_long(seconds: u64) {
    if seconds == 0 {
        return std::future::pending().await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
}

fn judge(dir: &Path) -> Result<u8> {
    let since = Instant::now();
    let judgement = check(dir, &[], false).with_context(|| dir.display().to_string())?;
    let took = Timing { judged_ms: u64::try_from(since.elapsed().as_millis())? };
    fs::write(dir.join(TIMING), serde_json::to_string(&took)?)?;
    println!("{judgement}");
    println!("{}", dir.join("report.html").display());
    let code = code(judgement.valid);
    println!("{} passed, {} failed, 0 skipped", u8::from(code == 0), u8::from(code != 0));
    Ok(code)
}
