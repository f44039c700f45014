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
use super::{Class, Effect, Schedule, Step, Target, Tools, acts, damage};
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
pub(super) struct Aim {
    pub(super) places: BTreeSet<usize>,
    pub(super) nameserver: Option<usize>,
    pub(super) leader: bool,
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
        let what = (self.fault, &self.step);
        let installed = acts::install(self.tools, what, &aim, &mut random).await;
        if let Ok(effect) = &installed
            && !effect.skipped
        {
            self.tell(Phase::Installed, &aim, effect);
            sleep(Duration::from_millis(self.step.lasts_ms)).await;
        }
        let healed = acts::heal(self.tools, what, &aim).await;
        let none = Effect::default();
        match (&installed, &healed) {
            // There was nothing that it could have been done to.
            (Ok(Effect { skipped: true, .. }), Ok(())) => self.tell(Phase::Skipped, &aim, &none),
            (_, Ok(())) => self.tell(Phase::Healed, &aim, &none),
            (_, Err(_)) => self.tell(Phase::Indeterminate, &aim, &none),
        }
        self.tools.watch.heals();
        self.budget.lock().await.give_back(self.fault);
        installed?;
        healed?;
        Ok(())
    }

    fn tell(&self, phase: Phase, aim: &Aim, effect: &Effect) {
        let class = self.step.class;
        tell(self.tools, self.fault, (class.name(), class.takes_majority()), phase, aim, effect);
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
        let fragile = match damage::is_damage(class) {
            true => damage::fragile(nodes, self.tools.seed),
            false => (0..nodes).collect(),
        };
        let mut aim = Aim::default();
        match self.step.target {
            Target::Leader => aim
                .places
                .extend(leader.or_else(|| (0..nodes).find(|place| !impaired.contains(place)))),
            Target::Follower | Target::One => {
                let free: Vec<usize> = (0..nodes)
                    .filter(|n| self.step.target == Target::One || Some(*n) != leader)
                    .filter(|n| !impaired.contains(n) && fragile.contains(n))
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
            || matches!(class, Class::Transfer | Class::Rolling | Class::Upgrade);
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
}

/// Records how far a fault has got; `majority`: whether so many are hit that nobody can serve.
pub(super) fn tell(
    tools: &Tools,
    fault: u64,
    (class, majority): (&str, bool),
    phase: Phase,
    aim: &Aim,
    effect: &Effect,
) {
    let nodes = aim.places.iter().map(|place| tools.cluster.nodes[*place].name.clone());
    let nameserver = aim.nameserver.map(|nth| tools.cluster.nameservers[nth].name.clone());
    let fault = Fault {
        fault,
        class: class.to_owned(),
        targets: nodes.chain(nameserver).collect(),
        phase,
        leader: aim.leader,
        majority,
        lost_bytes: effect.lost_bytes,
        skew_ms: effect.skew_ms,
    };
    tools.recorder.record(Process::Nemesis, Body::Fault(fault));
}
