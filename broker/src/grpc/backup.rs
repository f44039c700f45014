//! Backups: this replica's copy, to whoever keeps it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::backup_rpc::{
    Begin, Busy, Chunk, Done, End, File, Manifest, MarkRequest, MarkResponse, Part, Segment,
    TakeRequest, TakeResponse, backup_server::Backup, take_request, take_response::Step,
};
use raft::{BackupError, LogIndex, Wish};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::local::miss;
use crate::{Error, ops::Broker};

/// Bytes per message, at the most and at the least.
const CHUNK: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 20;
/// Messages per second, if they are slow: a keeper must not take the pause for silence.
const PER_SECOND: u64 = 4;
/// Messages on their way from the disk to the network.
const AHEAD: usize = 4;
/// How often this node says that it is at work.
const BUSY_EVERY: Duration = Duration::from_secs(1);
/// For the confirmation that this node leads.
const MARK_WAIT: Duration = Duration::from_secs(10);
/// For a replica that lags to reach what is asked for.
const REACH_WAIT: Duration = Duration::from_secs(60);
/// A keeper that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// This node's backups.
#[derive(Debug, Clone)]
pub struct BackupService {
    broker: Arc<Broker>,
    cluster: String,
}

type Answers = mpsc::Sender<Result<TakeResponse, Status>>;

