//! One client at work: asks, waits, writes down how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use super::progress::Progress;
use super::recorder::Recorder;
use crate::client::{Failure, Wire};
use crate::generator::Client;
use crate::history::Failure as Told;
use crate::history::{Answer, Body, Call, Outcome, Process};

/// After a call that nobody wanted to make.
const IDLE: Duration = Duration::from_millis(5);
/// After a request that was refused or lost.
const AFTER_FAILURE: Duration = Duration::from_millis(10);
/// A request that takes longer is given up; the client's own deadlines are shorter.
const GIVE_UP: Duration = Duration::from_secs(8);
/// Odds that a client goes elsewhere after a failure.
const MOVES: f64 = 0.5;

/// What all clients are to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Everything.
    Busy,
    /// Read to the end; send nothing new.
    Draining,
    /// Nothing.
    Over,
}

/// One client with everything that it needs.
pub(super) struct Worker {
    pub client: Box<dyn Client>,
    pub wire: Wire,
    /// Its first process number; after an unknown outcome it goes on as another process.
    pub process: u64,
    /// How many numbers to go on by.
    pub processes: u64,
    /// Between two requests on average; none where it waits for the server anyway.
    pub pace: Option<Duration>,
    /// Stays at its access point whatever happens.
    pub faithful: bool,
    pub seed: u64,
    pub recorder: Arc<Recorder>,
    pub progress: Arc<Progress>,
    pub stage: watch::Receiver<Stage>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {}", self.process)
    }
}

impl Worker {
    /// Works until the stage is [`Stage::Over`].
    pub(super) async fn work(mut self) {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut next = Instant::now();
        loop {
            let stage = *self.stage.borrow();
            if stage == Stage::Over {
                return;
            }
            if let Some(pace) = self.pace.filter(|_| stage == Stage::Busy) {
                sleep_until(next.into()).await;
                // Staggered by chance; who is behind does not catch up.
                next = Instant::now() + pace.mul_f64(random.random_range(0.0..2.0));
            }
            let draining = *self.stage.borrow() != Stage::Busy;
            let Some(call) = self.client.call(self.recorder.now(), draining, &mut random) else {
                sleep(IDLE).await;
                continue;
            };
            let outcome = self.ask(&call).await;
            self.client.told(&call, &outcome);
            if !matches!(outcome, Outcome::Ok(_)) {
                if !self.faithful && random.random_bool(MOVES) {
                    self.wire.move_on();
                }
                sleep(AFTER_FAILURE).await;
            }
        }
    }

    async fn ask(&mut self, call: &Call) -> Outcome {
        let process = Process::Client(self.process);
        let outcome = perform(&self.recorder, process, &mut self.wire, call, &self.progress).await;
        if matches!(outcome, Outcome::Unknown(_)) {
            self.process += self.processes;
        }
        outcome
    }
}

/// One question of somebody who does nothing else, recorded with its outcome.
pub(crate) async fn ask(recorder: &Recorder, process: Process, wire: &mut Wire, call: &Call) {
    perform(recorder, process, wire, call, &Progress::default()).await;
}

/// One request, recorded with its outcome.
pub(super) async fn perform(
    recorder: &Recorder,
    process: Process,
    wire: &mut Wire,
    call: &Call,
    progress: &Progress,
) -> Outcome {
    let node = Some(wire.point().to_owned());
    let began = recorder.record(process, Body::Invoke { call: call.clone(), node });
    progress.begins(call, began);
    let result = timeout(GIVE_UP, wire.perform(call)).await;
    let result = result
        .unwrap_or_else(|_| Err(Failure::Unknown { code: 0, message: "no answer in time".into() }));
    let outcome = outcome_of(call, result);
    let name = call.name().to_owned();
    let body = match outcome.clone() {
        Outcome::Ok(answer) => Body::Ok(answer),
        Outcome::Failed(failure) => Body::Fail { name, failure },
        Outcome::Unknown(failure) => Body::Info { name, failure },
    };
    let ended = recorder.record(process, body);
    progress.ended(call, &outcome, began, ended);
    outcome
}

fn outcome_of(call: &Call, result: Result<Answer, Failure>) -> Outcome {
    match result {
        Ok(answer) => Outcome::Ok(answer),
        Err(failure) => {
            let told = Told { code: failure.code(), text: shortened(failure.message()) };
            let unknown = matches!(failure, Failure::Unknown { .. }) && !call.is_read();
            if unknown { Outcome::Unknown(told) } else { Outcome::Failed(told) }
        }
    }
}

/// The beginning of a text: errors of connections are long, and there are many of them.
fn shortened(text: &str) -> String {
    const MOST: usize = 160;
    text.chars().take(MOST).collect()
}
