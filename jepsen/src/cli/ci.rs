//! `jepsen ci`: everything that has to hold before a change is good, in five minutes.
//!
//! Five composite runs against real clusters take about 140 s; then comes each of [`PARTS`], for
//! which there is a minute.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::RngExt;

use super::campaign::{Campaign, Done, Leg, Totals, conclude, print, run, seeds};
use super::selftest;
use crate::selftest::Place;

/// Nothing is wrong, and nothing is shown either.
const UNKNOWN: u8 = 2;
/// Faults of one run, in seconds.
const SECONDS: u64 = 20;
/// The hard end of all.
const LIMIT: Duration = Duration::from_secs(330);

/// Something that `ci` does beside its runs: its name, and what returns its exit code.
type Part = (&'static str, fn(&Campaign) -> Result<u8>);

/// What is done after the runs.
const PARTS: &[Part] = &[("selftest", sown)];
/// Seeds that are tried until a sown bug is found.
const SOWN_SEEDS: [u64; 2] = [1, 2];

/// The suite finds bugs that were sown.
fn sown(campaign: &Campaign) -> Result<u8> {
    selftest::fast(&Place {
        bin: campaign.bin.clone(),
        store: campaign.store.join("selftest"),
        disks: campaign.disks.clone(),
        jobs: 2,
        seeds: SOWN_SEEDS.to_vec(),
        controls: false,
    })
}

/// The composite runs: together they have all workloads, and faults of every package that five
/// minutes have room for.
const LEGS: [(&str, &str, u8); 5] = [
    ("log+offset", "kill,pause,part-leader,power,power-all,member-replace,backup", 3),
    ("queue+meta", "kill,part-ring,part-bridge,power,ns-kill,member-remove,bitflip-log,backup", 5),
    ("fifo+idem", "transfer,kill-all,part-one,enospc,power,bitflip-state,member-demote,backup", 3),
    ("txn+broadcast", "kill,restart,part-clients,power-all,eio-sync,fsfreeze,backup", 3),
    ("delay+rebalance", "kill,transfer,clock-bump,reset,power,member-demote,backup", 3),
];

/// What all runs together have to reach; less is `unknown`.
struct Floors {
    operations: u64,
    faults: u64,
    classes: u64,
    leader_changes: u64,
    power_cycles: u64,
    lost_bytes: u64,
    membership_changes: u64,
    snapshots: u64,
    /// At most: a checker that takes for ever cannot fail.
    judged_ms: u64,
}

const FLOORS: Floors = Floors {
    operations: 150_000,
    faults: 50,
    classes: 12,
    leader_changes: 15,
    power_cycles: 8,
    lost_bytes: 1,
    membership_changes: 5,
    snapshots: 20,
    judged_ms: 10_000,
};

impl Floors {
    /// One line per figure, and whether it is enough.
    fn compare(&self, totals: &Totals) -> Vec<(String, bool)> {
        let faults = totals.faults.values().sum();
        let at_least = [
            ("operations", totals.operations, self.operations),
            ("faults", faults, self.faults),
            ("classes of faults", totals.faults.len() as u64, self.classes),
            ("leader changes", totals.leader_changes, self.leader_changes),
            ("power cycles", totals.power_cycles, self.power_cycles),
            ("bytes that power losses took", totals.lost_bytes, self.lost_bytes),
            ("membership changes", totals.membership_changes, self.membership_changes),
            ("snapshots", totals.snapshots, self.snapshots),
        ];
        let least = |(what, got, want): (&str, u64, u64)| {
            (format!("{what}: {got}, at least {want}"), want <= got)
        };
        let mut lines: Vec<(String, bool)> = at_least.map(least).into();
        let (got, most) = (totals.judged_ms, self.judged_ms);
        lines.push((format!("ms for all checkers: {got}, at most {most}"), got <= most));
        lines
    }
}

pub(super) fn ci(campaign: &Campaign) -> Result<u8> {
    let (began, until) = (Instant::now(), Instant::now() + LIMIT);
    let mut random = seeds(campaign);
    let mut codes = Vec::new();
    let legs = LEGS.map(|(workload, nemesis, nodes)| Leg {
        workload: workload.to_owned(),
        nemesis: nemesis.to_owned(),
        nodes,
        seconds: SECONDS,
        seed: random.random_range(0..1 << 32),
    });
    let mut done: Vec<Done> = Vec::new();
    for leg in legs {
        done.push(run(campaign, leg, until)?);
    }
    let totals = Totals::of(&done);
    print(&done, &totals);
    let results = serde_json::to_string_pretty(&totals)?;
    let path = campaign.store.join("ci.json");
    fs::write(&path, results).with_context(|| path.display().to_string())?;
    super::index::run(&campaign.store)?;
    codes.push(coverage(&totals));
    for (name, part) in PARTS {
        let since = Instant::now();
        let code = part(campaign).with_context(|| (*name).to_owned())?;
        println!("{name}: exit code {code}, {:.0?}", since.elapsed());
        codes.push(code);
    }
    println!("{:.0?} in all", began.elapsed());
    Ok(conclude(&done, codes))
}

/// Whether enough happened for this to prove anything.
fn coverage(totals: &Totals) -> u8 {
    let lines = FLOORS.compare(totals);
    for (line, enough) in &lines {
        println!("{line}{}", if *enough { "" } else { ": too little to prove anything" });
    }
    if lines.iter().all(|(_, enough)| *enough) { 0 } else { UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Class;

    fn enough() -> Totals {
        let classes = Class::ALL.iter().take(12).map(|class| (class.name().to_owned(), 5));
        Totals {
            operations: 150_000,
            faults: classes.collect(),
            leader_changes: 15,
            power_cycles: 8,
            lost_bytes: 1,
            membership_changes: 5,
            snapshots: 20,
            judged_ms: 10_000,
            ..Totals::default()
        }
    }

    #[test]
    fn too_little_of_anything_proves_nothing() {
        assert_eq!(coverage(&enough()), 0);
        let less: [fn(&mut Totals); 9] = [
            |totals| totals.operations -= 1,
            |totals| totals.faults.values_mut().for_each(|count| *count = 4),
            |totals| drop(totals.faults.pop_first()),
            |totals| totals.leader_changes -= 1,
            |totals| totals.power_cycles -= 1,
            |totals| totals.lost_bytes = 0,
            |totals| totals.membership_changes -= 1,
            |totals| totals.snapshots -= 1,
            |totals| totals.judged_ms += 1,
        ];
        for less in less {
            let mut totals = enough();
            less(&mut totals);
            assert_eq!(coverage(&totals), UNKNOWN, "{totals:?}");
        }
    }

    #[test]
    fn the_runs_name_faults_that_there_are_and_have_every_workload() {
        let classes = |(_, nemesis, _): &(&str, &'static str, u8)| nemesis.split(',');
        for word in LEGS.iter().flat_map(classes) {
            assert!(!Class::of(word).is_empty(), "{word}");
        }
        let workloads: Vec<&str> = LEGS.iter().flat_map(|leg| leg.0.split('+')).collect();
        assert_eq!(workloads.len(), 10);
    }
}
