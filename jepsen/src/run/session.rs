//! One run from its beginning to its verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::clock::wall_now;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::answering::answer;
use super::calibration::calibrate;
use super::drain::End;
use super::progress::Progress;
use super::shape::{Frame, INVISIBLE_MS, Pace, Shape, crowds};
use super::worker::{Stage, Worker};
use super::{Options, Recorder, Watch, inside, setup, store};
use crate::client::{Known, Wire, listen};
use crate::db::{Cluster, Layout};
use crate::history::{Limits, Observation, Plan, Wants, Workload};
use crate::nemesis::{self, Asks, Class, ClockFiles, Need, RETENTION, Scenario, Schedule, Tools};
use crate::net::{Rules, Switch};

/// Where the nodes of a run are; seen by that run alone.
const NETWORK: [u8; 3] = [10, 77, 0];
const NAMESERVERS: u8 = 2;
/// How long a cluster may take to come up.
const START: Duration = Duration::from_secs(30);
/// When a half message is asked about, and how often.
const TRANSACTION_TIMEOUT_MS: u64 = 1_000;
const CHECK_INTERVAL_MS: u64 = 2_000;
/// Successful operations of each kind that a run has to have.
const OPERATIONS: u64 = 20;

/// Reads that a leader without followers has to be asked for, where that is what a run is about.
const STALE_READS: u64 = 20;

/// Numbers of processes for those that are no clients: who reads at the end, and behind them what
/// scenarios ask by themselves.
const ROOM: u64 = 10_000;
const SCENARIOS: u64 = 9_000;

/// Runs, and returns the directory of the record. An error is one of the harness.
pub async fn run(options: &Options, run: &str, command: &str) -> Result<PathBuf> {
    let seed = options.seed.context("a seed was chosen before")?;
    let dir = store::directory(&options.store, &options.workload, &options.nemesis, seed)?;
    println!("{}: {} under {}, seed {seed}", dir.display(), options.workload, options.nemesis);
    let session = Session { options, run, command, seed, dir: dir.clone() };
    session.go().await?;
    Ok(dir)
}

struct Session<'a> {
    options: &'a Options,
    run: &'a str,
    command: &'a str,
    seed: u64,
    dir: PathBuf,
}

