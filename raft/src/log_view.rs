//! What the parts of a node share about its log, beside the log itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use commitlog::position::{LogId, LogIndex, LogOffset};
use tokio::sync::watch;

use crate::types::RaftVote;
use crate::watermarks::Watermarks;

#[derive(Debug)]
pub(crate) struct LogView {
    pub(crate) watermarks: Arc<Watermarks>,
    vote: Mutex<Option<RaftVote>>,
    last: Mutex<Option<LogId>>,
    /// Stamp of the last entry in the log.
    last_stamp: AtomicU64,
    /// What the state may still read begins here.
    floor: AtomicU64,
    /// The last entry that counts as stored on this node.
    stored: watch::Sender<Option<LogIndex>>,
}

impl LogView {
    /// `last` and `last_stamp` are of the last entry of the log as it was opened.
    pub(crate) fn new(
        watermarks: Arc<Watermarks>,
        vote: Option<RaftVote>,
        last: Option<LogId>,
        last_stamp: u64,
    ) -> LogView {
        LogView {
            watermarks,
            vote: Mutex::new(vote),
            last: Mutex::new(last),
            last_stamp: AtomicU64::new(last_stamp),
            floor: AtomicU64::new(0),
            stored: watch::Sender::new(last.map(|last| last.index)),
        }
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        *self.last.lock().expect("no holder panics")
    }

    pub(crate) fn vote(&self) -> Option<RaftVote> {
        *self.vote.lock().expect("no holder panics")
    }

    pub(crate) fn set_vote(&self, vote: RaftVote) {
        *self.vote.lock().expect("no holder panics") = Some(vote);
    }

    pub(crate) fn last_stamp(&self) -> u64 {
        self.last_stamp.load(Ordering::Acquire)
    }

    /// Entries up to `last` are in the log, the last one stamped `stamp`.
    pub(crate) fn appended(&self, last: LogId, stamp: u64) {
        self.watermarks.appended(last.index);
        *self.last.lock().expect("no holder panics") = Some(last);
        self.last_stamp.store(stamp, Ordering::Release);
    }

    pub(crate) fn set_stored(&self, last: LogIndex) {
        self.stored.send_modify(|stored| *stored = (*stored).max(Some(last)));
    }

    /// Entries after `last` are to go.
    pub(crate) fn truncated(&self, last: Option<LogId>) {
        let index = last.map(|last| last.index);
        self.watermarks.truncated(index);
        *self.last.lock().expect("no holder panics") = last;
    }

    /// Nothing after `last` counts as stored.
    pub(crate) fn forget_stored(&self, last: Option<LogId>) {
        let index = last.map(|last| last.index);
        self.stored.send_modify(|stored| *stored = (*stored).min(index));
    }

    /// Everything up to `upto` is to go.
    pub(crate) fn purged(&self, upto: LogId) {
        self.watermarks.purged(upto.index);
        let mut last = self.last.lock().expect("no holder panics");
        *last = (*last).max(Some(upto));
        self.set_stored(upto.index);
    }

    /// A snapshot as of `last` was installed; the log now ends at `log_last`.
    pub(crate) fn installed(&self, last: LogId, log_last: LogId, stamp: u64) {
        self.watermarks.installed(last, log_last);
        *self.last.lock().expect("no holder panics") = Some(log_last);
        self.last_stamp.store(stamp, Ordering::Release);
        self.stored.send_replace(Some(log_last.index));
    }

    /// Nothing that the state may still read lies below.
    pub(crate) fn floor(&self) -> LogOffset {
        LogOffset(self.floor.load(Ordering::Acquire))
    }

    pub(crate) fn set_floor(&self, floor: LogOffset) {
        let before = self.floor.fetch_max(floor.0, Ordering::AcqRel);
        assert!(before <= floor.0, "the floor goes back from {before} to {floor}");
    }

    pub(crate) fn reset_stamp(&self, stamp: u64) {
        self.last_stamp.store(stamp, Ordering::Release);
    }

    /// The node has a part in the group's history: it holds an entry, or has voted.
    pub(crate) fn formed(&self) -> bool {
        self.watermarks.marks().last.is_some() || self.vote().is_some()
    }

    /// Resolves once the entry at `index` counts as stored here; at once if the log's thread is
    /// gone, because then nothing more will be.
    pub(crate) async fn wait_stored(&self, index: LogIndex) {
        let mut stored = self.stored.subscribe();
        // The sender lives in `self`.
        let _ = stored.wait_for(|stored| *stored >= Some(index)).await;
    }
}
