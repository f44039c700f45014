//! From a proposer's command to its outcome.
//!
//! The [`Batcher`] decides what goes into the next entry; a loop hands entries to openraft, and
//! what openraft says of them goes back to the batcher and to the proposers.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use commitlog::Bug;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use proto::clock;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::batcher::{Batcher, Declined, Load, Size};
use crate::clock::LogClock;
use crate::log_view::LogView;
use crate::membership;
use crate::network::server::RaftNode;
use crate::space::{Claim, Space};
use crate::types::{Batch, Responder, TypeConfig};
use crate::{Limits, Member, NodeId, ProposeError, batch};

type Ack<O> = oneshot::Sender<Result<O, ProposeError>>;

/// Commands on their way, of a state machine whose outcomes are `O`.
#[derive(Debug)]
pub(crate) struct Proposals<O> {
    batcher: Mutex<Batcher<Ack<O>>>,
    command_bytes: usize,
    /// There may be something to send, or an answer has come.
    moved: Notify,
}

impl<O: Send + 'static> Proposals<O> {
    pub(crate) fn new(limits: Limits) -> Proposals<O> {
        let command_bytes = limits.command_bytes;
        let batcher = Mutex::new(Batcher::new(limits));
        Proposals { batcher, command_bytes, moved: Notify::new() }
    }

    fn batcher(&self) -> MutexGuard<'_, Batcher<Ack<O>>> {
        self.batcher.lock().expect("no holder panics but on a broken invariant")
    }

    /// Proposes one command and awaits what becomes of it.
    pub(crate) async fn propose(
        &self,
        parts: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<O, ProposeError> {
        let hasty = Instant::now() + Duration::from_millis(300);
        let deadline = if Bug::B26.is_sown() { deadline.min(hasty) } else { deadline };
        let (ack, outcome) = oneshot::channel();
        let ticket = self.batcher().offer(parts, ack).map_err(|declined| self.error(declined))?;
        self.moved.notify_one();
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_dropped)) => Err(ProposeError::Unknown),
            Err(_elapsed) => match self.batcher().withdraw(ticket) {
                Some(_) => Err(ProposeError::Overloaded),
                None if Bug::B26.is_sown() => Err(ProposeError::Overloaded),
                None => Err(ProposeError::Unknown),
            },
        }
    }

    fn error(&self, declined: Declined) -> ProposeError {
        match declined {
            Declined::TooLarge { bytes } => {
                ProposeError::TooLarge { bytes, max: self.command_bytes }
            }
            Declined::Overloaded => ProposeError::Overloaded,
            Declined::Closed => ProposeError::Stopped,
        }
    }

    /// Answers everything that has not left with `error`, which must say that it was not done.
    pub(crate) fn abort(&self, error: &ProposeError) {
        for waiting in self.batcher().drain() {
            // A proposer that has gone needs no answer.
            let _ = waiting.ack.send(Err(error.clone()));
        }
    }

    /// Accepts nothing any more.
    pub(crate) fn close(&self) {
        self.batcher().close();
    }

    /// Waits until everything accepted was answered, or until `patience` is over.
    pub(crate) async fn drained(&self, patience: Duration) -> bool {
        const LOOK_EVERY: Duration = Duration::from_millis(2);
        let deadline = Instant::now() + patience;
        while !self.batcher().is_idle() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }
}

/// Hands entries to openraft, in order.
pub(crate) struct Sender<O> {
    pub(crate) proposals: Arc<Proposals<O>>,
    pub(crate) raft: RaftNode,
    pub(crate) log: Arc<LogView>,
    pub(crate) space: Arc<Space>,
}