impl Session<'_> {
    async fn go(&self) -> Result<()> {
        let (workloads, classes) = (self.options.workloads()?, self.options.classes()?);
        let schedule = self.schedule(&classes)?;
        write(&self.dir.join("schedule.json"), &serde_json::to_string_pretty(&schedule)?)?;
        let scenarios = self.options.scenarios()?;
        let mut needed = schedule.classes();
        needed.extend(scenarios.iter().flat_map(|scenario| scenario.classes()));
        let (cluster, clocks) = self.cluster(&needed)?;
        let rules = Rules::build()?;
        let cluster = Arc::new(cluster);
        cluster.start();
        let spread = match workloads.contains(&Workload::Rebalance) {
            true => setup::spread(&cluster).await?,
            false => Vec::new(),
        };
        let ends = self.options.time * 1_000_000_000;
        let mut frame = Frame {
            broker_name: cluster.broker_name(),
            ends,
            wall_start_ms: 0,
            spread: &spread,
            crowds: crowds(self.options.rate),
        };
        let shape = Shape::of(&workloads, frame);
        setup::topics(&cluster, &shape.topics).await?;
        setup::groups(&cluster, &shape.groups).await?;

        let recorder = Arc::new(Recorder::create(&self.dir.join("history.jsonl"))?);
        frame.wall_start_ms = wall_now().0;
        let shape = Shape::of(&workloads, frame);
        let plan = self.plan(&workloads, &classes, &shape, &cluster, frame.wall_start_ms)?;
        write(&self.dir.join("test.json"), &serde_json::to_string_pretty(&plan)?)?;

        let watch = Watch::new(Arc::clone(&cluster), Arc::clone(&recorder));
        let tools = Tools {
            cluster: Arc::clone(&cluster),
            rules,
            recorder: Arc::clone(&recorder),
            watch: Arc::clone(&watch),
            clocks,
            upgrade: self.options.prev_bin.is_some().then(|| self.programs()).transpose()?,
            seed: self.seed,
            asks: Asks {
                known: Known::new(plan.keys.clone()),
                process: AtomicU64::new(shape.parts.len() as u64 + SCENARIOS),
            },
            changes: AtomicU64::new(0),
        };
        let tools = Arc::new(tools);
        let looking = tokio::spawn(Arc::clone(&watch).look());
        let over = Arc::new(AtomicBool::new(false));
        let calibration = Arc::clone(&over);
        let calibration = tokio::spawn(async move { calibrate(&calibration).await });
        ensure!(watch.ready(START).await, "the cluster was not ready within {START:?}");

        let clients = self.clients(shape, &plan, &cluster, &recorder);
        let faults = async {
            let began = Instant::now();
            let done = match scenarios.is_empty() {
                true => nemesis::run(&tools, &schedule).await,
                false => nemesis::play(&tools, &scenarios).await,
            };
            let rest = Duration::from_secs(self.options.time).saturating_sub(began.elapsed());
            tokio::time::sleep(rest).await;
            done
        };
        let broken = faults.await;
        println!("{}: {} operations, draining", self.run, clients.progress.operations());
        self.end(&clients, &plan, &cluster, &recorder, &watch).await?;
        let count = tools.changes.load(Ordering::Relaxed);
        recorder.observe(Observation::Count { what: "membership_changes".into(), count });
        over.store(true, Ordering::Relaxed);
        recorder.observe(Observation::Calibration { p99_us: calibration.await? });
        clients.stop().await?;
        watch.finish();
        looking.await?;
        recorder.finish()?;
        broken.context("a fault could not be made")
    }

    fn schedule(&self, classes: &[Class]) -> Result<Schedule> {
        let Some(path) = &self.options.schedule else {
            let interval = (self.options.nemesis_interval.clamp(0.1, 3600.0) * 1000.0).round();
            let interval = format!("{interval}").parse()?;
            let time = self.options.time * 1000;
            return Ok(Schedule::plan(self.seed, classes, time, interval, self.options.lanes));
        };
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    fn cluster(&self, classes: &[Class]) -> Result<(Cluster, Option<ClockFiles>)> {
        let scratch = inside::scratch(&self.options.disks, self.run);
        let needs = |need| classes.iter().any(|class| class.need() == need);
        let clocks = match needs(Need::Clock) {
            true => Some(ClockFiles::create(&scratch, self.options.nodes)?),
            false => None,
        };
        let environment = clocks.as_ref().map(ClockFiles::environment).transpose()?;
        let programs = match &self.options.prev_bin {
            Some(bin) => bin.clone(),
            None => self.programs()?,
        };
        let layout = Layout {
            nodes: self.options.nodes,
            nameservers: NAMESERVERS,
            programs,
            scratch,
            logs: self.dir.join("nodes"),
            own_disks: needs(Need::OwnDisk),
            settings: self.settings()?,
            environment: environment.unwrap_or_default(),
        };
        let switch = Switch::build(NETWORK)?;
        Ok((Cluster::build(&layout, switch)?, clocks))
    }

    /// Where the programs under test are.
    fn programs(&self) -> Result<PathBuf> {
        Ok(match &self.options.bin {
            Some(bin) => bin.clone(),
            None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
        })
    }

    /// The brokers' configuration.
    fn settings(&self) -> Result<Vec<(String, String)>> {
        let tight: &[(&str, &str)] = match self.options.profile.as_str() {
            "tight" => &[("log.segment_size", "9MiB")],
            _ => &[],
        };
        let always = [
            ("workers", "1".to_owned()),
            ("limits.invisible_min", format!("{INVISIBLE_MS}ms")),
            ("transaction.timeout", format!("{TRANSACTION_TIMEOUT_MS}ms")),
            ("transaction.check_interval", format!("{CHECK_INTERVAL_MS}ms")),
            ("transaction.check_max", "1000".to_owned()),
            // Everything is read again all the time, so that damage is found within the run.
            ("raft.scrub_rate", "64MiB".to_owned()),
            ("raft.scrub_interval", "2s".to_owned()),
            // Small disks would end messages early, which looks like a loss.
            ("log.disk_high", "100".to_owned()),
        ];
        let mut settings: Vec<(String, String)> =
            always.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        settings.extend(tight.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        if self.options.scenarios()?.iter().any(|scenario| scenario.cuts_log()) {
            settings.push((RETENTION.0.to_owned(), RETENTION.1.to_owned()));
        }
        for set in &self.options.set {
            let (key, value) = set.split_once('=').with_context(|| format!("--set {set}"))?;
            settings.push((key.to_owned(), value.to_owned()));
        }
        Ok(settings)
    }

    fn plan(
        &self,
        workloads: &[Workload],
        classes: &[Class],
        shape: &Shape,
        cluster: &Cluster,
        wall_start_ms: u64,
    ) -> Result<Plan> {
        Ok(Plan {
            run: format!("rj-{}", self.run),
            workloads: workloads.to_vec(),
            nemeses: classes
                .iter()
                .map(|class| class.name().to_owned())
                .chain(self.options.scenarios()?.iter().map(|scenario| scenario.proof()))
                .collect(),
            seed: self.seed,
            nodes: cluster.nodes.iter().map(|node| node.name.clone()).collect(),
            keys: shape.keys.clone(),
            groups: shape.groups.clone(),
            wall_start_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: self.command.to_owned(),
            limits: Limits {
                transaction_timeout_ms: TRANSACTION_TIMEOUT_MS,
                check_interval_ms: CHECK_INTERVAL_MS,
                rebalance_ms: 5_000,
                ..Limits::default()
            },
            wants: self.wants(workloads, classes)?,
        })
    }

    /// What has to have happened for the run to prove anything.
    fn wants(&self, workloads: &[Workload], classes: &[Class]) -> Result<Wants> {
        let mut wants = Wants::default();
        for workload in workloads {
            let names: &[&str] = match workload {
                Workload::Queue | Workload::Idem | Workload::Fifo | Workload::Delay => {
                    &["send", "receive", "ack"]
                }
                Workload::Log | Workload::Broadcast => &["send", "poll"],
                Workload::Offset => &["commit", "query"],
                Workload::Txn => &["prepare", "end", "receive"],
                Workload::Rebalance => &["assignment", "poll", "commit"],
                Workload::Meta => &["write", "read", "add", "list", "route"],
                Workload::Mix => &[],
            };
            wants.ok.extend(names.iter().map(|name| ((*name).to_owned(), OPERATIONS)));
        }
        wants.faults.extend(classes.iter().map(|class| (class.name().to_owned(), 1)));
        for scenario in self.options.scenarios()? {
            wants.counts.insert(scenario.proof(), 1);
            if scenario == Scenario::StaleLeader {
                wants.reads_of_stale_leader = STALE_READS;
            }
        }
        let changes =
            [Class::Kill, Class::KillAll, Class::PartLeader, Class::Transfer, Class::Power];
        wants.leader_changes = u64::from(classes.iter().any(|class| changes.contains(class)));
        let power = [Class::Power, Class::PowerAll];
        wants.lost_bytes = u64::from(classes.iter().any(|class| power.contains(class)));
        for want in &self.options.want {
            let (what, count) = want.split_once('=').with_context(|| format!("--want {want}"))?;
            let count = count.parse().with_context(|| format!("--want {want}"))?;
            match what {
                "leader-changes" => wants.leader_changes = count,
                "lost-bytes" => wants.lost_bytes = count,
                what => {
                    wants.counts.insert(what.replace('-', "_"), count);
                }
            }
        }
        Ok(wants)
    }

    fn clients(
        &self,
        shape: Shape,
        plan: &Plan,
        cluster: &Arc<Cluster>,
        recorder: &Arc<Recorder>,
    ) -> Clients {
        let (to, stage) = watch::channel(Stage::Busy);
        let progress = Arc::new(Progress::default());
        let known = Known::new(plan.keys.clone());
        let count = shape.parts.len() as u64;
        let shares = shape.parts.iter().map(|part| match part.pace {
            Pace::Shared(entails) => entails,
            Pace::Free | Pace::Every(_) => 0,
        });
        let rate = u32::try_from(self.options.rate.max(1)).unwrap_or(u32::MAX);
        let share = Duration::from_secs(1) * shares.sum() / rate;
        let mut random = StdRng::seed_from_u64(self.seed ^ 0x5eed);
        let mut working = JoinSet::new();
        let processes = count + ROOM;
        for (nth, part) in shape.parts.into_iter().enumerate() {
            let points = cluster.points(&format!("{}-{nth}", self.run));
            let worker = Worker {
                client: part.client,
                wire: Wire::new(&known, points, nth),
                process: nth as u64,
                processes,
                pace: match part.pace {
                    Pace::Free => None,
                    Pace::Shared(_) => Some(share),
                    Pace::Every(pace) => Some(pace),
                },
                faithful: nth % 3 == 0,
                seed: random.random(),
                recorder: Arc::clone(recorder),
                progress: Arc::clone(&progress),
                stage: stage.clone(),
            };
            working.spawn(worker.work());
        }
        let mut listening = JoinSet::new();
        if let Some(ledger) = &shape.ledger {
            let (asks, asked) = mpsc::channel(256);
            let points = cluster.points("listener");
            let rpcs = points.iter().map(|(_, rpc)| rpc.clone()).collect();
            listening.spawn(listen(rpcs, vec!["txn-0".to_owned()], asks));
            let numbers = (count, processes);
            let (ledger, recorder) = (Arc::clone(ledger), Arc::clone(recorder));
            listening.spawn(answer(asked, points, "txn-0".into(), ledger, numbers, recorder));
        }
        Clients {
            to,
            working,
            listening,
            progress,
            known,
            process: count + 1,
            processes,
            read_to_end: shape.read_to_end,
            transactions: shape.ledger.is_some(),
        }
    }

    async fn end(
        &self,
        clients: &Clients,
        plan: &Plan,
        cluster: &Arc<Cluster>,
        recorder: &Arc<Recorder>,
        watch: &Arc<Watch>,
    ) -> Result<()> {
        let end = End {
            cluster: Arc::clone(cluster),
            recorder: Arc::clone(recorder),
            progress: Arc::clone(&clients.progress),
            watch: Arc::clone(watch),
            known: Arc::clone(&clients.known),
            process: clients.process,
            processes: clients.processes,
            until: Instant::now() + Duration::from_secs(self.options.final_time_limit),
        };
        clients.to.send_replace(Stage::Draining);
        watch.ready(Duration::from_millis(plan.limits.ready_ms)).await;
        // Delayed messages come, and what fell silent is asked about.
        let delayed = plan.includes(Workload::Delay).then_some(5_000);
        let asked = TRANSACTION_TIMEOUT_MS + 2 * CHECK_INTERVAL_MS;
        let asked = clients.transactions.then_some(asked);
        let least = delayed.into_iter().chain(asked).max().unwrap_or(0);
        tokio::join!(
            end.read(&clients.read_to_end),
            end.groups(&plan.groups, Duration::from_millis(least)),
        );
        if clients.transactions {
            end.parked().await;
        }
        clients.to.send_replace(Stage::Over);
        while !clients.progress.is_quiet() && Instant::now() < end.until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        end.compare().await?;
        let counting = end.clone();
        tokio::task::spawn_blocking(move || counting.counts()).await?;
        Ok(())
    }
}

/// Everybody who asks.
struct Clients {
    to: watch::Sender<Stage>,
    working: JoinSet<()>,
    listening: JoinSet<()>,
    progress: Arc<Progress>,
    known: Arc<Known>,
    process: u64,
    processes: u64,
    read_to_end: Vec<u32>,
    transactions: bool,
}

impl Clients {
    /// Waits until all have ended; a client that panicked is a fault of the harness.
    async fn stop(mut self) -> Result<()> {
        self.to.send_replace(Stage::Over);
        self.listening.abort_all();
        while let Some(done) = self.working.join_next().await {
            done.context("a client")?;
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
