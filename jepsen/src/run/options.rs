//! What a run is asked to do.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::history::Workload;
use crate::nemesis::{Class, SCENARIO, Scenario};

/// A run against a real cluster.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What clients do: queue, log, offset, fifo, txn, delay, rebalance, idem, broadcast, meta, or
    /// several of them: log+offset.
    #[arg(long, short, default_value = "log")]
    pub workload: String,
    /// What breaks: classes or packages of `jepsen nemeses`, separated by commas; `none`, `all`;
    /// or scenarios, `scenario:NAME`, which are played one after the other.
    #[arg(long, short, default_value = "kill")]
    pub nemesis: String,
    /// Seconds of work under faults.
    #[arg(long, default_value_t = 30)]
    pub time: u64,
    /// Requests per second that clients aim at.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    #[arg(long, default_value_t = 3)]
    pub nodes: u8,
    /// Decides what clients ask and what breaks when. Chosen and told if absent.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Seconds between the end of a fault and the next, on average.
    #[arg(long, default_value_t = 1.0)]
    pub nemesis_interval: f64,
    /// Faults at a time, where a majority stays whole.
    #[arg(long, default_value_t = 1)]
    pub lanes: u64,
    /// The schedule of an earlier run: these faults, whatever the seed says.
    #[arg(long)]
    pub schedule: Option<PathBuf>,
    /// Directory of `broker` and `namesrv`; that of this program unless given.
    #[arg(long)]
    pub bin: Option<PathBuf>,
    /// Directory of the programs that nodes begin with; `upgrade` takes them to those of --bin.
    #[arg(long)]
    pub prev_bin: Option<PathBuf>,
    /// Where runs are kept.
    #[arg(long, default_value = "store")]
    pub store: PathBuf,
    /// Where disks of nodes are made; memory unless given.
    #[arg(long, default_value = "/dev/shm")]
    pub disks: PathBuf,
    /// Small files, so that the log rolls and purges all the time.
    #[arg(long, value_parser = ["tight", "prod"], default_value = "tight")]
    pub profile: String,
    /// Further keys of the brokers' configuration: KEY=VALUE.
    #[arg(long)]
    pub set: Vec<String>,
    /// Seconds for the last reads after the faults.
    #[arg(long, default_value_t = 60)]
    pub final_time_limit: u64,
    /// Seconds after which the whole run is given up.
    #[arg(long, default_value_t = 0)]
    pub time_limit: u64,
    /// How much has to have happened: WHAT=COUNT, of faults, leader-changes, lost-bytes.
    #[arg(long)]
    pub want: Vec<String>,
}

impl Options {
    /// The workloads by their names.
    pub fn workloads(&self) -> Result<Vec<Workload>> {
        let all = [
            ("queue", Workload::Queue),
            ("log", Workload::Log),
            ("offset", Workload::Offset),
            ("fifo", Workload::Fifo),
            ("txn", Workload::Txn),
            ("delay", Workload::Delay),
            ("rebalance", Workload::Rebalance),
            ("idem", Workload::Idem),
            ("broadcast", Workload::Broadcast),
            ("meta", Workload::Meta),
        ];
        if self.workload == "mix" {
            return Ok(all.iter().map(|(_, workload)| *workload).collect());
        }
        let of = |word: &str| {
            let found = all.iter().find(|(name, _)| *name == word);
            match found {
                Some((_, workload)) => Ok(*workload),
                None => bail!("no workload is called {word}; there are {}, mix", names(&all)),
            }
        };
        self.workload.split('+').map(of).collect()
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.nemesis.split(',').filter(|word| *word != "none" && !word.is_empty())
    }

    /// The scenarios by their names, in this order.
    pub fn scenarios(&self) -> Result<Vec<Scenario>> {
        let names = self.words().filter_map(|word| word.strip_prefix(SCENARIO));
        let mut scenarios = Vec::new();
        for name in names {
            let Some(scenario) = Scenario::of(name) else {
                let all: Vec<&str> = Scenario::ALL.iter().map(|one| one.name()).collect();
                bail!("no scenario is called {name}; there are {}", all.join(", "));
            };
            if self.nodes < scenario.nodes() {
                bail!("{SCENARIO}{name} takes {} nodes", scenario.nodes());
            }
            if scenario.cuts_log() && self.workload != "meta" {
                bail!("{SCENARIO}{name} removes what clients wrote: play it with --workload meta");
            }
            scenarios.push(scenario);
        }
        if !scenarios.is_empty() && self.words().count() != scenarios.len() {
            bail!("scenarios are played without other faults beside them");
        }
        Ok(scenarios)
    }

    /// The classes that the machine has to be able to make.
    pub fn needed(&self) -> Result<Vec<Class>> {
        let mut classes = self.classes()?;
        classes.extend(self.scenarios()?.iter().flat_map(|scenario| scenario.classes()));
        Ok(classes)
    }

    /// The classes of faults by their names or packages.
    pub fn classes(&self) -> Result<Vec<Class>> {
        let mut classes = Vec::new();
        for word in self.words().filter(|word| !word.starts_with(SCENARIO)) {
            let found = match word {
                "all" => Class::ALL.to_vec(),
                word => Class::of(word),
            };
            // Without another program there is nothing to upgrade; who names it is told so.
            let found: Vec<Class> = match word {
                "all" if self.prev_bin.is_none() => {
                    found.into_iter().filter(|class| *class != Class::Upgrade).collect()
                }
                _ => found,
            };
            if found.is_empty() {
                let all: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
                bail!("no fault is called {word}; there are {}", all.join(", "));
            }
            // Of a package only those that make sense with so few nodes; by name, all.
            let sensible =
                |class: &Class| class.name() == word || 5 <= self.nodes || !class.needs_five();
            classes.extend(found.into_iter().filter(sensible));
        }
        classes.sort_unstable();
        classes.dedup();
        if let Some(class) = classes.iter().find(|c| c.needs_five() && self.nodes < 5) {
            bail!("{} takes five nodes", class.name());
        }
        Ok(classes)
    }
}

fn names(all: &[(&str, Workload)]) -> String {
    all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
