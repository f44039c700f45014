//! What scenarios are written with: single faults, recorded as those of schedules are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::engine::{Aim, tell};
use super::super::{Class, Effect, Step, Target, Tools, acts, transfer};
use crate::client::Rpc;
use crate::history::Phase;

/// How long a cluster may take to be whole again, or a leader to come.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A fault that was not healed yet.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    fault: u64,
    /// As the history calls it.
    class: String,
    step: Step,
    aim: Aim,
}

/// The cluster, and what is broken of it.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) tools: Arc<Tools>,
    pub(super) random: StdRng,
    faults: u64,
    broken: Vec<Broken>,
}

impl Scene {
    pub(super) fn new(tools: &Arc<Tools>) -> Self {
        let random = StdRng::seed_from_u64(tools.seed);
        Self { tools: Arc::clone(tools), random, faults: 0, broken: Vec::new() }
    }

    /// Breaks these nodes, as the class does it and under its name.
    pub(super) async fn breaks(&mut self, class: Class, places: &[usize]) -> Result<u64> {
        self.breaks_as(class, class.name(), places).await.map(|(fault, _)| fault)
    }

    /// The same under another name, and what came of it.
    pub(super) async fn breaks_as(
        &mut self,
        class: Class,
        name: &str,
        places: &[usize],
    ) -> Result<(u64, Effect)> {
        let leader = self.tools.watch.leader().map(|(place, _)| place);
        let aim = Aim {
            places: places.iter().copied().collect(),
            nameserver: None,
            leader: leader.is_some_and(|leader| places.contains(&leader)),
        };
        self.faults += 1;
        let step = Step { at_ms: 0, class, target: Target::One, lasts_ms: 0, seed: 0 };
        let broken = Broken { fault: self.faults, class: name.to_owned(), step, aim };
        self.tools.watch.breaks();
        self.tell(&broken, Phase::Invoked, &Effect::default());
        self.broken.push(broken.clone());
        let what = (broken.fault, &broken.step);
        let effect = acts::install(&self.tools, what, &broken.aim, &mut self.random).await?;
        ensure!(!effect.skipped, "there was nothing that {name} could have been done to");
        self.tell(&broken, Phase::Installed, &effect);
        Ok((broken.fault, effect))
    }

    /// Takes a fault away again.
    pub(super) async fn heals(&mut self, fault: u64) -> Result<()> {
        let place = self.broken.iter().position(|broken| broken.fault == fault);
        let broken = self.broken.remove(place.context("it was not healed before")?);
        let healed = acts::heal(&self.tools, (broken.fault, &broken.step), &broken.aim).await;
        let phase = if healed.is_ok() { Phase::Healed } else { Phase::Indeterminate };
        self.tell(&broken, phase, &Effect::default());
        self.tools.watch.heals();
        healed
    }

    /// Takes away what is left.
    pub(super) async fn mend(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(fault) = self.broken.last().map(|broken| broken.fault) {
            result = result.and(self.heals(fault).await);
        }
        result
    }

    fn tell(&self, broken: &Broken, phase: Phase, effect: &Effect) {
        // Several faults at a time may leave no majority.
        let nodes = self.tools.cluster.nodes.len();
        let hit: BTreeSet<usize> =
            self.broken.iter().chain([broken]).flat_map(|b| b.aim.places.clone()).collect();
        let majority = nodes <= hit.len() * 2;
        tell(&self.tools, broken.fault, (&broken.class, majority), phase, &broken.aim, effect);
    }

    /// Lets clients work.
    pub(super) async fn works(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Waits until nothing is broken and everybody is there.
    pub(super) async fn whole(&self) -> Result<()> {
        ensure!(self.tools.watch.ready(PATIENCE).await, "not ready within {PATIENCE:?}");
        Ok(())
    }

    /// Waits for a condition; whether it came.
    pub(super) async fn comes(&self, mut is: impl FnMut() -> bool) -> bool {
        let since = Instant::now();
        while !is() {
            if PATIENCE < since.elapsed() {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
        true
    }

    /// Place and term of the leader.
    pub(super) async fn leader(&self) -> Result<(usize, u64)> {
        let watch = Arc::clone(&self.tools.watch);
        self.comes(|| watch.leader().is_some()).await;
        watch.leader().context("nobody leads")
    }

    /// Waits for a leader of a later term; whether there is one, among these nodes.
    pub(super) async fn led_after(&self, term: u64, by: &[usize]) -> bool {
        let watch = Arc::clone(&self.tools.watch);
        self.comes(|| watch.leader().is_some_and(|(at, now)| term < now && by.contains(&at))).await
    }

    /// Those that do not lead, the leader, and its term.
    pub(super) async fn roles(&self) -> Result<(Vec<usize>, usize, u64)> {
        let (leader, term) = self.leader().await?;
        let others = (0..self.tools.cluster.nodes.len()).filter(|place| *place != leader);
        Ok((others.collect(), leader, term))
    }

    /// Hands the leadership to a node; whether it leads.
    pub(super) async fn hand_to(&self, place: usize) -> bool {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if self.tools.watch.leader().is_some_and(|(leader, _)| leader == place) {
                return true;
            }
            let cluster = &self.tools.cluster;
            let node = &cluster.nodes[place];
            transfer::to(&Rpc::new(node.client), cluster.broker_name(), node.id()).await;
            tokio::time::sleep(10 * PAUSE).await;
        }
        false
    }
}
