//! Brings back a state that was lost, or that is ahead of or behind what the log can explain: a
//! snapshot of a peer's, installed before consensus starts.
//!
//! What the log has it keeps: only what is not there, or differs, is fetched.

use std::sync::Arc;
use std::time::Duration;

use commitlog::CommitLog;
use commitlog::position::{LogId, LogIndex};
use proto::raft_rpc as rpc;
use proto::raft_rpc::refill_request::Step as Ask;
use proto::raft_rpc::snapshot_request::Step;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::failure::Chain;
use crate::network::auth::Method;
use crate::network::links::Link;
use crate::network::server::RaftNode;
use crate::parts::Parts;
use crate::purge;
use crate::snapshot::install::{self, Installed, Target};
use crate::snapshot::receive::{read_offer, wanted};
use crate::snapshot::send::{Feed, Source, blocking};
use crate::snapshot::stage::{OwnLog, Stage};
use crate::snapshot::store::Store;
use crate::types::RaftVote;
use crate::upkeep::Counters;
use crate::{Config, Error, NodeId, snapshot};

/// How long peers may take to be there and to have what is needed.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(500);
/// The other side of a transfer that is silent for so long is given up. Making a snapshot first is
/// part of it.
const SILENCE: Duration = Duration::from_secs(60);
/// Messages on their way.
const AHEAD: usize = 4;

/// Why a state cannot go on from where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lack {
    applied: Option<LogId>,
    last: Option<LogId>,
    purged: Option<LogIndex>,
}

impl Lack {
    /// `None` if the log has everything that a state needs which has applied `applied`.
    pub(crate) fn of(log: &CommitLog, applied: Option<LogId>) -> Option<Lack> {
        let state = log.state();
        let purged = state.purged.map(|id| id.index);
        let short = applied > state.last || applied.map(|id| id.index) < purged;
        short.then_some(Lack { applied, last: state.last, purged })
    }

    /// What a snapshot must include.
    fn at_least(&self) -> LogIndex {
        self.purged.max(self.applied.map(|id| id.index)).unwrap_or_default()
    }

    fn error(&self) -> Error {
        let Lack { applied, last, purged } = *self;
        match applied > last {
            true => Error::LogBehindState { applied, last },
            false => Error::StateBehindLog { applied, purged },
        }
    }
}

