//! The log as its owner uses it: what is accepted, in which order, and what is known of it.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::cache::TailCache;
use crate::config::{Config, Identity};
use crate::disk::{DirLock, Disk};
use crate::error::Error;
use crate::frame::{FRAME_HEADER, HEADER_LEN, frame_len, padding};
use crate::hard_state::VOTE_LEN;
use crate::header::SEGMENT_HEADER;
use crate::open::{Opened, Recovered, open};
use crate::pin::{Pin, Pins};
use crate::position::{LogId, LogIndex, LogOffset};
use crate::reader::Reader;
use crate::record::{Frame, Kind, Record};
use crate::replace::Replacement;
use crate::segment::Segment;
use crate::shared::{Append, Done, Inner, Job, Shared};
use crate::spares::Spares;
use crate::tail::{Geometry, Op};
use crate::writer::Writer;

/// What is known of the log at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Entries up to this one are gone, as far as consensus is concerned.
    pub purged: Option<LogId>,
    /// The last entry; the purged one if there is none after it.
    pub last: Option<LogId>,
    /// The vote as it was saved last.
    pub vote: Option<[u8; VOTE_LEN]>,
    /// Known to be committed.
    pub committed: Option<LogIndex>,
    /// Where the next entry goes at the earliest.
    pub end: LogOffset,
    /// The operating system has everything below.
    pub written: LogOffset,
    /// The disk has everything below.
    pub synced: LogOffset,
    /// Where the oldest file starts.
    pub start: LogOffset,
}

/// Whole segments that could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removable {
    /// The last entry in them, up to which the log must be purged first.
    pub purge: LogId,
    /// Where they end.
    pub below: LogOffset,
}

/// The replicated log of one broker group on one node. There is one owner, who appends in order;
/// [`Reader`]s are many.
#[derive(Debug)]
pub struct CommitLog {
    pub(crate) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    _lock: Box<dyn DirLock>,
}

impl CommitLog {
    /// Opens the log on `disk` and starts its thread.
    ///
    /// # Errors
    /// `Locked`, `ForeignGroup`, `ForeignNode`, `NewerVersion`, `SegmentSize`, `Config` for what
    /// is not ours to open; `Corrupt`, `Missing`, `HardStateDamaged` for damage; `Io`.
    ///
    /// # Panics
    /// The operating system refuses to start a thread.
    pub fn open(
        config: Config,
        disk: impl Disk + 'static,
        identity: Identity,
    ) -> Result<(Self, Recovered), Error> {
        let (log, mut writer, recovered) = Self::open_without_thread(config, disk, identity)?;
        let thread = std::thread::Builder::new()
            .name("log-io".to_owned())
            .spawn(move || writer.run())
            .expect("the operating system starts a thread");
        *log.thread.lock().expect("nobody panics holding it") = Some(thread);
        Ok((log, recovered))
    }