impl BackupService {
    /// Copies of `broker`, a member of `cluster`.
    pub fn new(broker: Arc<Broker>, cluster: String) -> Self {
        BackupService { broker, cluster }
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn check_name(&self, asked: &str) -> Result<(), Status> {
        let name = self.broker.name().as_str();
        match asked == name {
            true => Ok(()),
            false => {
                let text = format!("this is a replica of {name}, not of {asked}");
                Err(Status::failed_precondition(text))
            }
        }
    }

    async fn serve(self, mut requests: Streaming<TakeRequest>, answers: Answers) {
        let result = tokio::select! {
            result = self.take(&mut requests, &answers) => result,
            () = busy(answers.clone()) => unreachable!("it never ends"),
        };
        let last = match result {
            Ok(()) => answer(Step::Done(Done {})),
            Err(status) => {
                info!(%status, "a backup was not taken");
                Err(status)
            }
        };
        // A keeper that has gone needs no answer.
        let _ = answers.send(last).await;
    }

    async fn take(
        &self,
        requests: &mut Streaming<TakeRequest>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let take_request::Step::Begin(begin) = next(requests).await? else {
            return Err(Status::invalid_argument("a backup begins with Begin"));
        };
        self.check_name(&begin.broker_name)?;
        let started = Instant::now();
        let rate = Some(begin.rate).filter(|rate| *rate > 0);
        let backup = self.broker.group.backup(wish(&begin, rate)).await;
        let backup = backup.map_err(|error| refusal(&error))?;
        let offer = self.manifest(&backup);
        info!(last = offer.index, segments = offer.segments.len(), "a backup is offered");
        send(answers, Step::Offer(offer)).await?;
        let take_request::Step::Wants(wants) = next(requests).await? else {
            return Err(Status::invalid_argument("an offer is answered with Wants"));
        };
        let chunk = rate
            .map_or(*CHUNK.end(), |rate| (rate / PER_SECOND).clamp(*CHUNK.start(), *CHUNK.end()));
        let mut sent = 0;
        for part in wants.parts {
            sent += feed(&backup, part, chunk, answers).await?;
        }
        info!(bytes = sent, took = ?started.elapsed(), "a backup was taken");
        Ok(())
    }

    fn manifest(&self, backup: &raft::Backup) -> Manifest {
        let contents = backup.contents();
        let file = |(name, len, crc): &(String, u64, u32)| File {
            name: name.clone(),
            len: *len,
            crc: *crc,
        };
        Manifest {
            cluster: self.cluster.clone(),
            broker_name: self.broker.name().to_string(),
            group_id: Bytes::copy_from_slice(&contents.group.0.to_be_bytes()),
            node_id: self.broker.group.status().node_id.0,
            term: contents.last.term.0,
            index: contents.last.index.0,
            membership: contents.membership.clone(),
            state: contents.state.iter().map(file).collect(),
            segment_size: contents.segment_size,
            segments: contents
                .segments
                .iter()
                .map(|extent| Segment {
                    base: extent.base.0,
                    len: extent.len,
                    last_term: extent.last.term.0,
                    last_index: extent.last.index.0,
                    crc: 0,
                })
                .collect(),
            taken_at_ms: 0,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

fn wish(begin: &Begin, rate: Option<u64>) -> Wish {
    let at_least = Some(LogIndex(begin.at_least_index)).filter(|index| index.0 > 0);
    Wish { at_least, rate, deadline: Instant::now() + REACH_WAIT }
}

/// Sends what is wanted of a file, and returns how many bytes that was.
async fn feed(
    backup: &raft::Backup,
    part: Part,
    chunk: u64,
    answers: &Answers,
) -> Result<u64, Status> {
    let number = usize::try_from(part.file).expect("indexes fit");
    let no_file = || Status::invalid_argument("a file or a part that was not offered");
    let len = backup.len(number).filter(|len| part.from <= *len).ok_or_else(no_file)?;
    // First of all, so that nothing damaged leaves this node.
    let crc = backup.checksum(number).await.map_err(|error| refusal(&error))?;
    let mut at = part.from;
    while at < len {
        let data = backup.read(number, at, chunk.min(len - at)).await;
        let data = data.map_err(|error| refusal(&error))?;
        let (file, crc, next) = (part.file, crc32fast::hash(&data), at + data.len() as u64);
        send(answers, Step::Chunk(Chunk { file, at, crc, data })).await?;
        at = next;
    }
    send(answers, Step::End(End { file: part.file, crc })).await?;
    Ok(len - part.from)
}

async fn busy(answers: Answers) {
    let mut ticks = interval(BUSY_EVERY);
    loop {
        ticks.tick().await;
        // While the keeper has not read what is there, it knows that this node is at work.
        let _ = answers.try_send(answer(Step::Busy(Busy {})));
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn answer(step: Step) -> Result<TakeResponse, Status> {
    Ok(TakeResponse { step: Some(step) })
}

async fn send(answers: &Answers, step: Step) -> Result<(), Status> {
    let sent = timeout(PATIENCE, answers.send(answer(step))).await;
    let silent = || Status::cancelled("the keeper of the backup takes nothing any more");
    sent.map_err(|_elapsed| silent())?.map_err(|_gone| silent())
}

async fn next(requests: &mut Streaming<TakeRequest>) -> Result<take_request::Step, Status> {
    let message = timeout(PATIENCE, requests.message()).await;
    let message = message.map_err(|_elapsed| Status::cancelled("the keeper is silent"))??;
    let ended = || Status::cancelled("the keeper has gone");
    message.and_then(|message| message.step).ok_or_else(ended)
}

/// Nothing of a backup changes anything here.
fn refusal(error: &BackupError) -> Status {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    match error {
        BackupError::NoSuchFile(_) => Status::invalid_argument(text),
        BackupError::Log(_) | BackupError::Read(_) => Status::data_loss(text),
        BackupError::Busy
        | BackupError::NoGroup
        | BackupError::Behind { .. }
        | BackupError::Snapshot(_) => Status::unavailable(text),
    }
}

#[tonic::async_trait]
impl Backup for BackupService {
    async fn mark(&self, request: Request<MarkRequest>) -> Result<Response<MarkResponse>, Status> {
        self.check_name(&request.into_inner().broker_name)?;
        let confirmed = self.broker.group.read_barrier(Instant::now() + MARK_WAIT).await;
        confirmed.map_err(|error| gateway::status::refusal(&miss(&Error::from(error))))?;
        let applied = self.broker.group.status().applied;
        Ok(Response::new(MarkResponse { index: applied.map_or(0, |index| index.0) }))
    }

    type TakeStream = ReceiverStream<Result<TakeResponse, Status>>;

    async fn take(
        &self,
        request: Request<Streaming<TakeRequest>>,
    ) -> Result<Response<Self::TakeStream>, Status> {
        let (answers, outbound) = mpsc::channel(AHEAD);
        tokio::spawn(self.clone().serve(request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}