impl<O: Send + 'static> Sender<O> {
    pub(crate) async fn run(self) {
        let mut clock = LogClock::default();
        loop {
            let next = self.proposals.batcher().next();
            let Some(load) = next else {
                self.proposals.moved.notified().await;
                continue;
            };
            let batch = self.pack(&load, &mut clock);
            let Ok(claim) = self.space.claim(batch.body.len(), 1) else {
                self.turn_away(load);
                continue;
            };
            let responder = self.responder(load, claim);
            if self.raft.client_write_ff(batch, Some(responder)).await.is_err() {
                // Consensus has stopped; the responder was dropped and has answered.
                return;
            }
        }
    }

    fn pack(&self, load: &Load<Ack<O>>, clock: &mut LogClock) -> Batch {
        let body = batch::encode(load.commands.iter().map(|command| &command.parts[..]));
        let body_crc = crc32fast::hash(&body);
        let stamp = clock.stamp(clock::wall_now().0, self.log.last_stamp());
        if let Some(skew_ms) = stamp.skew_alarm {
            tracing::warn!(
                skew_ms,
                "wall clock is behind log time, which runs at half speed until it has caught up"
            );
        }
        Batch { stamp: stamp.at, body, body_crc }
    }

    fn turn_away(&self, load: Load<Ack<O>>) {
        self.proposals.batcher().lost(load.size);
        for command in load.commands {
            // A proposer that has gone needs no answer.
            let _ = command.ack.send(Err(ProposeError::DiskFull));
        }
    }

    fn responder(
        &self,
        load: Load<Ack<O>>,
        claim: Claim,
    ) -> Responder<ClientWriteResult<TypeConfig>> {
        let flight = Arc::new(Flight {
            proposals: self.proposals.clone(),
            size: load.size,
            stage: Mutex::new(Stage::Sent(claim)),
        });
        let acks: Vec<Ack<O>> = load.commands.into_iter().map(|command| command.ack).collect();
        let raft = self.raft.clone();
        let committing = flight.clone();
        Responder {
            on_commit: Some(Box::new(move || committing.commit())),
            on_complete: Box::new(move |result| {
                flight.finish();
                resolve(acks, result, &raft);
            }),
        }
    }
}

/// An entry's claim on the batcher's bounds. Given back exactly once: when the entry was applied,
/// or when openraft lets go of it without an answer.
struct Flight<O: Send + 'static> {
    proposals: Arc<Proposals<O>>,
    size: Size,
    stage: Mutex<Stage>,
}

#[derive(Debug)]
enum Stage {
    /// It may be appended here yet.
    Sent(#[expect(dead_code, reason = "held until the entry is committed")] Claim),
    Committed,
    Finished,
}

impl<O: Send + 'static> Flight<O> {
    fn commit(&self) {
        let mut stage = self.stage.lock().expect("no holder panics");
        if matches!(*stage, Stage::Sent(_)) {
            *stage = Stage::Committed;
            self.proposals.batcher().committed(self.size);
            self.proposals.moved.notify_one();
        }
    }

    fn finish(&self) {
        let mut stage = self.stage.lock().expect("no holder panics");
        match std::mem::replace(&mut *stage, Stage::Finished) {
            Stage::Sent(_) => self.proposals.batcher().lost(self.size),
            Stage::Committed => self.proposals.batcher().applied(self.size),
            Stage::Finished => return,
        }
        self.proposals.moved.notify_one();
    }
}

impl<O: Send + 'static> Drop for Flight<O> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Tells every proposer of an entry what became of its command.
fn resolve<O: Send + 'static>(
    acks: Vec<Ack<O>>,
    result: ClientWriteResult<TypeConfig>,
    raft: &RaftNode,
) {
    let error = match result {
        Ok(response) => {
            let outcomes = response.data.into_outcomes::<O>();
            assert_eq!(acks.len(), outcomes.len(), "one outcome per command");
            for (ack, outcome) in acks.into_iter().zip(outcomes) {
                // A proposer whose deadline has passed was told that the outcome is unknown.
                let _ = ack.send(Ok(outcome));
            }
            return;
        }
        // Only ever said before the entry was appended.
        Err(ClientWriteError::ForwardToLeader(forward)) => {
            ProposeError::NotLeader { leader: named(&forward, raft) }
        }
        // The entry was appended and then dropped here; another replica may have committed it.
        Err(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Unknown,
        Err(
            error @ (ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        ) => {
            tracing::error!(%error, "unexpected answer to a batch");
            ProposeError::Unknown
        }
    };
    for ack in acks {
        let _ = ack.send(Err(error.clone()));
    }
}

fn named(forward: &ForwardToLeader<TypeConfig>, raft: &RaftNode) -> Option<Member> {
    let leader = NodeId(forward.leader_id?);
    let metrics = raft.server_metrics();
    let membership = metrics.borrow_watched().membership_config.clone();
    membership::members(membership.membership()).into_iter().find(|m| m.node_id == leader)
}
