//! Sends a snapshot, and the log up to it, to a replica that can be fed from neither log any more.
//!
//! What the receiver has already is not sent: it says which files it wants, and from where on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commitlog::{CommitLog, Extent, Pin};
use proto::raft_rpc as rpc;
use proto::raft_rpc::snapshot_request::Step;
use proto::raft_rpc::snapshot_response::Step as Answer;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::manifest::Manifest;
use super::pace::Pace;
use super::store::Stored;
use super::under_way::UnderWay;
use super::{Error, failed};
use crate::NodeId;
use crate::failure::Chain;
use crate::network::auth::Method;
use crate::network::convert;
use crate::network::links::Link;
use crate::types::RaftVote;
use crate::upkeep::Counters;

/// Bytes per message, at the most and at the least.
const CHUNK: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 20;
/// Messages per second, if they are slow: a receiver must not take the pause for silence.
const PER_SECOND: u64 = 4;
/// Messages on their way from the disk to the network.
const AHEAD: usize = 4;
/// A receiver says something every second; one that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// A snapshot on its way to a replica that the leader found to need it.
pub(crate) struct Shipment {
    pub(crate) link: Link,
    pub(crate) source: Source,
}

/// What is sent of a snapshot, however the receiver came to want it.
pub(crate) struct Source {
    pub(crate) peer: NodeId,
    pub(crate) vote: RaftVote,
    pub(crate) boot_id: u64,
    pub(crate) stored: Arc<Stored>,
    pub(crate) log: Arc<CommitLog>,
    pub(crate) segment_size: u64,
    /// Bytes per second.
    pub(crate) rate: u64,
    pub(crate) upkeep: Arc<Counters>,
}

