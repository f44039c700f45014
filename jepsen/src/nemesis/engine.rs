//! Carries a schedule out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::budget::Budget;
use super::{Class, Effect, Schedule, Step, Target, Tools, clock, disk, links, pressure};
use super::{processes, transfer};
use crate::history::{Body, Fault, Phase, Process};

/// A fault without a safe target waits so long for one, so often.
const AGAIN: Duration = Duration::from_millis(300);
const ATTEMPTS: usize = 15;
/// How long a leader is waited for, when one is to be hit.
const LEADER: Duration = Duration::from_secs(2);

/// Carries the steps out, each when its time comes; returns when everything is healed again. An
/// error is one of this machine, and not of the cluster.
pub async fn run(tools: &Arc<Tools>, schedule: &Schedule) -> Result<()> {
    let budget = Arc::new(Mutex::new(Budget::of(tools.cluster.nodes.len())));
    let start = Instant::now();
    let mut steps = JoinSet::new();
    for (fault, step) in (1..).zip(schedule.steps.clone()) {
        let (tools, budget) = (Arc::clone(tools), Arc::clone(&budget));
        steps.spawn(async move {
            sleep_until(start + Duration::from_millis(step.at_ms)).await;
            let active = Active { fault, tools: &tools, budget: &budget, step };
            active.run().await
        });
    }
    let mut result = Ok(());
    while let Some(done) = steps.join_next().await {
        let done = done.unwrap_or_else(|panic| Err(panic.into()));
        // The others heal what they broke before the first error is told.
        result = result.and(done);
    }
    result
}

struct Active<'a> {
    fault: u64,
    tools: &'a Arc<Tools>,
    budget: &'a Mutex<Budget>,
    step: Step,
}

/// The nodes, by their places, that a fault was aimed at.
#[derive(Debug, Clone, Default)]
struct Aim {
    places: BTreeSet<usize>,
    nameserver: Option<usize>,
    leader: bool,
}