/// Why a peer did not help.
#[derive(Debug, thiserror::Error)]
enum RefillError {
    #[error("{0}")]
    Refused(#[from] Status),
    #[error("silent")]
    Silent,
    #[error("a message that does not belong here: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Here(#[from] snapshot::Error),
}

/// Fetches and installs a snapshot of a peer's.
///
/// # Errors
/// There is no other replica, or none could help in time: what is lacking.
pub(crate) async fn refill(parts: &Parts, lack: Lack, target: Target<'_>) -> Result<(), Error> {
    let peers = parts.others();
    if peers.is_empty() {
        return Err(lack.error());
    }
    parts.upkeep.damage_found();
    let at_least = lack.at_least();
    tracing::error!(
        reason = %lack.error(), %at_least,
        "the state cannot go on from here, fetching a peer's"
    );
    let what = "getting the state from another replica: the log does not lead on from this one's";
    let _waiting = parts.config.startup.wait_for(what);
    let Target { store, log, log_dir, state } = target;
    let (started, deadline) = (Instant::now(), Instant::now() + PATIENCE);
    loop {
        for (peer, link) in &peers {
            let target = Target { store, log, log_dir, state: &mut *state };
            match refill_from(parts, link, at_least, target).await {
                Ok(installed) => {
                    let took = started.elapsed();
                    parts.upkeep.snapshot_installed(took);
                    parts.upkeep.damage_repaired();
                    tracing::warn!(%peer, last = %installed.last, ?took, "the state was replaced by a peer's");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%peer, error = %Chain(&error), "no state from this peer yet");
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(lack.error());
        }
        sleep(PAUSE).await;
    }
}

async fn refill_from(
    parts: &Parts,
    link: &Link,
    at_least: LogIndex,
    target: Target<'_>,
) -> Result<Installed, RefillError> {
    let (asks, outbound) = mpsc::channel(AHEAD);
    let ask = |step| rpc::RefillRequest { step: Some(step) };
    // There is room for the first.
    let _ = asks.try_send(ask(Ask::AtLeast(at_least.0)));
    let request = link.request(Method::Refill, ReceiverStream::new(outbound));
    let mut client = link.snapshot();
    let call = timeout(SILENCE, client.refill(request)).await;
    let mut messages = call.map_err(|_elapsed| RefillError::Silent)??.into_inner();
    let Step::Offer(offer) = next(&mut messages).await? else {
        return Err(RefillError::Malformed("no offer first"));
    };
    let offer = read_offer(offer)?;
    if offer.manifest.last.index < at_least {
        return Err(RefillError::Malformed("a snapshot that does not reach far enough"));
    }
    // Nothing else runs yet: what blocks here holds up nobody.
    let own = OwnLog { log: target.log, dir: target.log_dir };
    let segment_size = parts.config.segment_size;
    let (mut stage, wants) = Stage::begin(target.store, &own, segment_size, offer)?;
    let wants = rpc::SnapshotWants { parts: wants.iter().map(wanted).collect() };
    if asks.send(ask(Ask::Wants(wants))).await.is_err() {
        return Err(RefillError::Malformed("the peer has hung up"));
    }
    loop {
        match next(&mut messages).await? {
            Step::Chunk(chunk) => {
                let written = blocking(move || {
                    let file = usize::try_from(chunk.file).expect("indexes fit");
                    stage.write(file, chunk.at, &chunk.data, chunk.crc)?;
                    Ok(stage)
                });
                stage = written.await?;
            }
            Step::Install(_) => break,
            Step::Offer(_) => return Err(RefillError::Malformed("a second offer")),
        }
    }
    let dir = blocking(move || stage.assemble()).await?;
    Ok(install::install(target, &dir)?)
}

async fn next(messages: &mut Streaming<rpc::SnapshotRequest>) -> Result<Step, RefillError> {
    let message = timeout(SILENCE, messages.message()).await;
    let message = message.map_err(|_elapsed| RefillError::Silent)??;
    let message = message.ok_or(RefillError::Malformed("the stream ended early"))?;
    message.step.ok_or(RefillError::Malformed("no step"))
}

/// Gives a snapshot to a replica that asks for one.
pub(crate) struct Giver {
    pub(crate) peer: NodeId,
    pub(crate) raft: RaftNode,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) store: Arc<Store>,
    pub(crate) boot_id: u64,
    pub(crate) config: Arc<Config>,
    pub(crate) upkeep: Arc<Counters>,
}

type Answers = mpsc::Sender<Result<rpc::SnapshotRequest, Status>>;

impl Giver {
    pub(crate) async fn run(self, asks: Streaming<rpc::RefillRequest>, answers: Answers) {
        if let Err(status) = self.give(asks, &answers).await {
            tracing::info!(peer = %self.peer, %status, "no snapshot was given");
            // One that has gone needs no answer.
            let _ = answers.send(Err(status)).await;
        }
    }

    async fn give(
        &self,
        mut asks: Streaming<rpc::RefillRequest>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let Ask::AtLeast(at_least) = asked(&mut asks).await? else {
            return Err(Status::invalid_argument("a refill begins with how far it must reach"));
        };
        let failed = |error: &dyn std::error::Error| Status::unavailable(Chain(error).to_string());
        let current = self.store.current().filter(|stored| {
            stored.manifest.last.index >= LogIndex(at_least) && !stored.is_suspect()
        });
        let stored = match current {
            Some(stored) => stored,
            None => purge::make(&self.raft, &self.store, &self.upkeep, None)
                .await
                .map_err(|error| failed(&error))?,
        };
        if stored.manifest.last.index < LogIndex(at_least) {
            return Err(Status::unavailable("this replica has not come that far"));
        }
        let source = Source {
            peer: self.peer,
            vote: RaftVote::new(0, self.config.node_id.0),
            boot_id: self.boot_id,
            stored,
            log: self.log.clone(),
            segment_size: self.config.segment_size,
            rate: self.config.snapshot_rate,
            upkeep: self.upkeep.clone(),
        };
        let goods = Arc::new(source.goods().await.map_err(|error| failed(&error))?);
        let feed = Feed::Answers(answers.clone());
        feed.put(source.offer(&goods)).await;
        let Ask::Wants(wants) = asked(&mut asks).await? else {
            return Err(Status::invalid_argument("no wants"));
        };
        source.feed(&goods, wants.parts, feed).await.map_err(|error| failed(&error))?;
        self.upkeep.snapshot_sent();
        Ok(())
    }
}

async fn asked(asks: &mut Streaming<rpc::RefillRequest>) -> Result<Ask, Status> {
    let message = timeout(SILENCE, asks.message()).await;
    let message = message.map_err(|_elapsed| Status::deadline_exceeded("silent"))??;
    let step = message.and_then(|message| message.step);
    step.ok_or_else(|| Status::invalid_argument("no step"))
}
