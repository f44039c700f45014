//! The log thread's work: writes what was accepted, syncs it, and tells who waits.
//!
//! Everything queued goes out together: a few writes, one sync, then the callbacks in order. Votes,
//! cuts and purges keep their place in the queue. The first failed write or sync ends the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bug::Bug;
use crate::config::Flush;
use crate::error::Error;
use crate::hard_state::{HardState, HardStateFile, VOTE_LEN};
use crate::header::{SegmentHeader, segment_name};
use crate::log::op_len;
use crate::position::{LogId, LogOffset};
use crate::run::Run;
use crate::shared::{Append, Done, Job, Shared};
use crate::spares::Active;
use crate::tail::Op;

/// When nothing was queued for so long, the synced mark is made durable.
const IDLE_MARK: Duration = Duration::from_secs(1);

/// Of [`Bug::B02`] alone.
const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// Does the log's writing. [`CommitLog::open`](crate::CommitLog::open) gives it a thread; a
/// simulation calls [`Writer::step`].
#[derive(Debug)]
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) hard: HardStateFile,
    pub(crate) active: Option<Active>,
    /// Written and left to the background sync.
    pub(crate) unsynced_bytes: u64,
    pub(crate) unsynced_since: Option<Instant>,
    /// When something was last done.
    worked: Instant,
    /// The disk had no space for a segment in reserve, and that was told.
    told_full: bool,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, hard: HardStateFile, active: Option<Active>) -> Self {
        Self {
            shared,
            hard,
            active,
            unsynced_bytes: 0,
            unsynced_since: None,
            worked: Instant::now(),
            told_full: false,
        }
    }

    /// Works until the log is closed or dropped.
    pub(crate) fn run(&mut self) {
        self.replenish();
        while self.wait() {
            while self.step() {}
            self.catch_up();
        }
    }

    /// Waits for something to do; false when there will never be anything.
    fn wait(&self) -> bool {
        let bound = match (self.shared.config.flush, self.unsynced_since) {
            (Flush::Async { max_delay, .. }, Some(since)) => {
                max_delay.saturating_sub(since.elapsed())
            }
            _ => IDLE_MARK,
        };
        let inner = self.shared.inner();
        let (inner, _) = self
            .shared
            .queued
            .wait_timeout_while(inner, bound, |inner| inner.queue.is_empty() && !inner.closed)
            .expect("no holder of the log's lock panics");
        !(inner.closed && inner.queue.is_empty())
    }

    /// Does what can wait: background syncs and the synced mark of an idle log.
    fn catch_up(&mut self) {
        // A sync that failed must not be tried again: it could succeed without having synced.
        if self.shared.inner().poisoned.is_some() {
            return;
        }
        let due = match (self.shared.config.flush, self.unsynced_since) {
            (Flush::Async { max_delay, .. }, Some(since)) => since.elapsed() >= max_delay,
            _ => false,
        };
        if due && let Err(error) = self.sync() {
            self.poison(&error);
            return;
        }
        // Not after each append: the mark costs two syncs, and the next append would wait for them.
        let idle = self.worked.elapsed() >= IDLE_MARK;
        let synced = self.shared.inner().synced;
        if idle
            && synced > self.hard.state().synced
            && let Err(error) = self.mark()
        {
            self.poison(&error);
        }
    }

    /// Does the next thing that is queued; false if nothing is.
    pub fn step(&mut self) -> bool {
        let Some(job) = self.shared.inner().queue.pop_front() else { return false };
        self.worked = Instant::now();
        if let Some(cause) = self.shared.inner().poisoned.clone() {
            job.into_done()(Err(Error::poisoned_by(&cause)));
            return true;
        }
        match job {
            Job::Append(first) => self.append(first),
            Job::Truncate { after, done } => {
                let result = self.truncate(after);
                self.shared.inner().truncating = false;
                // An entry that is not there is the caller's mistake, not the disk's.
                match result {
                    Err(error @ Error::UnknownEntry { .. }) => done(Err(error)),
                    result => self.answer(result, done),
                }
            }
            Job::SaveVote { vote, done } => {
                let result = self.save_vote(vote);
                self.answer(result, done);
            }
            Job::Purge { upto, done } => {
                let result = self.purge(upto);
                self.answer(result, done);
            }
            Job::Remove { below, done } => {
                let result = self.remove(below);
                self.answer(result, done);
            }
            Job::Replace { with, done } => {
                self.replace(with, done);
            }
            Job::Mend { mended, done } => self.mend(&mended, done),
            Job::Close { done } => {
                let result = self.close();
                self.answer(result, done);
            }
        }
        true
    }

    pub(crate) fn answer(&mut self, result: Result<(), Error>, done: Done) {
        if let Err(error) = &result {
            self.poison(error);
        }
        done(result);
    }

    /// Ends the log: after a failed write or sync nobody knows what the disk has.
    fn poison(&mut self, error: &Error) {
        tracing::error!(%error, "log stops");
        self.unsynced_since = None;
        let mut inner = self.shared.inner();
        inner.poisoned.get_or_insert_with(|| error.clone());
        let jobs: Vec<Job> = inner.queue.drain(..).collect();
        drop(inner);
        for job in jobs {
            job.into_done()(Err(Error::poisoned_by(error)));
        }
    }

    // ── appending ────────────────────────────────────────────────────────────────────────────

    /// Writes `first` and the appends that are queued right behind it.
    fn append(&mut self, first: Append) {
        let group = self.gather(first);
        let mut ops = Vec::new();
        let mut dones = Vec::with_capacity(group.len());
        let (mut end, mut force) = (LogOffset(0), false);
        for append in group {
            self.unsynced_bytes += append.bytes;
            ops.extend(append.ops);
            dones.push(append.done);
            end = append.end;
            force |= append.force;
        }
        let result = self.write(ops, end, force);
        if let Err(error) = &result {
            self.poison(error);
        }
        for done in dones {
            done(result.clone());
        }
        if result.is_ok() {
            self.after_append();
        }
    }

    fn gather(&self, first: Append) -> Vec<Append> {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        let mut inner = self.shared.inner();
        while bytes < self.shared.config.sync_group_bytes {
            match inner.queue.pop_front() {
                Some(Job::Append(next)) => {
                    bytes += next.bytes;
                    group.push(next);
                }
                Some(other) => {
                    inner.queue.push_front(other);
                    break;
                }
                None => break,
            }
        }
        group
    }

    fn write(&mut self, ops: Vec<Op>, end: LogOffset, force: bool) -> Result<(), Error> {
        let mut run = Run::default();
        let mut group_bytes = 0;
        for op in ops {
            // Recovery relies on it that no more than a group is ever unsynced.
            if group_bytes >= self.shared.config.sync_group_bytes {
                run.flush(self.active.as_ref())?;
                self.sync_active()?;
                group_bytes = 0;
            }
            group_bytes += op_len(&op);
            match op {
                Op::Segment(header) => {
                    run = if Bug::B25.is_sown() { Run::default() } else { run };
                    run.flush(self.active.as_ref())?;
                    self.roll(&header)?;
                }
                op => run.push(op, self.active.as_ref()),
            }
        }
        run.flush(self.active.as_ref())?;
        {
            let mut inner = self.shared.inner();
            inner.written = end;
            inner.assert_marks();
        }
        let now = match self.shared.config.flush {
            Flush::Sync if Bug::B02.is_sown() => {
                force || self.unsynced_since.is_some_and(|since| since.elapsed() >= HALF_A_SECOND)
            }
            Flush::Sync => true,
            Flush::Async { max_bytes, max_delay } => {
                let waits = self.unsynced_since.is_some_and(|since| since.elapsed() >= max_delay);
                force || waits || self.unsynced_bytes >= max_bytes
            }
        };
        if now {
            return self.sync();
        }
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Seals the segment that is being written and begins the next one. The old one is durable
    /// before the new one exists, so that a segment that has a successor is whole.
    fn roll(&mut self, header: &SegmentHeader) -> Result<(), Error> {
        self.sync_active()?;
        let spare = {
            let mut inner = self.shared.inner();
            inner.promised -= 1;
            if let Some(sealed) = self.active.as_ref().and_then(|a| inner.segments.get(&a.base.0)) {
                sealed.set_file(None);
            }
            inner.spares.take()
        };
        let active = spare.promote(&*self.shared.disk, header)?;
        if let Some(segment) = self.shared.inner().segments.get(&header.base.0) {
            segment.set_file(Some(active.file.clone()));
        }
        self.active = Some(active);
        Ok(())
    }

    fn sync_active(&self) -> Result<(), Error> {
        let Some(active) = &self.active else { return Ok(()) };
        match active.file.sync_data() {
            Err(_) if Bug::B22.is_sown() => Ok(()),
            synced => synced.map_err(|e| Error::io("sync", &segment_name(active.base), e)),
        }
    }

    /// Makes everything written durable.
    fn sync(&mut self) -> Result<(), Error> {
        self.sync_active()?;
        self.unsynced_bytes = 0;
        self.unsynced_since = None;
        let mut inner = self.shared.inner();
        inner.synced = inner.written;
        let written = inner.written;
        inner.cache.evict(written);
        Ok(())
    }

    fn after_append(&mut self) {
        self.replenish();
        let synced = self.shared.inner().synced;
        if synced.0.saturating_sub(self.hard.state().synced.0)
            >= self.shared.config.mark_every_bytes
            && let Err(error) = self.mark()
        {
            self.poison(&error);
        }
    }

    /// Reserves space ahead of need. A full disk is no failure yet: appends are refused when there
    /// is really no room, and space that comes back is found at the next try.
    fn replenish(&mut self) {
        loop {
            let order = {
                let mut inner = self.shared.inner();
                let wanted = inner.promised + u64::from(self.shared.config.spare_segments);
                if inner.spares.ready() >= wanted || inner.segments.is_empty() {
                    return;
                }
                inner.spares.order()
            };
            match order.make() {
                Ok(spare) => {
                    self.told_full = false;
                    self.shared.inner().spares.put(spare);
                }
                Err(Error::DiskFull) => {
                    if !std::mem::replace(&mut self.told_full, true) {
                        tracing::warn!("disk is full: no space for a segment in reserve");
                    }
                    return;
                }
                Err(error) => {
                    self.poison(&error);
                    return;
                }
            }
        }
    }

    // ── hard state ───────────────────────────────────────────────────────────────────────────

    /// The hard state with the marks as they are now.
    pub(crate) fn marked(&self) -> HardState {
        let inner = self.shared.inner();
        HardState { synced: inner.synced, committed: inner.committed, ..self.hard.state() }
    }

    fn mark(&mut self) -> Result<(), Error> {
        let state = self.marked();
        self.hard.save(state)
    }

    fn save_vote(&mut self, vote: [u8; VOTE_LEN]) -> Result<(), Error> {
        // Entries before the vote must not be lost when the vote is not.
        self.sync()?;
        let state = HardState { vote: Some(vote), ..self.marked() };
        self.hard.save(state)?;
        self.shared.inner().vote = Some(vote);
        Ok(())
    }

    fn purge(&mut self, upto: LogId) -> Result<(), Error> {
        let state = self.marked();
        let purged = state.purged.max(Some(upto));
        self.hard.save(HardState { purged, ..state })?;
        let mut inner = self.shared.inner();
        inner.purged = purged;
        if inner.last.map(|id| id.index) < Some(upto.index) {
            inner.last = Some(upto);
            // What follows does not continue what is in memory.
            inner.cache.truncate(LogOffset(0));
        }
        inner.assert_marks();
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        self.sync()?;
        let state = HardState { clean: true, ..self.marked() };
        self.hard.save(state)
    }

    // ── removing ─────────────────────────────────────────────────────────────────────────────

    pub(crate) fn remove_file(&self, base: LogOffset) -> Result<(), Error> {
        let name = segment_name(base);
        self.shared.disk.remove(&name).map_err(|e| Error::io("remove", &name, e))?;
        self.shared.disk.sync_dir().map_err(|e| Error::io("sync the directory of", &name, e))
    }

    fn remove(&mut self, below: LogOffset) -> Result<(), Error> {
        while let Some((base, recycle)) = self.removable(below) {
            if recycle {
                self.shared.inner().spares.recycle(base)?;
                let disk = &self.shared.disk;
                disk.sync_dir()
                    .map_err(|e| Error::io("sync the directory of", &segment_name(base), e))?;
            } else {
                self.remove_file(base)?;
            }
            tracing::info!(%base, recycle, "segment removed");
        }
        Ok(())
    }

    /// Takes the oldest segment out of the log if it is not needed any more, and tells whether its
    /// file can be used again.
    fn removable(&self, below: LogOffset) -> Option<(LogOffset, bool)> {
        let mut inner = self.shared.inner();
        let purged = inner.purged?.index;
        let below = inner.pins.bound(below);
        let mut oldest = inner.segments.values();
        let (first, second) = (oldest.next()?, oldest.next()?);
        if first.limit() > below || second.header.first_index > purged.next() {
            return None;
        }
        let base = first.base();
        inner.changes += 1;
        let segment = inner.segments.remove(&base.0)?;
        let wanted = u64::from(self.shared.config.spare_segments);
        let unread = Arc::strong_count(&segment) == 1 && segment.is_unmapped();
        let recycle =
            segment.created_here && unread && inner.spares.ready() < wanted + inner.promised;
        Some((base, recycle))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::{Config, GroupId, Identity};
    use crate::log::CommitLog;
    use crate::record::{Kind, Record};
    use crate::sim::{Fault, SimDisk};

    #[test]
    fn a_background_sync_that_failed_is_never_tried_again() {
        let disk = SimDisk::new();
        let flush = Flush::Async { max_bytes: 1 << 20, max_delay: Duration::ZERO };
        let config = Config { flush, ..Config::with_segment_size(8192) };
        let identity = Identity { node_id: 1, group_id: Some(GroupId(1)), boot_id: None };
        let (log, mut writer, _) =
            CommitLog::open_without_thread(config, disk.clone(), identity).unwrap();
        let record = Record::new(LogId::new(1, 0), Kind::Batch, 0, Bytes::from_static(b"body"));
        log.append(vec![record], Box::new(|result| result.unwrap())).unwrap();
        assert!(writer.step());
        assert!(log.state().synced < log.state().written, "left to the background");
        disk.fail_next(Fault::Eio);
        writer.catch_up();
        let calls = disk.calls();
        writer.catch_up();
        assert_eq!(disk.calls(), calls, "the disk is left alone");
        assert!(log.state().synced < log.state().written);
        let refused = log.save_vote([1; VOTE_LEN], Box::new(|_| {})).unwrap_err();
        assert!(matches!(refused, Error::Poisoned { .. }), "{refused}");
    }
}
