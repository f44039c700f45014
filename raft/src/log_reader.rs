//! Reads the log for replication and for the state machine.
//!
//! Reads are capped by bytes. What the log does not hold at the end of a range is left out; a hole
//! anywhere else is an error, because what follows it would be taken for what comes next.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use commitlog::position::LogIndex;
use commitlog::{Frame, Kind};
use futures::{Stream, StreamExt, stream};
use openraft::alias::LeaderIdOf;
use openraft::errors::LeaderChanged;
use openraft::storage::{LeaderBoundedStreamError, LeaderBoundedStreamResult, RaftLogReader};
use openraft::{OptionalSend, RaftTypeConfig};

use crate::log_view::LogView;
use crate::membership;
use crate::repair::{Mender, damaged};
use crate::types::{
    Batch, EntryPayload, LogEntry, MembershipBody, RaftLogId, RaftVote, TypeConfig, to_raft,
};

/// Bytes of bodies per read, unless a single entry has more.
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub(crate) struct LogReader {
    reader: commitlog::Reader,
    view: Arc<LogView>,
    mender: Option<Arc<Mender>>,
}

impl LogReader {
    pub(crate) fn new(
        reader: commitlog::Reader,
        view: Arc<LogView>,
        mender: Option<Arc<Mender>>,
    ) -> LogReader {
        LogReader { reader, view, mender }
    }

    pub(crate) async fn log_id(&self, index: LogIndex) -> Result<RaftLogId, io::Error> {
        Ok(to_raft(self.frame(index).await?.record.log_id))
    }

    pub(crate) async fn stamp(&self, index: LogIndex) -> Result<u64, io::Error> {
        Ok(self.frame(index).await?.record.stamp)
    }

    async fn frame(&self, index: LogIndex) -> Result<Frame, io::Error> {
        let next = LogIndex(index.0 + 1);
        let read = || self.reader.frames(index..next, 0).map_err(io::Error::other);
        let frames = self.sound(read).await?;
        frames.into_iter().next().ok_or_else(|| hole(index.0))
    }

    /// What `read` gives, if need be after the segment was repaired that it finds damaged.
    async fn sound<T>(&self, read: impl Fn() -> Result<T, io::Error>) -> Result<T, io::Error> {
        let error = match read() {
            Err(error) => error,
            read => return read,
        };
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<commitlog::Error>());
        let (Some(base), Some(mender)) = (cause.and_then(damaged), &self.mender) else {
            return Err(error);
        };
        match mender.mend(base).await {
            Ok(()) => read(),
            Err(_) => Err(error),
        }
    }

    async fn sound_chunk(&self, from: u64, to: u64) -> Result<Vec<LogEntry>, io::Error> {
        self.sound(|| self.chunk(from, to)).await
    }

    /// Entries from `from` on, up to `to` or about a chunk's bytes. Empty only if the log ends
    /// before `from`.
    fn chunk(&self, from: u64, to: u64) -> Result<Vec<LogEntry>, io::Error> {
        let to = to.min(self.end());
        if from >= to {
            return Ok(Vec::new());
        }
        let read = self.reader.frames(LogIndex(from)..LogIndex(to), CHUNK_BYTES);
        // The end may have moved while reading: a new leader's log replaces an old one's tail.
        let gone = from >= self.end();
        let frames = match read {
            Ok(frames) => frames,
            Err(_) if gone => Vec::new(),
            Err(error) => return Err(io::Error::other(error)),
        };
        if frames.is_empty() && !gone {
            return Err(hole(from));
        }
        let numbered = frames.into_iter().zip(from..);
        numbered
            .map(|(frame, expected)| {
                let found = frame.record.log_id.index.0;
                if found == expected { entry(frame) } else { Err(hole(expected)) }
            })
            .collect()
    }

    /// One past the last entry.
    fn end(&self) -> u64 {
        self.view.watermarks.marks().last.map_or(0, |last| last.0 + 1)
    }

    /// One past what was purged.
    fn start(&self) -> u64 {
        self.view.watermarks.marks().purged.map_or(0, |purged| purged.0 + 1)
    }

    /// `range` without what was purged.
    fn present(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let from = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&index) => index.saturating_add(1),
            Bound::Excluded(&index) => index,
            Bound::Unbounded => u64::MAX,
        };
        (from.max(self.start()), to)
    }

    /// Chunks until `to` or the end of the log.
    fn chunks(
        self,
        from: u64,
        to: u64,
    ) -> impl Stream<Item = Result<Vec<LogEntry>, io::Error>> + Send {
        stream::unfold((self, Some(from)), move |(reader, next)| async move {
            let from = next?;
            match reader.sound_chunk(from, to).await {
                Ok(entries) if entries.is_empty() => None,
                Ok(entries) => {
                    let next = from + entries.len() as u64;
                    Some((Ok(entries), (reader, Some(next))))
                }
                Err(error) => Some((Err(error), (reader, None))),
            }
        })
    }
}

