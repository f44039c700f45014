//! openraft's log storage over the commit log.
//!
//! Appends return at once: entries are readable from memory, and the flush is reported from the
//! log's own thread. Votes take the same way, so that a vote and the entries around it reach the
//! disk in the order in which they were given.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use commitlog::position::LogIndex;
use commitlog::{CommitLog, Kind, Record};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use tokio::sync::oneshot;

use crate::log_reader::LogReader;
use crate::log_view::LogView;
use crate::repair::Mender;
use crate::types::{EntryPayload, LogEntry, RaftLogId, RaftVote, TypeConfig, from_raft, to_raft};
use crate::vote;

/// The log as openraft's core writes it. There is one writer.
pub(crate) struct LogStore {
    log: Arc<CommitLog>,
    view: Arc<LogView>,
    mender: Option<Arc<Mender>>,
}

impl LogStore {
    pub(crate) fn new(log: Arc<CommitLog>, view: Arc<LogView>) -> LogStore {
        LogStore { log, view, mender: None }
    }

    /// Damage that is met when reading is repaired, and what was wanted read again.
    pub(crate) fn repaired_by(self, mender: Arc<Mender>) -> LogStore {
        LogStore { mender: Some(mender), ..self }
    }

    fn reader(&self) -> LogReader {
        LogReader::new(self.log.reader(), self.view.clone(), self.mender.clone())
    }

    /// The records of consecutive entries. Stamps never go back: a blank or a membership takes the
    /// stamp before it, and a batch that was stamped before another leader had its say is lifted.
    /// On a follower nothing changes, because its leader did the same.
    fn records(&self, entries: impl IntoIterator<Item = LogEntry>) -> (Vec<Record>, u64) {
        let mut last_stamp = self.view.last_stamp();
        let records = entries.into_iter().map(|entry| {
            last_stamp = last_stamp.max(entry.stamp);
            record(entry, last_stamp)
        });
        let records = records.collect();
        (records, last_stamp)
    }
}

fn record(entry: LogEntry, stamp: u64) -> Record {
    let log_id = from_raft(&entry.log_id);
    let (kind, body, body_crc) = match entry.payload {
        EntryPayload::Blank => (Kind::Blank, Bytes::new(), 0),
        EntryPayload::Batch(batch) => (Kind::Batch, batch.body, batch.body_crc),
        EntryPayload::Membership(body) => {
            let crc = crc32fast::hash(&body.body);
            (Kind::Membership, body.body, crc)
        }
    };
    Record { log_id, kind, stamp, body, body_crc }
}

type LogResult = Result<(), commitlog::Error>;
type Done = Box<dyn FnOnce(LogResult) + Send>;

/// Sends a result from the log's thread to whoever awaits it.
fn signal() -> (Done, oneshot::Receiver<LogResult>) {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |result| {
        // The waiting side is gone only when the node stops.
        let _ = sender.send(result);
    });
    (done, receiver)
}

async fn finished(receiver: oneshot::Receiver<LogResult>) -> Result<(), io::Error> {
    match receiver.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the log's thread has stopped")),
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        let last_purged_log_id = state.purged.map(to_raft);
        Ok(LogState { last_purged_log_id, last_log_id: state.last.map(to_raft) })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let (done, saved) = signal();
        self.log.save_vote(vote::encode(vote), done).map_err(io::Error::other)?;
        finished(saved).await?;
        self.view.set_vote(*vote);
        Ok(())
    }

    /// Only notes the mark: it is written along with something else, or when the log is closed.
    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        let index = LogIndex(committed.index());
        self.view.watermarks.committed(index);
        self.log.set_committed(index);
        Ok(())
    }

    /// Written lazily, so that it can name entries which a crash took: those do not count. Nor do
    /// purged ones, which the state machine has applied in any case.
    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        let state = self.log.state();
        let committed = state.committed.min(state.last.map(|last| last.index));
        match committed.filter(|&index| Some(index) > state.purged.map(|purged| purged.index)) {
            Some(index) => self.reader().log_id(index).await.map(Some),
            None => Ok(None),
        }
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (records, last_stamp) = self.records(entries);
        let Some(last) = records.last().map(|record| record.log_id) else {
            flushed.io_completed(Ok(()));
            return Ok(());
        };
        let view = self.view.clone();
        let done = Box::new(move |result: LogResult| {
            if result.is_ok() {
                view.set_stored(last.index);
            }
            flushed.io_completed(result.map_err(io::Error::other));
        });
        self.log.append(records, done).map_err(io::Error::other)?;
        self.view.appended(last, last_stamp);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let kept = last.as_ref().map(from_raft);
        let before = self.log.state();
        if kept.map(|id| id.index) >= before.last.map(|id| id.index) {
            return Ok(());
        }
        // Asserted before anything is lost.
        self.view.truncated(kept);
        let (done, truncated) = signal();
        self.log.truncate_after(kept, done).map_err(io::Error::other)?;
        finished(truncated).await?;
        // Flushes that were under way have been reported by now, of entries that are gone.
        self.view.forget_stored(kept);
        let last_stamp = match self.log.state().last {
            Some(last) if Some(last) != self.log.state().purged => {
                self.reader().stamp(last.index).await?
            }
            _ => 0,
        };
        self.view.reset_stamp(last_stamp);
        Ok(())
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        let upto = from_raft(&upto);
        self.view.purged(upto);
        let (done, purged) = signal();
        self.log.purge_to(upto, done).map_err(io::Error::other)?;
        finished(purged).await
    }
}

#[cfg(test)]
#[path = "log_store_test.rs"]
mod tests;