    /// Opens the log and leaves it to the caller to drive its [`Writer`]: for simulations, in
    /// which nothing may run by itself.
    ///
    /// # Errors
    /// As [`CommitLog::open`].
    pub fn open_without_thread(
        config: Config,
        disk: impl Disk + 'static,
        identity: Identity,
    ) -> Result<(Self, Writer, Recovered), Error> {
        config.validate()?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let lock = disk.lock().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::Locked,
            _ => Error::io("lock", ".", error),
        })?;
        let Opened { hard, inner, active, recovered } = open(&config, &disk, identity)?;
        let group_id = hard.state().group_id;
        let shared = Arc::new(Shared::new(config, group_id, disk, inner));
        let writer = Writer::new(shared.clone(), hard, active);
        Ok((Self { shared, thread: Mutex::new(None), _lock: lock }, writer, recovered))
    }

    /// Appends `records`, which follow the log's end. They can be read when this returns; `done`
    /// is called once they are durable (with [`Flush::Async`](crate::Flush): once they are
    /// written), after that of everything appended before.
    ///
    /// # Errors
    /// Nothing was appended, and `done` is never called: `NotContiguous`, `TermFell`, `TooLarge`,
    /// `BodyDamaged`, `NoGroup` for records that cannot stand there; `DiskFull` when there is no
    /// space for a further segment; `Poisoned`, `Closed`.
    pub fn append(&self, records: Vec<Record>, done: Done) -> Result<(), Error> {
        let geometry = Geometry {
            group_id: self.shared.group_id.ok_or(Error::NoGroup)?,
            segment_size: self.shared.config.segment_size,
        };
        for record in &records {
            self.check_body(record)?;
        }
        let mut inner = self.shared.inner();
        inner.check_open()?;
        assert!(!inner.truncating, "appends wait for a truncation");
        let append = inner.accept(geometry, records, &self.shared.disk, done)?;
        self.shared.enqueue(&mut inner, Job::Append(append));
        Ok(())
    }

    fn check_body(&self, record: &Record) -> Result<(), Error> {
        let (len, limit) = (record.body.len() as u64, u64::from(self.shared.config.max_body));
        if len > limit {
            return Err(Error::TooLarge { len, limit });
        }
        let found = crc32fast::hash(&record.body);
        if found != record.body_crc {
            let expected = record.body_crc;
            return Err(Error::BodyDamaged { log_id: record.log_id, expected, found });
        }
        Ok(())
    }

    /// Cuts everything after the entry `after`; `None` cuts the whole log. The cut is durable when
    /// `done` is called, and nothing may be appended before.
    ///
    /// # Errors
    /// `TruncateCommitted` if committed entries would go; `Poisoned`, `Closed`. `done` gets
    /// `UnknownEntry` if `after` is not in the log.
    pub fn truncate_after(&self, after: Option<LogId>, done: Done) -> Result<(), Error> {
        let mut inner = self.shared.inner();
        inner.check_open()?;
        let keeps = after.map(|id| id.index);
        // What is purged was committed, whether or not that was noted.
        let committed = inner.committed.max(inner.purged.map(|id| id.index));
        if let Some(committed) = committed.filter(|&committed| keeps < Some(committed)) {
            return Err(Error::TruncateCommitted { after, committed });
        }
        inner.truncating = true;
        self.shared.enqueue(&mut inner, Job::Truncate { after, done });
        Ok(())
    }

    /// Saves a vote, in order with the appends around it. It is durable when `done` is called.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`.
    pub fn save_vote(&self, vote: [u8; VOTE_LEN], done: Done) -> Result<(), Error> {
        self.queue(Job::SaveVote { vote, done })
    }

    /// Notes that entries up to `upto` are not needed for consensus any more. They stay readable
    /// until their files go, see [`CommitLog::remove_below`]. Durable when `done` is called.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`.
    pub fn purge_to(&self, upto: LogId, done: Done) -> Result<(), Error> {
        self.queue(Job::Purge { upto, done })
    }

    /// Removes the files that lie wholly below `below` and hold only purged entries. What readers
    /// hold of them stays valid.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`.
    pub fn remove_below(&self, below: LogOffset, done: Done) -> Result<(), Error> {
        self.queue(Job::Remove { below, done })
    }

    /// Puts another replica's log in the place of this one. Its segments stand beside this log's
    /// own, under [`incoming_name`](crate::incoming_name), checked by
    /// [`check_segment`](crate::check_segment). Entries before them count as purged, those in them
    /// as committed. Durable when `done` is called, and nothing may be appended before.
    ///
    /// A crash on the way leaves the old log or, after the next start, the new one.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`. `done` gets what is wrong with the incoming segments; the log is then
    /// as it was.
    pub fn replace(&self, with: Replacement, done: Done) -> Result<(), Error> {
        let mut inner = self.shared.inner();
        inner.check_open()?;
        inner.truncating = true;
        self.shared.enqueue(&mut inner, Job::Replace { with, done });
        Ok(())
    }

    /// What [`CommitLog::remove_below`] could remove with `below`, were everything before it
    /// purged; `None` if nothing.
    #[must_use]
    pub fn removable_below(&self, below: LogOffset) -> Option<Removable> {
        let inner = self.shared.inner();
        let below = inner.pins.bound(below);
        let newer = inner.segments.values().skip(1);
        let kept = inner.segments.values().zip(newer).take_while(|(old, _)| old.limit() <= below);
        let (_, oldest_kept) = kept.last()?;
        Some(Removable { purge: oldest_kept.header.prev?, below: oldest_kept.base() })
    }

    /// Keeps every segment that is there now from being removed, until the pin is dropped.
    #[must_use]
    pub fn pin(&self) -> Pin {
        Pin::new(self.shared.clone())
    }

    fn queue(&self, job: Job) -> Result<(), Error> {
        let mut inner = self.shared.inner();
        inner.check_open()?;
        self.shared.enqueue(&mut inner, job);
        Ok(())
    }

    /// Notes how far the log is committed. Written lazily; never goes back.
    pub fn set_committed(&self, index: LogIndex) {
        let mut inner = self.shared.inner();
        inner.committed = inner.committed.max(Some(index));
    }

    #[must_use]
    pub fn state(&self) -> State {
        let inner = self.shared.inner();
        State {
            purged: inner.purged,
            last: inner.last,
            vote: inner.vote,
            committed: inner.committed,
            end: inner.tail.end,
            written: inner.written,
            synced: inner.synced,
            start: inner.segments.values().next().map_or(inner.tail.end, |first| first.base()),
        }
    }

    /// Reserves space so that frames of `bytes` bytes in all, `frames` of them, can be appended
    /// without `DiskFull`, wherever segments end between them. What is reserved is not set aside
    /// for anybody: who asks must be the one who appends.
    ///
    /// # Errors
    /// `DiskFull`, which leaves things as they were; `Poisoned`, `Closed`; everything else is
    /// final.
    pub fn reserve(&self, bytes: u64, frames: u64) -> Result<(), Error> {
        let mut inner = self.shared.inner();
        inner.check_open()?;
        let config = &self.shared.config;
        let left = inner.tail.end.0.next_multiple_of(config.segment_size) - inner.tail.end.0;
        if bytes <= left {
            return Ok(());
        }
        // Each segment is filled until the next frame does not fit.
        let longest = frame_len(config.max_body);
        let filled = (config.segment_size - SEGMENT_HEADER).saturating_sub(longest).max(1);
        let segments = frames.min(1 + bytes / filled);
        let count = inner.promised + segments;
        inner.reserve(count)
    }

    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    /// Finishes what was accepted, marks the log as cleanly closed and ends its thread. Everything
    /// later fails with `Closed`. A second call does nothing.
    ///
    /// # Errors
    /// What kept the last writes from becoming durable.
    pub fn close(&self) -> Result<(), Error> {
        let Some(thread) = self.thread.lock().expect("nobody panics holding it").take() else {
            return Ok(());
        };
        let (sender, closed) = std::sync::mpsc::channel();
        let queued = self.close_with(Box::new(move |result| {
            // The receiver waits below.
            let _ = sender.send(result);
        }));
        let result = queued.and_then(|()| closed.recv().unwrap_or(Err(Error::Closed)));
        thread.join().expect("the log's thread does not panic");
        result
    }

    /// As [`CommitLog::close`], for a log whose writer the caller drives.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`.
    pub fn close_with(&self, done: Done) -> Result<(), Error> {
        let mut inner = self.shared.inner();
        let open = inner.check_open();
        inner.closed = true;
        match open {
            Ok(()) => self.shared.enqueue(&mut inner, Job::Close { done }),
            Err(error) => {
                self.shared.queued.notify_one();
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Without [`CommitLog::close`] the directory is left as after a kill.
impl Drop for CommitLog {
    fn drop(&mut self) {
        self.shared.inner().closed = true;
        self.shared.queued.notify_one();
        // The last owner may be a callback, which runs on that very thread.
        let own = std::thread::current().id();
        if let Some(thread) = self.thread.lock().expect("nobody panics holding it").take()
            && thread.thread().id() != own
            && thread.join().is_err()
        {
            tracing::error!("the log's thread panicked");
        }
    }
}

impl Inner {
    /// Makes spares until `count` are ready. A disk that cannot make one for another reason than
    /// its size ends the log: nobody knows what else it will not do.
    fn reserve(&mut self, count: u64) -> Result<(), Error> {
        let reserved = self.spares.reserve(count);
        if let Err(error) = &reserved
            && !matches!(error, Error::DiskFull)
        {
            tracing::error!(%error, "log stops");
            self.poisoned.get_or_insert_with(|| error.clone());
        }
        reserved
    }

    /// Gives `records` their places and makes them readable; or changes nothing.
    fn accept(
        &mut self,
        geometry: Geometry,
        records: Vec<Record>,
        disk: &Arc<dyn Disk>,
        done: Done,
    ) -> Result<Append, Error> {
        let (mut tail, mut last) = (self.tail, self.last);
        let mut ops = Vec::with_capacity(records.len());
        let mut offsets = Vec::with_capacity(records.len());
        for record in &records {
            check_order(last, record)?;
            offsets.push(tail.place(geometry, last, record, &mut ops));
            last = Some(record.log_id);
        }
        let rolls = ops.iter().filter(|op| matches!(op, Op::Segment(_))).count() as u64;
        self.reserve(self.promised + rolls)?;
        self.promised += rolls;
        let force = records.iter().any(|record| record.kind == Kind::Membership);
        let bytes = tail.end - self.tail.end;
        for op in &ops {
            if let Op::Segment(header) = op {
                let segment = Segment::growing(disk.clone(), *header, true);
                self.segments.insert(header.base.0, Arc::new(segment));
            }
        }
        for (record, offset) in records.into_iter().zip(offsets) {
            if let Some((_, segment)) = self.segments.range(..=offset.0).next_back() {
                segment.note(record.log_id.index, offset);
            }
            self.cache.push(Frame { record, position: offset + FRAME_HEADER });
        }
        self.tail = tail;
        self.last = last;
        Ok(Append { ops, end: tail.end, bytes, force, done })
    }
}

fn check_order(last: Option<LogId>, record: &Record) -> Result<(), Error> {
    let found = record.log_id;
    let expected = last.map_or(LogIndex(0), |last| last.index.next());
    if found.index != expected {
        return Err(Error::NotContiguous { expected, found: found.index });
    }
    match last {
        Some(last) if found.term < last.term => Err(Error::TermFell { last, found }),
        _ => Ok(()),
    }
}

/// Bytes that an append writes for one operation.
pub(crate) fn op_len(op: &Op) -> u64 {
    match op {
        Op::Segment(_) => 0,
        Op::Pad { len, .. } => *len,
        Op::Frame { body, .. } => (HEADER_LEN + body.len() + padding(body.len())) as u64,
    }
}

pub(crate) fn inner_at(
    tail: crate::tail::Tail,
    hard: &crate::hard_state::HardState,
    segments: std::collections::BTreeMap<u64, Arc<Segment>>,
    spares: Spares,
    cache_bytes: u64,
) -> Inner {
    let last = tail.last.max(hard.purged);
    Inner {
        tail,
        last,
        purged: hard.purged,
        committed: hard.committed.min(last.map(|id| id.index)),
        vote: hard.vote,
        written: tail.end,
        synced: tail.end,
        cache: TailCache::new(cache_bytes),
        segments,
        spares,
        promised: 0,
        queue: std::collections::VecDeque::new(),
        truncating: false,
        replacing: false,
        pins: Pins::default(),
        changes: 0,
        poisoned: None,
        closed: false,
    }
}