/// Why a snapshot did not arrive. What did arrive is kept by the receiver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShipError {
    #[error("the receiver: {0}")]
    Refused(#[from] Status),
    #[error("the receiver is silent")]
    Silent,
    #[error("this node")]
    Here(#[from] Error),
    #[error("a message that does not belong here: {0}")]
    Malformed(&'static str),
}

/// What is offered, and kept from being removed until it is sent.
pub(crate) struct Goods {
    stored: Arc<Stored>,
    log: Arc<CommitLog>,
    segments: Vec<Extent>,
    _pin: Pin,
}

/// A file, or a segment.
enum Item {
    File { path: PathBuf, len: u64 },
    Segment(Extent),
}

impl Shipment {
    /// Returns the receiver's vote once it has installed the snapshot, or has refused it for a
    /// higher vote. Dropping the future ends the transfer.
    pub(crate) async fn send(self) -> Result<RaftVote, ShipError> {
        let sent = self.send_goods().await;
        match &sent {
            Ok(_) => self.source.upkeep.snapshot_sent(),
            // It did not arrive as its manifest promises: here or on the way.
            Err(ShipError::Refused(status)) if status.code() == Code::DataLoss => {
                self.source.look_again().await;
            }
            Err(_) => {}
        }
        sent
    }

    async fn send_goods(&self) -> Result<RaftVote, ShipError> {
        let source = &self.source;
        let goods = Arc::new(source.goods().await?);
        let (requests, outbound) = mpsc::channel(AHEAD);
        let request = self.link.request(Method::Snapshot, ReceiverStream::new(outbound));
        let mut client = self.link.snapshot();
        // There is room for the first.
        let _ = requests.try_send(source.offer(&goods));
        let call = timeout(PATIENCE, client.snapshot(request)).await;
        let mut answers = call.map_err(|_elapsed| ShipError::Silent)??.into_inner();
        let wants = match next(&mut answers).await? {
            Answer::Wants(wants) => wants,
            Answer::Installed(installed) => return vote_of(installed),
            Answer::Busy(_) => return Err(ShipError::Malformed("an answer that is no want")),
        };
        let requests = Feed::Requests(requests);
        let feeding = source.feed(&goods, wants.parts, requests);
        let answering = next(&mut answers);
        tokio::pin!(feeding, answering);
        // The channel to the receiver stays open until it has answered.
        let mut fed = None;
        let last = loop {
            tokio::select! {
                answer = &mut answering => break answer?,
                result = &mut feeding, if fed.is_none() => fed = Some(result?),
            }
        };
        match last {
            Answer::Installed(installed) => vote_of(installed),
            Answer::Wants(_) | Answer::Busy(_) => Err(ShipError::Malformed("an answer twice")),
        }
    }
}

/// Where the messages of a transfer go: into a call of this node's, or the answer to another's.
pub(crate) enum Feed {
    Requests(mpsc::Sender<rpc::SnapshotRequest>),
    Answers(mpsc::Sender<Result<rpc::SnapshotRequest, Status>>),
}

impl Feed {
    /// False when nobody takes it any more.
    pub(crate) async fn put(&self, message: rpc::SnapshotRequest) -> bool {
        match self {
            Feed::Requests(requests) => requests.send(message).await.is_ok(),
            Feed::Answers(answers) => answers.send(Ok(message)).await.is_ok(),
        }
    }
}

impl Source {
    pub(crate) async fn goods(&self) -> Result<Goods, Error> {
        Goods::collect(self.stored.clone(), self.log.clone()).await
    }

    pub(crate) fn offer(&self, goods: &Goods) -> rpc::SnapshotRequest {
        request_of(Step::Offer(convert::snapshot_offer(
            &self.vote,
            self.boot_id,
            goods.stored.manifest.message(),
            &goods.segments,
            self.segment_size,
        )))
    }

    /// Sends what is wanted, and then the wish to have it installed. Returns the sender, which must
    /// be kept until there is an answer.
    pub(crate) async fn feed(
        &self,
        goods: &Arc<Goods>,
        parts: Vec<rpc::SnapshotPart>,
        to: Feed,
    ) -> Result<Feed, ShipError> {
        let mut plan = Vec::new();
        for part in parts {
            let item = goods.item(part.file).ok_or(ShipError::Malformed("a want"))?;
            let left = item.len().checked_sub(part.from);
            plan.push((part.file, part.from, left.ok_or(ShipError::Malformed("a want"))?));
        }
        let total: u64 = plan.iter().map(|(_, _, left)| left).sum();
        self.upkeep.snapshot_spared(goods.total() - total);
        let mut progress = Progress::start(&self.upkeep, self.peer, goods.total(), total);
        let mut pace = Pace::new(self.rate, Instant::now());
        let chunk = (self.rate / PER_SECOND).clamp(*CHUNK.start(), *CHUNK.end());
        for (file, from, left) in plan {
            let mut at = from;
            while at < from + left {
                let len = chunk.min(from + left - at);
                let data = goods.read(file, at, len).await?;
                sleep_until(pace.book(data.len(), Instant::now())).await;
                let crc = crc32fast::hash(&data);
                progress.sent(data.len() as u64);
                self.upkeep.snapshot_bytes(data.len() as u64);
                let chunk = rpc::SnapshotChunk { file, at, crc, data };
                if !to.put(request_of(Step::Chunk(chunk))).await {
                    // The receiver has ended the stream, and says why.
                    return Ok(to);
                }
                at += len;
            }
        }
        // As above.
        to.put(request_of(Step::Install(rpc::SnapshotInstall {}))).await;
        Ok(to)
    }

    /// Notes the damage in what was sent, if that is where it came from: the scrubber replaces it.
    async fn look_again(&self) {
        let stored = self.stored.clone();
        let looked = blocking(move || {
            let checked = stored.check();
            if checked.is_err() {
                stored.suspect();
            }
            checked
        });
        if let Err(error) = looked.await {
            tracing::error!(error = %Chain(&error), "this node's snapshot is damaged");
        }
    }
}

fn request_of(step: Step) -> rpc::SnapshotRequest {
    rpc::SnapshotRequest { step: Some(step) }
}

fn vote_of(installed: rpc::SnapshotInstalled) -> Result<RaftVote, ShipError> {
    convert::to_vote(installed.vote).map_err(|_malformed| ShipError::Malformed("no vote"))
}

/// The next answer that says something.
async fn next(answers: &mut Streaming<rpc::SnapshotResponse>) -> Result<Answer, ShipError> {
    loop {
        let message = timeout(PATIENCE, answers.message()).await;
        let message = message.map_err(|_elapsed| ShipError::Silent)??;
        let ended = || ShipError::Malformed("the stream ended without an answer");
        match message.ok_or_else(ended)?.step.ok_or(ShipError::Malformed("no answer"))? {
            Answer::Busy(_) => {}
            answer @ (Answer::Wants(_) | Answer::Installed(_)) => return Ok(answer),
        }
    }
}

impl Item {
    fn len(&self) -> u64 {
        match self {
            Item::File { len, .. } => *len,
            Item::Segment(extent) => extent.len,
        }
    }
}

impl Goods {
    /// The snapshot `stored`, and the log up to it.
    pub(crate) async fn collect(stored: Arc<Stored>, log: Arc<CommitLog>) -> Result<Goods, Error> {
        blocking(move || {
            // Pinned first: what the extents name must still be there when its turn comes.
            let pin = log.pin();
            let segments = log.reader().extents(stored.manifest.last)?;
            Ok(Goods { stored, log, segments, _pin: pin })
        })
        .await
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.stored.manifest
    }

    pub(crate) fn segments(&self) -> &[Extent] {
        &self.segments
    }

    /// Blocks for as long as it takes to read the segment twice.
    pub(crate) fn checksum(&self, extent: Extent) -> Result<u32, commitlog::Error> {
        self.log.reader().checksum(extent)
    }

    fn item(&self, file: u32) -> Option<Item> {
        let file = usize::try_from(file).ok()?;
        let files = &self.stored.manifest.files;
        match file.checked_sub(files.len()) {
            None => {
                let path = self.stored.state().join(&files[file].name);
                Some(Item::File { path, len: files[file].len })
            }
            Some(segment) => self.segments.get(segment).copied().map(Item::Segment),
        }
    }

    fn total(&self) -> u64 {
        let files = self.stored.manifest.files.iter().map(|file| file.len);
        files.chain(self.segments.iter().map(|extent| extent.len)).sum()
    }

    pub(crate) async fn read(
        self: &Arc<Self>,
        file: u32,
        at: u64,
        len: u64,
    ) -> Result<Bytes, Error> {
        let this = self.clone();
        blocking(move || match this.item(file).ok_or(Error::Malformed("no such file"))? {
            Item::Segment(extent) => Ok(this.log.reader().raw(extent.base, at, len)?),
            Item::File { path, .. } => read_file(&path, at, len),
        })
        .await
    }
}

fn read_file(path: &std::path::Path, at: u64, len: u64) -> Result<Bytes, Error> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(path).map_err(failed("open", path))?;
    let mut buf = vec![0; usize::try_from(len).expect("a chunk fits memory")];
    file.read_exact_at(&mut buf, at).map_err(failed("read", path))?;
    Ok(buf.into())
}

/// Runs what waits for a disk where nobody else waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending.
            Err(_) => Err(Error::Stopped),
        },
    }
}

/// Tells how a transfer goes.
struct Progress {
    peer: u64,
    total: u64,
    under_way: UnderWay,
    told: Instant,
}

impl Progress {
    fn start(upkeep: &Arc<Counters>, peer: NodeId, whole: u64, total: u64) -> Progress {
        let under_way = UnderWay::start(upkeep, peer, total, whole - total);
        let peer = peer.0;
        tracing::info!(peer, bytes = total, reused = whole - total, "sending a snapshot");
        Progress { peer, total, under_way, told: Instant::now() }
    }

    fn sent(&mut self, bytes: u64) {
        let sent = self.under_way.sent(bytes);
        if self.told.elapsed() < TELL_EVERY && sent < self.total {
            return;
        }
        self.told = Instant::now();
        let (peer, total, after) = (self.peer, self.total, self.under_way.elapsed());
        tracing::info!(peer, sent, total, ?after, "snapshot on its way");
    }
}
