//! A broker cluster that is right by construction, in virtual time: what it answers is a valid
//! history, and what is changed in that history must be found.
//!
//! Every operation takes effect at one moment between its request and its answer. Leaders are
//! killed meanwhile; then requests fail, or their outcome is unknown, whether they took effect or
//! not.

pub mod broker;
pub mod runs;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jepsen::generator::Client;
use jepsen::history::{
    Answer, Body, Call, Event, Failure, Fault, Observation, Outcome, Phase, Plan, Process,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use broker::Broker;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
/// When faults and senders end, and readers read to the end.
pub const QUIET: u64 = 30 * SECOND;
/// When everything is read.
const END: u64 = 44 * SECOND;
/// A leader is killed at these times, and another serves 700 ms later.
const KILLS: [u64; 3] = [6 * SECOND, 14 * SECOND, 22 * SECOND];
const ELECTION: u64 = 700 * MS;
/// How long a client waits for an answer.
const PATIENCE: u64 = 300 * MS;
/// After an unknown outcome a client goes on as another process.
const CLIENTS: u64 = 1_000;

/// A run and its history.
#[derive(Debug, Clone)]
pub struct History {
    pub plan: Plan,
    pub events: Vec<Event>,
}

impl History {
    /// Puts the events in order and gives them their indexes.
    pub fn ordered(mut self) -> Self {
        self.events.sort_by_key(|e| (e.time, e.index));
        for (index, event) in (0..).zip(&mut self.events) {
            event.index = index;
        }
        self
    }
}

struct World {
    broker: Broker,
    random: StdRng,
    events: Vec<Event>,
}

impl World {
    fn tell(&mut self, time: u64, process: Process, body: Body) {
        let index = self.events.len() as u64;
        self.events.push(Event { index, time, process, body });
    }

    fn see(&mut self, time: u64, what: Observation) {
        self.tell(time, Process::Observer, Body::Observed(what));
    }

    fn kills(&mut self, nodes: &[String]) {
        self.see(MS, Observation::Leader { node: nodes[0].clone(), term: 1 });
        self.see(2 * MS, Observation::Ready {});
        for (nth, time) in KILLS.into_iter().enumerate() {
            let fault = |phase| Fault {
                fault: nth as u64,
                class: "kill".into(),
                targets: vec![nodes[nth % nodes.len()].clone()],
                phase,
                leader: true,
                majority: false,
                lost_bytes: None,
                skew_ms: None,
            };
            for (after, phase) in
                [(0, Phase::Invoked), (MS, Phase::Installed), (ELECTION, Phase::Healed)]
            {
                self.tell(time + after, Process::Nemesis, Body::Fault(fault(phase)));
            }
            let node = nodes[(nth + 1) % nodes.len()].clone();
            let term = nth as u64 + 2;
            self.see(time + ELECTION, Observation::Leader { node, term });
            self.see(time + ELECTION + MS, Observation::Ready {});
        }
    }

    /// Applies a call at `time`, or does not, as the cluster's state has it.
    fn outcome(&mut self, call: &Call, time: u64) -> Outcome {
        let down = KILLS.iter().any(|kill| (*kill..kill + ELECTION).contains(&time));
        let failure = |text: &str| Failure { code: 0, text: text.into() };
        let local = matches!(call, Call::Decide { .. } | Call::Member { .. });
        if local {
            return Outcome::Ok(self.broker.apply(call, time).expect("nothing refuses it"));
        }
        let odds = if down { 60 } else { 1 };
        if time < QUIET && self.random.random_range(0..100) < odds {
            if call.is_read() {
                return Outcome::Failed(failure("no answer"));
            }
            // A leader that is gone answers nobody, but may have done it.
            return match self.random.random_range(0..3) {
                0 => Outcome::Failed(failure("no leader")),
                1 => Outcome::Unknown(failure("timeout")),
                _ => {
                    let _ = self.broker.apply(call, time);
                    Outcome::Unknown(failure("timeout"))
                }
            };
        }
        if down {
            return Outcome::Failed(failure("no leader"));
        }
        match self.broker.apply(call, time) {
            Ok(answer) => Outcome::Ok(answer),
            Err(text) => Outcome::Failed(failure(text)),
        }
    }
}

struct Step {
    began: u64,
    call: Call,
    ends: u64,
}

/// Lets `clients` work on a right cluster.
pub fn run(plan: Plan, mut clients: Vec<Box<dyn Client>>, seed: u64) -> History {
    let mut world = World {
        broker: Broker::new(&plan),
        random: StdRng::seed_from_u64(seed),
        events: Vec::new(),
    };
    world.kills(&plan.nodes);
    let mut processes: Vec<u64> = (0..clients.len() as u64).collect();
    let mut queue: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut steps: Vec<Option<Step>> = Vec::new();
    for client in 0..clients.len() {
        steps.push(None);
        queue.push(Reverse((3 * MS + client as u64, client)));
    }
    while let Some(Reverse((time, client))) = queue.pop() {
        let Some(step) = steps[client].take() else {
            // Time to decide what to do next.
            if END < time {
                continue;
            }
            let draining = QUIET < time;
            match clients[client].call(time, draining, &mut world.random) {
                Some(call) => {
                    let (there, back) = (world.latency(), world.latency());
                    let wait = if world.broker.waits(&call, time + there) { 20 * MS } else { 0 };
                    let at = time + there + wait;
                    steps[client] = Some(Step { began: time, call, ends: at + back });
                    queue.push(Reverse((at, client)));
                }
                None => queue.push(Reverse((time + 20 * MS, client))),
            }
            continue;
        };
        let outcome = if let Call::Check { tx } = step.call {
            let resolution = clients[client].resolution(tx);
            world.broker.answer_check(tx, resolution);
            Outcome::Ok(Answer::Check { resolution })
        } else {
            world.outcome(&step.call, time)
        };
        let process = Process::Client(processes[client]);
        let node = Some(plan.nodes[client % plan.nodes.len()].clone());
        let call = step.call.clone();
        world.tell(step.began, process, Body::Invoke { call, node });
        let name = step.call.name().to_owned();
        let mut ended = step.ends;
        let body = match outcome.clone() {
            Outcome::Ok(answer) => Body::Ok(answer),
            Outcome::Failed(failure) => Body::Fail { name, failure },
            Outcome::Unknown(failure) => {
                ended = step.began + PATIENCE;
                processes[client] += CLIENTS;
                Body::Info { name, failure }
            }
        };
        world.tell(ended, process, body);
        clients[client].told(&step.call, &outcome);
        let think = world.random.random_range(2 * MS..30 * MS);
        queue.push(Reverse((ended + think, client)));
    }
    world.finish(&plan);
    let events = world.events;
    History { plan, events }.ordered()
}

impl World {
    fn latency(&mut self) -> u64 {
        self.random.random_range(200_000..4 * MS)
    }

    fn finish(&mut self, plan: &Plan) {
        let end = self.events.iter().map(|e| e.time).max().unwrap_or(0) + MS;
        for group in &plan.groups {
            self.see(end, Observation::DrainedGroup { group: group.name.clone() });
        }
        for key in 0..u32::try_from(plan.keys.len()).expect("few keys") {
            self.see(end, Observation::DrainedKey { key });
        }
        for node in &plan.nodes {
            let (node, digest) = (node.clone(), "5ca1ab1e".into());
            self.see(end, Observation::Digest { node, applied: 4711, digest });
        }
        self.see(end, Observation::Members { voters: plan.nodes.clone() });
        self.see(end, Observation::Calibration { p99_us: 900 });
    }
}
