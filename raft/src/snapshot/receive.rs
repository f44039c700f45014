//! Receives a snapshot, and has it installed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use commitlog::{CommitLog, Pin};
use openraft::alias::SnapshotOf;
use openraft::async_runtime::watch::WatchReceiver as _;
use proto::raft_rpc as rpc;
use proto::raft_rpc::snapshot_request::Step;
use proto::raft_rpc::snapshot_response::Step as Answer;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{interval, timeout};
use tonic::{Status, Streaming};

use super::manifest::Manifest;
use super::send::blocking;
use super::stage::{Offer, OwnLog, Part, Stage};
use super::store::Store;
use super::{Error, Snapshot, files};
use crate::network::convert;
use crate::network::server::RaftNode;
use crate::types::{RaftVote, TypeConfig};

/// A sender that is silent for so long is given up. What has arrived is kept.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a receiver says that it is at work.
const BUSY_EVERY: Duration = Duration::from_secs(1);

type Answers = mpsc::Sender<Result<rpc::SnapshotResponse, Status>>;

/// Takes snapshots, one at a time.
pub(crate) struct Receiver {
    pub(crate) raft: RaftNode,
    pub(crate) store: Arc<Store>,
    pub(crate) log: Arc<CommitLog>,
    /// The directory of `log`.
    pub(crate) log_dir: PathBuf,
    pub(crate) segment_size: u64,
    pub(crate) one: Mutex<()>,
}

impl Receiver {
    /// Answers everything that `messages` ask for, and ends with them.
    pub(crate) async fn run(
        self: Arc<Self>,
        messages: Streaming<rpc::SnapshotRequest>,
        answers: Answers,
    ) {
        let ticking = answers.clone();
        let busy = async move {
            let mut ticks = interval(BUSY_EVERY);
            loop {
                ticks.tick().await;
                // While nobody reads there is no need to say it again.
                let busy = Answer::Busy(rpc::SnapshotBusy {});
                // Nor when it has gone: the messages end then, and what is being installed goes on.
                let _ = ticking.try_send(answer(busy));
            }
        };
        let result = tokio::select! {
            result = self.receive(messages, &answers) => result,
            () = busy => unreachable!("it never ends"),
        };
        let last = match result {
            Ok(vote) => {
                let installed = rpc::SnapshotInstalled { vote: Some(convert::vote(&vote)) };
                answer(Answer::Installed(installed))
            }
            Err(status) => {
                tracing::info!(%status, "a snapshot has not arrived");
                Err(status)
            }
        };
        // A sender that has gone needs no answer.
        let _ = answers.send(last).await;
    }

    async fn receive(
        &self,
        mut messages: Streaming<rpc::SnapshotRequest>,
        answers: &Answers,
    ) -> Result<RaftVote, Status> {
        let _one = self
            .one
            .try_lock()
            .map_err(|_taken| Status::unavailable("another snapshot is being received"))?;
        let Step::Offer(offer) = next(&mut messages).await? else {
            return Err(Status::invalid_argument("a snapshot begins with an offer"));
        };
        let vote = convert::to_vote(offer.vote).map_err(|error| malformed(&error))?;
        let own = self.raft.server_metrics().borrow_watched().vote;
        if own > vote {
            return Ok(own);
        }
        let offer = read_offer(offer)?;
        let manifest = offer.manifest.clone();
        tracing::info!(last = %manifest.last, segments = offer.segments.len(), "a snapshot is offered");
        // What is re-used of this node's own log must not be removed or written over meanwhile.
        let (mut stage, parts, _pin) = self.begin(offer).await.map_err(|error| status(&error))?;
        let wants = rpc::SnapshotWants { parts: parts.iter().map(wanted).collect() };
        // A sender that has gone ends the messages too.
        let _ = answers.send(answer(Answer::Wants(wants))).await;
        loop {
            match next(&mut messages).await? {
                Step::Chunk(chunk) => {
                    let written = blocking(move || {
                        let file = usize::try_from(chunk.file).expect("indexes fit");
                        stage.write(file, chunk.at, &chunk.data, chunk.crc)?;
                        Ok(stage)
                    });
                    stage = written.await.map_err(|error| status(&error))?;
                }
                Step::Install(_) => break,
                Step::Offer(_) => return Err(Status::invalid_argument("a second offer")),
            }
        }
        let dir = blocking(move || stage.assemble()).await.map_err(|error| status(&error))?;
        self.install(vote, dir, &manifest).await
    }

    async fn begin(&self, offer: Offer) -> Result<(Stage, Vec<Part>, Pin), Error> {
        let (store, log, dir) = (self.store.clone(), self.log.clone(), self.log_dir.clone());
        let segment_size = self.segment_size;
        blocking(move || {
            let pin = log.pin();
            let own = OwnLog { log: &log, dir: &dir };
            let (stage, parts) = Stage::begin(&store, &own, segment_size, offer)?;
            Ok((stage, parts, pin))
        })
        .await
    }

    async fn install(
        &self,
        vote: RaftVote,
        dir: PathBuf,
        manifest: &Manifest,
    ) -> Result<RaftVote, Status> {
        let meta = manifest.meta().map_err(|error| status(&error))?;
        let snapshot =
            SnapshotOf::<TypeConfig, Snapshot> { meta, snapshot: Snapshot::Arrived(dir.clone()) };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await;
        let answer = answer.map_err(|fatal| Status::unavailable(fatal.to_string()))?;
        // It is still there if it was not needed or not wanted.
        blocking(move || files::remove_dir(&dir)).await.map_err(|error| status(&error))?;
        Ok(answer.vote)
    }
}

fn answer(step: Answer) -> Result<rpc::SnapshotResponse, Status> {
    Ok(rpc::SnapshotResponse { step: Some(step) })
}

pub(crate) fn wanted(part: &Part) -> rpc::SnapshotPart {
    rpc::SnapshotPart { file: u32::try_from(part.file).expect("few files"), from: part.from }
}

async fn next(messages: &mut Streaming<rpc::SnapshotRequest>) -> Result<Step, Status> {
    let message = timeout(PATIENCE, messages.message()).await;
    let message =
        message.map_err(|_elapsed| Status::deadline_exceeded("the sender is silent"))??;
    let message = message.ok_or_else(|| Status::cancelled("the sender has ended the transfer"))?;
    message.step.ok_or_else(|| Status::invalid_argument("no step"))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn read_offer(offer: rpc::SnapshotOffer) -> Result<Offer, Status> {
    let manifest = offer.manifest.ok_or_else(|| Status::invalid_argument("no manifest"))?;
    let manifest = Manifest::from_message(manifest).map_err(|error| status(&error))?;
    let segments = offer.segments.iter().map(convert::to_extent).collect::<Result<_, _>>();
    let segments = segments.map_err(|error| malformed(&error))?;
    Ok(Offer { manifest, segments, segment_size: offer.segment_size })
}

fn malformed(error: &convert::Malformed) -> Status {
    Status::data_loss(error.to_string())
}

fn status(error: &Error) -> Status {
    let text = crate::failure::Chain(error).to_string();
    match error {
        error if error.is_disk_full() => Status::resource_exhausted(text),
        Error::Checksum { .. } | Error::Gap { .. } => Status::data_loss(text),
        Error::Malformed(_) | Error::NewerVersion { .. } => Status::failed_precondition(text),
        Error::Stopped | Error::LogStopped => Status::unavailable(text),
        Error::Io { .. }
        | Error::OtherState { .. }
        | Error::Checkpoint(_)
        | Error::Log(_)
        | Error::Install(_) => Status::internal(text),
    }
}