fn hole(index: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the log has no entry {index}"))
}

fn entry(frame: Frame) -> Result<LogEntry, io::Error> {
    let record = frame.record;
    let payload = match record.kind {
        Kind::Blank => EntryPayload::Blank,
        Kind::Batch => EntryPayload::Batch(Batch {
            stamp: record.stamp,
            body: record.body,
            body_crc: record.body_crc,
        }),
        Kind::Membership => {
            let membership = membership::decode(record.body.clone()).map_err(io::Error::other)?;
            let membership = membership.membership;
            EntryPayload::Membership(MembershipBody { membership, body: record.body })
        }
    };
    let position = Some(frame.position);
    Ok(LogEntry { log_id: to_raft(record.log_id), stamp: record.stamp, payload, position })
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut from, to) = self.present(&range);
        let mut entries = Vec::new();
        loop {
            let chunk = self.sound_chunk(from, to).await?;
            if chunk.is_empty() {
                return Ok(entries);
            }
            from += chunk.len() as u64;
            entries.extend(chunk);
        }
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, io::Error> {
        match self.sound_chunk(start, end).await {
            // Asked by replication alone. Consensus may let go of what a replica lacks that refuses
            // entries for a while, for want of space perhaps. Without entries it finds out where the
            // replica stands, and sends a snapshot; an error would end this node, which leads.
            Err(error) if start < self.start() => {
                tracing::debug!(%error, start, "a replica lacks what was purged");
                Ok(Vec::new())
            }
            read => read,
        }
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.view.vote())
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderIdOf<TypeConfig>,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<TypeConfig>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = self.present(&range);
        let view = self.view.clone();
        // The vote is looked at after a chunk was read and before it is given out: had it changed
        // before the read, it would still be changed.
        let still_leads = move || {
            let vote = view.vote();
            let leads = |vote: &RaftVote| *vote.leader_id() == leader && vote.is_committed();
            if vote.as_ref().is_some_and(leads) {
                Ok(())
            } else {
                Err(LeaderBoundedStreamError::LeaderChanged(LeaderChanged::new(leader, vote)))
            }
        };
        let checked = self.clone().chunks(from, to).map(move |chunk| {
            let chunk = chunk.map_err(LeaderBoundedStreamError::IoError)?;
            still_leads()?;
            Ok(chunk)
        });
        flattened(checked)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<LogEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = self.present(&range);
        flattened(self.clone().chunks(from, to))
    }
}

/// One item per entry, ending after the first error.
fn flattened<E: Send>(
    chunks: impl Stream<Item = Result<Vec<<TypeConfig as RaftTypeConfig>::Entry>, E>> + Send,
) -> impl Stream<Item = Result<LogEntry, E>> + Send {
    let mut failed = false;
    chunks
        .take_while(move |chunk| {
            let go_on = !failed;
            failed = chunk.is_err();
            std::future::ready(go_on)
        })
        .flat_map(|chunk| {
            let items: Vec<Result<LogEntry, E>> = match chunk {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(items)
        })
}
