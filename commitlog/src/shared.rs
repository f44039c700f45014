//! What writers, readers and the log thread share, under one lock that is never held over a
//! write or a sync.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::cache::TailCache;
use crate::config::{Config, GroupId};
use crate::disk::Disk;
use crate::error::Error;
use crate::hard_state::VOTE_LEN;
use crate::mend::Mended;
use crate::pin::Pins;
use crate::position::{LogId, LogIndex, LogOffset};
use crate::replace::Replacement;
use crate::segment::Segment;
use crate::spares::Spares;
use crate::tail::{Op, Tail};

/// Called once, in order, when what it belongs to is durable, or will never be.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What the log thread is to do, in this order.
pub(crate) enum Job {
    Append(Append),
    Truncate { after: Option<LogId>, done: Done },
    SaveVote { vote: [u8; VOTE_LEN], done: Done },
    Purge { upto: LogId, done: Done },
    Remove { below: LogOffset, done: Done },
    Replace { with: Replacement, done: Done },
    Mend { mended: Mended, done: Done },
    Close { done: Done },
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append(_) => "Append",
            Self::Truncate { .. } => "Truncate",
            Self::SaveVote { .. } => "SaveVote",
            Self::Purge { .. } => "Purge",
            Self::Remove { .. } => "Remove",
            Self::Replace { .. } => "Replace",
            Self::Mend { .. } => "Mend",
            Self::Close { .. } => "Close",
        })
    }
}

impl Job {
    pub(crate) fn into_done(self) -> Done {
        match self {
            Self::Append(Append { done, .. })
            | Self::Truncate { done, .. }
            | Self::SaveVote { done, .. }
            | Self::Purge { done, .. }
            | Self::Remove { done, .. }
            | Self::Replace { done, .. }
            | Self::Mend { done, .. }
            | Self::Close { done } => done,
        }
    }
}

/// Records that were accepted: their place is fixed and they can be read.
pub(crate) struct Append {
    pub(crate) ops: Vec<Op>,
    /// Where the log ends with them.
    pub(crate) end: LogOffset,
    pub(crate) bytes: u64,
    /// To be synced even when syncs are left to the background.
    pub(crate) force: bool,
    pub(crate) done: Done,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) tail: Tail,
    /// The last entry; differs from the tail's when the log was purged past its end.
    pub(crate) last: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogIndex>,
    pub(crate) vote: Option<[u8; VOTE_LEN]>,
    /// The operating system has everything below.
    pub(crate) written: LogOffset,
    /// The disk has everything below.
    pub(crate) synced: LogOffset,
    pub(crate) cache: TailCache,
    /// By base.
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    pub(crate) spares: Spares,
    /// Segments that were promised to accepted appends and not begun yet.
    pub(crate) promised: u64,
    pub(crate) queue: VecDeque<Job>,
    /// A truncation or a replacement waits in the queue: nothing may be appended before it is done.
    pub(crate) truncating: bool,
    /// Files change their names right now: who reads waits.
    pub(crate) replacing: bool,
    /// Segments from these offsets on are kept, whatever is asked to go.
    pub(crate) pins: Pins,
    /// Grows when something is cut, or a segment goes or is repaired: what was read meanwhile is
    /// read again.
    pub(crate) changes: u64,
    pub(crate) poisoned: Option<Error>,
    pub(crate) closed: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) disk: Arc<dyn Disk>,
    inner: Mutex<Inner>,
    /// Something was queued.
    pub(crate) queued: Condvar,
    /// A replacement is over.
    pub(crate) replaced: Condvar,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        group_id: Option<GroupId>,
        disk: Arc<dyn Disk>,
        inner: Inner,
    ) -> Self {
        Self {
            config,
            group_id,
            disk,
            inner: Mutex::new(inner),
            queued: Condvar::new(),
            replaced: Condvar::new(),
        }
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the log's lock panics")
    }

    /// Counts the changes, once no replacement is under way.
    pub(crate) fn changes(&self) -> u64 {
        let settled = self.replaced.wait_while(self.inner(), |inner| inner.replacing);
        settled.expect("no holder of the log's lock panics").changes
    }

    pub(crate) fn enqueue(&self, inner: &mut Inner, job: Job) {
        inner.queue.push_back(job);
        self.queued.notify_one();
    }
}

impl Inner {
    /// Whether the log takes changes.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match &self.poisoned {
            Some(cause) => Err(Error::poisoned_by(cause)),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// `purged <= committed <= last`, where they are known.
    pub(crate) fn assert_marks(&self) {
        let (purged, last) = (self.purged.map(|id| id.index), self.last.map(|id| id.index));
        assert!(purged <= last, "purged {purged:?} is past last {last:?}");
        assert!(
            self.synced <= self.written,
            "synced {} is past written {}",
            self.synced,
            self.written
        );
        assert!(
            self.written <= self.tail.end,
            "written {} is past the end {}",
            self.written,
            self.tail.end
        );
    }

    /// Index of the first entry that is physically there.
    pub(crate) fn first_index(&self) -> Option<LogIndex> {
        self.segments.values().next().map(|segment| segment.header.first_index)
    }

    /// The segment that holds the entry `index`, and whether its bytes never change again.
    pub(crate) fn segment_of(&self, index: LogIndex) -> Option<(Arc<Segment>, bool)> {
        let mut newer: Option<&Arc<Segment>> = None;
        for segment in self.segments.values().rev() {
            if segment.header.first_index <= index {
                return Some((segment.clone(), self.is_fixed(segment, newer)));
            }
            newer = Some(segment);
        }
        None
    }

    /// The segment that covers `offset`, and whether its bytes never change again.
    pub(crate) fn segment_at(&self, offset: LogOffset) -> Option<(Arc<Segment>, bool)> {
        let (&base, segment) = self.segments.range(..=offset.0).next_back()?;
        let newer = self.segments.range(base + 1..).next().map(|(_, newer)| newer);
        Some((segment.clone(), self.is_fixed(segment, newer)))
    }

    /// Sealed, synced and committed: only then may it be mapped. The first entry of the next
    /// segment must be committed too: if it were cut, a smaller one could go where the filling is.
    fn is_fixed(&self, segment: &Segment, newer: Option<&Arc<Segment>>) -> bool {
        newer.is_some_and(|newer| {
            self.committed >= Some(newer.header.first_index) && segment.limit() <= self.synced
        })
    }
}
