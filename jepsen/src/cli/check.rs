//! `jepsen check`: judges recorded runs again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{HARNESS, RunDir, USAGE};
use crate::judge::{CHECKERS, Judgement, Slice, Validity, judge_with, slice};
use crate::report;

pub(super) fn run(dirs: &[PathBuf], only: &[String], json: bool, dry_run: bool) -> Result<u8> {
    if let Some(stranger) = only.iter().find(|name| !CHECKERS.contains(&name.as_str())) {
        eprintln!("jepsen: no checker is called {stranger}; there are {}", CHECKERS.join(", "));
        return Ok(USAGE);
    }
    let mut codes = Vec::new();
    for dir in dirs {
        match check(dir, only, dry_run) {
            Ok(judgement) if json => {
                println!("{}", serde_json::to_string(&judgement)?);
                codes.push(code(judgement.valid));
            }
            Ok(judgement) => {
                println!("{judgement}");
                codes.push(code(judgement.valid));
            }
            Err(error) => {
                eprintln!("jepsen: {}: {error:#}", dir.display());
                codes.push(HARNESS);
            }
        }
    }
    let passed = codes.iter().filter(|code| **code == 0).count();
    let failed = codes.len() - passed;
    if !json {
        println!("{passed} passed, {failed} failed, 0 skipped");
    }
    Ok(worst(&codes))
}

pub(super) fn code(valid: Validity) -> u8 {
    match valid {
        Validity::Valid => 0,
        Validity::Invalid => 1,
        Validity::Unknown => 2,
    }
}

/// An anomaly is worse than a broken record, and that is worse than a doubt.
pub(super) fn worst(codes: &[u8]) -> u8 {
    [1, HARNESS, 2].into_iter().find(|code| codes.contains(code)).unwrap_or(0)
}

pub(super) fn check(dir: &Path, only: &[String], dry_run: bool) -> Result<Judgement> {
    let run = RunDir::open(dir)?;
    let judgement = judge_with(&run.plan, &run.record, only);
    if dry_run {
        return Ok(judgement);
    }
    let mut slices: Vec<Slice> = Vec::new();
    if judgement.examples().next().is_some() {
        let events = run.events()?;
        slices.extend(judgement.examples().map(|anomaly| slice(&events, anomaly)));
    }
    let results = serde_json::to_string_pretty(&judgement)?;
    write(&dir.join("results.json"), &results)?;
    let page = report::page(&run.plan, &run.record, &judgement, &slices);
    write(&dir.join("report.html"), &page)?;
    let anomalies = dir.join("anomalies");
    if anomalies.exists() {
        // What an earlier judgement found says nothing about this one.
        fs::remove_dir_all(&anomalies).with_context(|| anomalies.display().to_string())?;
    }
    if !slices.is_empty() {
        fs::create_dir(&anomalies).with_context(|| anomalies.display().to_string())?;
    }
    for (nth, slice) in slices.iter().enumerate() {
        let name = anomalies.join(format!("{}-{nth}.json", slice.anomaly.kind));
        write(&name, &serde_json::to_string_pretty(slice)?)?;
    }
    Ok(judgement)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::worst;

    #[test]
    fn the_worst_run_decides() {
        assert_eq!(worst(&[0, 0]), 0);
        assert_eq!(worst(&[0, 2]), 2);
        assert_eq!(worst(&[2, 3, 0]), 3);
        assert_eq!(worst(&[3, 1, 2]), 1);
    }
}
