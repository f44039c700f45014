//! Opens a log that damage keeps from opening: what is damaged is fetched from peers first.

use std::sync::Arc;
use std::time::Duration;

use commitlog::position::{LogIndex, LogOffset};
use commitlog::{CommitLog, Disk, GroupId, Mending, Recovered, mend_closed};
use tokio::time::{Instant, sleep};

use super::{damaged, fetch, off_thread};
use crate::Error;
use crate::failure::Chain;
use crate::parts::Parts;

/// How long peers may take to be there.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(500);

/// What opening came to.
pub(crate) enum Opening {
    Open(CommitLog, Recovered),
    /// The end of the log is damaged where no peer has anything committed. What this node
    /// acknowledged there may be lost here.
    EndDamaged(commitlog::Error),
}

/// Opens the log with `open`, repairing what it refuses as often as that helps.
///
/// # Errors
/// What cannot be repaired; [`Error::Unrepaired`] if nobody could help in time.
pub(crate) async fn open(
    parts: &Parts,
    group: GroupId,
    disk: Arc<dyn Disk>,
    open: impl Fn() -> Result<(CommitLog, Recovered), commitlog::Error>,
) -> Result<Opening, Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut before: Option<(LogOffset, u64)> = None;
    loop {
        let error = match open() {
            Ok((log, recovered)) => return Ok(Opening::Open(log, recovered)),
            Err(error) => error,
        };
        let Some(base) = damaged(&error) else { return Err(error.into()) };
        let peers = parts.others();
        if peers.is_empty() {
            return Err(Error::Unrepaired {
                source: error,
                last: "there is no other replica".into(),
            });
        }
        if before.is_none_or(|(other, _)| other != base) {
            parts.upkeep.damage_found();
            tracing::error!(%base, error = %Chain(&error), "the log is damaged, fetching from peers");
        }
        let _waiting = parts.config.startup.wait_for(format!(
            "repairing the log at offset {base} with the help of the other replicas"
        ));
        let started = Instant::now();
        let (len, peer) = loop {
            match fetch_any(parts, group, &disk, base).await {
                Ok(got) => break got,
                Err(last) if Instant::now() >= deadline => {
                    return Err(Error::Unrepaired { source: error, last });
                }
                Err(last) => {
                    tracing::warn!(%base, last, "no peer has repaired the log yet");
                    sleep(PAUSE).await;
                }
            }
        };
        tracing::warn!(%base, peer, bytes = len, took = ?started.elapsed(), "a damaged segment was replaced by the peer's");
        // The same damage again: it lies behind all that is committed anywhere.
        if before == Some((base, len)) {
            return Ok(Opening::EndDamaged(error));
        }
        if before.is_none_or(|(other, _)| other != base) {
            parts.upkeep.damage_repaired();
        }
        before = Some((base, len));
    }
}

/// Fetches a segment from the first peer that has it; how much of it that was.
async fn fetch_any(
    parts: &Parts,
    group: GroupId,
    disk: &Arc<dyn Disk>,
    base: LogOffset,
) -> Result<(u64, u64), String> {
    let segment_size = parts.config.segment_size;
    let mut last = String::new();
    for (peer, link) in parts.others() {
        let into = disk.clone();
        let begin = move |extent| Mending::begin(into, group, segment_size, extent);
        let fetched = fetch::fetch(&link, base, LogIndex(u64::MAX), begin).await;
        let placed = match fetched {
            Ok((extent, mended)) => {
                let disk = disk.clone();
                let place = move || mend_closed(&disk, segment_size, &mended);
                off_thread(place)
                    .await
                    .map(|()| extent.len)
                    .map_err(|error| Chain(&error).to_string())
            }
            Err(error) => Err(Chain(&error).to_string()),
        };
        match placed {
            Ok(len) => return Ok((len, peer.0)),
            Err(error) => last = format!("node {peer}: {error}"),
        }
    }
    Err(last)
}
