//! `jepsen run` against real clusters: what it records, what it leaves behind, how it ends.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jepsen::cli::RunDir;
use jepsen::history::Observation;
use jepsen::judge::{Validity, judge};
use jepsen::nemesis::Schedule;
use tests::binaries::program;
use tests::process::run_to_end;
use tests::{eventually, scratch::Scratch};

/// A short run with everything around it, on a machine that does other things too.
const BUDGET: Duration = Duration::from_secs(150);

fn arguments<'a>(more: &[&'a str], store: &'a str) -> Vec<&'a str> {
    let common = ["run", "--time", "8", "--rate", "200", "--store", store];
    common.into_iter().chain(more.iter().copied()).collect()
}

/// A leader that is killed under load loses nothing; the run is judged from a record that can be
/// judged again, and its faults can be made again from its schedule.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_breaks_a_cluster_records_it_and_judges_it() {
    let scratch = Scratch::new();
    let store = scratch.path().join("store");
    let at = store.display().to_string();
    let asked = arguments(&["--workload", "log+offset", "--nemesis", "kill", "--seed", "11"], &at);
    let (status, said) = run_to_end(&program("jepsen"), &asked, scratch.path(), BUDGET).await;
    let run = RunDir::open(&store.join("latest")).expect("a record");
    let judgement = judge(&run.plan, &run.record);
    assert!(judgement.kinds().is_empty(), "{judgement}\n{said}");
    let unknown = judgement.valid == Validity::Unknown;
    // Times of a busy machine prove nothing, and nothing else may be in doubt.
    let busy = judgement.doubts().all(|(checker, _)| checker == "availability");
    assert!(!unknown || busy, "{judgement}\n{said}");
    assert_eq!(status.code(), Some(if unknown { 2 } else { 0 }), "{said}");

    let schedule = fs::read_to_string(store.join("latest/schedule.json")).expect("a schedule");
    let schedule: Schedule = serde_json::from_str(&schedule).expect("a schedule");
    assert!(!schedule.steps.is_empty());
    let faults = run.record.faults.iter().map(|seen| seen.what.fault).max().unwrap_or(0);
    assert_eq!(faults, schedule.steps.len() as u64, "each step is in the record");
    for key in 0..4 {
        assert!(run.record.drained_key(key), "queue {key} was read from every replica");
    }
    let digests = run
        .record
        .observations
        .iter()
        .filter(|seen| matches!(seen.what, Observation::Digest { .. }));
    assert_eq!(digests.count(), 3);
    assert!(store.join("latest/report.html").exists());
}

/// A scenario comes about, and the record says so; the leader that was cut off was read from.
#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_is_played_and_says_whether_it_came_about() {
    let scratch = Scratch::new();
    let store = scratch.path().join("store");
    let at = store.display().to_string();
    let asked = ["--workload", "log+offset", "--nemesis", "scenario:reconf-storm", "--seed", "5"];
    let asked = arguments(&asked, &at);
    let (status, said) = run_to_end(&program("jepsen"), &asked, scratch.path(), BUDGET).await;
    let run = RunDir::open(&store.join("latest")).expect("a record");
    let judgement = judge(&run.plan, &run.record);
    assert!(judgement.kinds().is_empty(), "{judgement}\n{said}");
    assert_ne!(status.code(), Some(3), "{said}");
    let counts = &judgement.coverage.counts;
    assert_eq!(counts.get("scenario:reconf-storm"), Some(&1), "{counts:?}\n{said}");
    assert!(12 <= counts["membership changes"] && 6 <= counts["snapshots built"], "{counts:?}");
}

/// Nobody is left in the belief that something was tested that this run cannot do.
#[tokio::test]
async fn a_fault_that_cannot_be_made_is_unknown_and_not_skipped() {
    let scratch = Scratch::new();
    let store = scratch.path().join("store").display().to_string();
    let asked = arguments(&["--workload", "log", "--nemesis", "kill,upgrade"], &store);
    let (status, said) = run_to_end(&program("jepsen"), &asked, scratch.path(), BUDGET).await;
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("--prev-bin") && said.contains("0 passed, 1 failed"), "{said}");
}

/// A fault that five nodes are needed for, a workload that there is none of: refused, at once.
#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_starts() {
    let scratch = Scratch::new();
    let store = scratch.path().join("store").display().to_string();
    for (asked, word) in [
        (["--workload", "log", "--nemesis", "part-ring"], "five nodes"),
        (["--workload", "nothing", "--nemesis", "kill"], "no workload"),
        (["--workload", "log", "--nemesis", "earthquake"], "no fault"),
        (["--workload", "log", "--nemesis", "scenario:earthquake"], "no scenario"),
        (["--workload", "log", "--nemesis", "scenario:member-part-kill"], "5 nodes"),
        (["--workload", "log", "--nemesis", "kill,scenario:fsyncgate"], "without other faults"),
    ] {
        let asked = arguments(&asked, &store);
        let (status, said) = run_to_end(&program("jepsen"), &asked, scratch.path(), BUDGET).await;
        assert_eq!(status.code(), Some(64), "{said}");
        assert!(said.contains(word), "{said}");
    }
    assert!(!Path::new(&store).exists());
}

/// Processes whose command line holds `word`.
fn processes(word: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("processes").filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    all.filter(|line| line.contains(word)).collect()
}

/// A run that is killed takes its processes with it, and what is left of its disks is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_leaves_nothing_that_runs() {
    let scratch = Scratch::new();
    let disks = scratch.path().join("disks");
    fs::create_dir(&disks).expect("a directory");
    let (disks_at, store) =
        (disks.display().to_string(), scratch.path().join("store").display().to_string());
    let asked =
        arguments(&["--workload", "log", "--nemesis", "none", "--disks", &disks_at], &store);
    let mut run = Command::new(program("jepsen"))
        .args(asked)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    eventually("three brokers run", BUDGET, async || {
        let found = processes(&disks_at);
        let brokers = found.iter().filter(|line| line.contains("--node-id")).count();
        if brokers == 3 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    run.kill().expect("it can be killed");
    run.wait().expect("it is dead");
    eventually("nobody is left", Duration::from_secs(20), async || {
        let found = processes(&disks_at);
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(jepsen::run::stale(&disks).expect("a list").len(), 1);
}
