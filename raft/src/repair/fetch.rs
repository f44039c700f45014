//! One segment of the log on its way from one replica to another.

use std::sync::Arc;
use std::time::Duration;

use commitlog::position::{LogIndex, LogOffset};
use commitlog::{CommitLog, Extent, Mended, Mending};
use futures::Stream;
use proto::raft_rpc as rpc;
use proto::raft_rpc::fetch_response::Step;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::off_thread;
use crate::failure::Chain;
use crate::network::auth::Method;
use crate::network::convert;
use crate::network::links::Link;
use crate::snapshot::pace::Pace;

/// Bytes per message.
const CHUNK: u64 = 1 << 20;
/// Messages on their way from the disk to the network.
const AHEAD: usize = 4;
/// A sender that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a segment did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Refused(#[from] Status),
    #[error("silent")]
    Silent,
    #[error("a message that does not belong here: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Log(#[from] commitlog::Error),
}

/// Fetches the segment `base` with entries up to `upto`, into what `begin` makes for it. Whole and
/// checked when this returns.
pub(crate) async fn fetch(
    link: &Link,
    base: LogOffset,
    upto: LogIndex,
    begin: impl FnOnce(Extent) -> Result<Mending, commitlog::Error> + Send + 'static,
) -> Result<(Extent, Mended), FetchError> {
    let request = rpc::FetchRequest { base: base.0, upto: upto.0 };
    let request = link.request(Method::Fetch, request);
    let mut client = link.snapshot();
    let call = timeout(PATIENCE, client.fetch(request)).await;
    let mut messages = call.map_err(|_elapsed| FetchError::Silent)??.into_inner();
    let Some(Step::Segment(segment)) = next(&mut messages).await? else {
        return Err(FetchError::Malformed("no segment first"));
    };
    let extent = convert::to_extent(&segment)
        .map_err(|_malformed| FetchError::Malformed("a segment without an end"))?;
    if extent.base != base {
        return Err(FetchError::Malformed("another segment"));
    }
    let mending = Arc::new(off_thread(move || begin(extent)).await?);
    let mut at = 0;
    while let Some(step) = next(&mut messages).await? {
        let Step::Chunk(chunk) = step else { return Err(FetchError::Malformed("a segment twice")) };
        if chunk.at != at || crc32fast::hash(&chunk.data) != chunk.crc {
            return Err(FetchError::Malformed("a part that does not follow or was changed"));
        }
        at += chunk.data.len() as u64;
        let mending = mending.clone();
        off_thread(move || mending.write(chunk.at, &chunk.data)).await?;
    }
    if at != extent.len {
        return Err(FetchError::Malformed("the stream ended early"));
    }
    let mending = Arc::into_inner(mending).expect("every write has returned");
    let mended = off_thread(move || mending.finish()).await?;
    Ok((extent, mended))
}

async fn next(messages: &mut Streaming<rpc::FetchResponse>) -> Result<Option<Step>, FetchError> {
    let message = timeout(PATIENCE, messages.message()).await;
    match message.map_err(|_elapsed| FetchError::Silent)?? {
        None => Ok(None),
        Some(rpc::FetchResponse { step: Some(step) }) => Ok(Some(step)),
        Some(_) => Err(FetchError::Malformed("no step")),
    }
}

/// Sends what this log has of a segment that others know to be committed.
pub(crate) async fn serve(
    log: Arc<CommitLog>,
    request: rpc::FetchRequest,
    rate: u64,
) -> Result<impl Stream<Item = Result<rpc::FetchResponse, Status>>, Status> {
    let pinned = log.pin();
    let base = LogOffset(request.base);
    let upto = LogIndex(request.upto).min(log.state().committed.unwrap_or(LogIndex(0)));
    let found = {
        let log = log.clone();
        off_thread(move || extent(&log, base, upto)).await.map_err(|error| refusal(&error))?
    };
    let (sender, messages) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        // Until all of it is read.
        let _pinned = pinned;
        let segment = convert::segment(&found);
        let mut pace = Pace::new(rate, Instant::now());
        let first = rpc::FetchResponse { step: Some(Step::Segment(segment)) };
        let mut gone = sender.send(Ok(first)).await.is_err();
        let mut at = 0;
        while at < found.len && !gone {
            let len = CHUNK.min(found.len - at);
            let reader = log.reader();
            let message = match off_thread(move || reader.raw(base, at, len)).await {
                Ok(data) => {
                    sleep_until(pace.book(data.len(), Instant::now())).await;
                    let crc = crc32fast::hash(&data);
                    let chunk = rpc::SnapshotChunk { file: 0, at, data, crc };
                    Ok(rpc::FetchResponse { step: Some(Step::Chunk(chunk)) })
                }
                Err(error) => Err(refusal(&error)),
            };
            at += len;
            let failed = message.is_err();
            gone = sender.send(message).await.is_err() || failed;
        }
    });
    Ok(ReceiverStream::new(messages))
}

/// What of the segment `base` lies before the end of the entry `upto`.
fn extent(log: &CommitLog, base: LogOffset, upto: LogIndex) -> Result<Extent, commitlog::Error> {
    let reader = log.reader();
    let missing = || commitlog::Error::Missing { file: commitlog::segment_name(base) };
    let last = reader.frames(upto..upto.next(), 0)?;
    let last = last.first().ok_or_else(missing)?.record.log_id;
    let extents = reader.extents(last)?;
    extents.into_iter().find(|extent| extent.base == base).ok_or_else(missing)
}

fn refusal(error: &commitlog::Error) -> Status {
    let text = Chain(error).to_string();
    match error {
        commitlog::Error::Missing { .. } | commitlog::Error::Purged { .. } => {
            Status::not_found(text)
        }
        commitlog::Error::Corrupt { .. } => Status::data_loss(text),
        _ => Status::internal(text),
    }
}