impl Active<'_> {
    async fn run(&self) -> Result<()> {
        let mut random = StdRng::seed_from_u64(self.step.seed);
        let mut aim = None;
        for _ in 0..ATTEMPTS {
            aim = self.aim(&mut random).await;
            if aim.is_some() {
                break;
            }
            sleep(AGAIN).await;
        }
        let Some(aim) = aim else {
            self.tell(Phase::Skipped, &Aim::default(), &Effect::default());
            return Ok(());
        };
        self.tools.watch.breaks();
        self.tell(Phase::Invoked, &aim, &Effect::default());
        let installed = self.install(&aim, &mut random).await;
        if let Ok(effect) = &installed {
            self.tell(Phase::Installed, &aim, effect);
            sleep(Duration::from_millis(self.step.lasts_ms)).await;
        }
        let healed = self.heal(&aim).await;
        match &healed {
            Ok(effect) => self.tell(Phase::Healed, &aim, effect),
            Err(_) => self.tell(Phase::Indeterminate, &aim, &Effect::default()),
        }
        self.tools.watch.heals();
        self.budget.lock().await.give_back(self.fault);
        installed?;
        healed?;
        Ok(())
    }

    fn tell(&self, phase: Phase, aim: &Aim, effect: &Effect) {
        let nodes = aim.places.iter().map(|place| self.tools.cluster.nodes[*place].name.clone());
        let nameserver = aim.nameserver.map(|nth| self.tools.cluster.nameservers[nth].name.clone());
        let fault = Fault {
            fault: self.fault,
            class: self.step.class.name().to_owned(),
            targets: nodes.chain(nameserver).collect(),
            phase,
            leader: aim.leader,
            majority: self.step.class.takes_majority(),
            lost_bytes: effect.lost_bytes,
            skew_ms: effect.skew_ms,
        };
        self.tools.recorder.record(Process::Nemesis, Body::Fault(fault));
    }

    /// Chooses whom to hit and takes them from the budget.
    async fn aim(&self, random: &mut StdRng) -> Option<Aim> {
        let (class, nodes) = (self.step.class, self.tools.cluster.nodes.len());
        if class.needs_five() && nodes < 5 {
            return None;
        }
        let leader = self.leader().await;
        let mut budget = self.budget.lock().await;
        let impaired = budget.impaired();
        let mut aim = Aim::default();
        match self.step.target {
            Target::Leader => aim
                .places
                .extend(leader.or_else(|| (0..nodes).find(|place| !impaired.contains(place)))),
            Target::Follower | Target::One => {
                let free: Vec<usize> = (0..nodes)
                    .filter(|n| self.step.target == Target::One || Some(*n) != leader)
                    .filter(|n| !impaired.contains(n))
                    .collect();
                aim.places.insert(*free.get(random.random_range(0..free.len().max(1)))?);
            }
            Target::All => aim.places.extend(0..nodes),
            Target::Cluster => {}
            Target::NameServer => {
                let count = self.tools.cluster.nameservers.len();
                aim.nameserver = Some(random.random_range(0..count));
            }
        }
        if class == Class::PartHalves {
            // As many beside it as may be cut off.
            let minority = (nodes - 1) / 2;
            let others = (0..nodes).filter(|n| !aim.places.contains(n) && !impaired.contains(n));
            let others: Vec<usize> = others.take(minority - 1).collect();
            aim.places.extend(others);
        }
        aim.leader = leader.is_some_and(|leader| aim.places.contains(&leader))
            || matches!(class, Class::Transfer | Class::Rolling);
        let alone = class.takes_majority() || class.is_everywhere();
        budget.take(self.fault, &aim.places, alone).then_some(aim)
    }

    /// Who leads; waits a while for somebody where it matters.
    async fn leader(&self) -> Option<usize> {
        let since = Instant::now();
        loop {
            let leader = self.tools.watch.leader().map(|(place, _)| place);
            let active = leader.filter(|place| self.tools.cluster.nodes[*place].is_active());
            if active.is_some() || LEADER < since.elapsed() {
                return active;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn install(&self, aim: &Aim, random: &mut StdRng) -> Result<Effect> {
        let (tools, step) = (self.tools, &self.step);
        let (places, fault) = (&aim.places, self.fault);
        match step.class {
            Class::Kill | Class::KillAll => processes::kill(tools, places).await?,
            Class::Pause => processes::pause(tools, places)?,
            Class::Restart => processes::stop(tools, places).await?,
            Class::Rolling => processes::roll(tools).await?,
            Class::NsKill => processes::kill_nameserver(tools, aim.nameserver).await?,
            Class::NsPause => processes::pause_nameserver(tools, aim.nameserver)?,
            Class::PartLeader
            | Class::PartOne
            | Class::PartHalves
            | Class::PartOneWay
            | Class::PartRing
            | Class::PartBridge
            | Class::PartClients
            | Class::Loss => links::cut(tools, fault, step.class, places, random).await?,
            Class::Reset => links::reset(tools, places, step.lasts_ms).await?,
            Class::Transfer => transfer::storm(tools, step.lasts_ms, random).await?,
            Class::Power | Class::PowerAll => return disk::cut_power(tools, places).await,
            Class::Full => disk::fill(tools, places).await?,
            Class::Freeze => disk::freeze(tools, places).await?,
            Class::ClockBump | Class::ClockStrobe | Class::ClockDrift => {
                return clock::disturb(tools, step, places, random).await;
            }
            Class::Cpu => pressure::processors(step.lasts_ms)?,
        }
        Ok(Effect::default())
    }

    async fn heal(&self, aim: &Aim) -> Result<Effect> {
        let (tools, places) = (self.tools, &aim.places);
        match self.step.class {
            Class::Kill | Class::KillAll | Class::Restart => processes::start(tools, places),
            Class::Pause => processes::resume(tools, places),
            Class::NsKill | Class::NsPause => processes::heal_nameserver(tools, aim.nameserver),
            Class::PartLeader
            | Class::PartOne
            | Class::PartHalves
            | Class::PartOneWay
            | Class::PartRing
            | Class::PartBridge
            | Class::PartClients
            | Class::Loss => links::mend(tools, self.fault).await?,
            Class::Power | Class::PowerAll => disk::restore_power(tools, places).await?,
            Class::Full => disk::empty(tools, places).await?,
            Class::Freeze => disk::thaw(tools, places).await?,
            Class::ClockBump | Class::ClockStrobe | Class::ClockDrift => {
                clock::set_right(tools, places)?;
            }
            // Over when their time is.
            Class::Rolling | Class::Reset | Class::Transfer | Class::Cpu => {}
        }
        Ok(Effect::default())
    }
}
