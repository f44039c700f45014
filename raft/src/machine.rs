//! Feeds committed entries to the state machine, and its outcomes to the proposers.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use commitlog::CommitLog;
use commitlog::position::LogOffset;
use futures::{FutureExt, Stream, TryStreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::failure::{Failure, Panicked};
use crate::log_view::LogView;
use crate::membership;
use crate::roster::Roster;
use crate::snapshot::install::{self, Installed, Installs, Target};
use crate::snapshot::send::blocking;
use crate::snapshot::store::{Store, Stored};
use crate::snapshot::{self, Snapshot};
use crate::state_machine::{Applied, Checkpoint, Entry, Payload, Scrub, StateMachine};
use crate::types::{EntryPayload, LogEntry, RaftLogId, Reply, TypeConfig, from_raft, to_raft};
use crate::upkeep::Counters;
use crate::{ApplyError, Error, batch};

/// Entries are applied together until they have this many bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Or until there are this many.
const CHUNK_ENTRIES: usize = 1024;

/// A [`StateMachine`] with its type of outcome hidden, so that openraft is instantiated once.
trait Apply: Send + Sync + 'static {
    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Reply>, ApplyError>;
    fn applied(&self) -> Applied;
    fn floor(&self) -> LogOffset;
    fn checkpoint(&self) -> Checkpoint;
    fn scrub(&self) -> Option<Scrub>;
    fn install(&mut self, from: &Path) -> Result<(), ApplyError>;
}

struct Typed<S>(S);

impl<S: StateMachine> Apply for Typed<S> {
    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Reply>, ApplyError> {
        let expected: Vec<usize> = entries.iter().map(command_count).collect();
        let outcomes = self.0.apply(entries)?;
        let found: Vec<usize> = outcomes.iter().map(Vec::len).collect();
        assert_eq!(expected, found, "one outcome per command");
        Ok(outcomes.into_iter().map(Reply::new).collect())
    }

    fn applied(&self) -> Applied {
        self.0.applied()
    }

    fn floor(&self) -> LogOffset {
        self.0.floor()
    }

    fn checkpoint(&self) -> Checkpoint {
        self.0.checkpoint()
    }

    fn scrub(&self) -> Option<Scrub> {
        self.0.scrub()
    }

    fn install(&mut self, from: &Path) -> Result<(), ApplyError> {
        self.0.install(from)
    }
}

fn command_count(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Blank | Payload::Membership(_) => 0,
        Payload::Batch(commands) => commands.len(),
    }
}

/// The adapter between openraft and a [`StateMachine`].
pub(crate) struct Machine {
    /// Away while a snapshot is installed.
    state: Option<Box<dyn Apply>>,
    applied: Option<RaftLogId>,
    membership: StoredMembershipOf<TypeConfig>,
    roster: Arc<Roster>,
    log: Arc<LogView>,
    store: Arc<Store>,
    target: Arc<CommitLog>,
    log_dir: PathBuf,
    failure: Failure,
    upkeep: Arc<Counters>,
}

/// What a machine needs beside its state.
pub(crate) struct Surroundings {
    pub(crate) view: Arc<LogView>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) store: Arc<Store>,
    pub(crate) log: Arc<CommitLog>,
    /// The directory of `log`.
    pub(crate) log_dir: PathBuf,
    pub(crate) failure: Failure,
    pub(crate) upkeep: Arc<Counters>,
}

impl Machine {
    /// # Errors
    /// What the state machine kept of the membership cannot be read.
    pub(crate) fn new<S: StateMachine>(
        state: S,
        surroundings: Surroundings,
    ) -> Result<Machine, Error> {
        let Surroundings { view: log, roster, store, log: target, log_dir, failure, upkeep } =
            surroundings;
        let applied = state.applied();
        if applied.log_id > log.last() {
            return Err(Error::LogBehindState { applied: applied.log_id, last: log.last() });
        }
        let purged = log.watermarks.marks().purged;
        if applied.log_id.map(|id| id.index) < purged {
            return Err(Error::StateBehindLog { applied: applied.log_id, purged });
        }
        let membership = stored_membership(applied.membership, &roster)?;
        log.watermarks.attach_machine(applied.log_id.map(|id| id.index));
        log.set_floor(state.floor());
        Ok(Machine {
            state: Some(Box::new(Typed(state))),
            applied: applied.log_id.map(to_raft),
            membership,
            roster,
            log,
            store,
            target,
            log_dir,
            failure,
            upkeep,
        })
    }

    fn state(&mut self) -> &mut Box<dyn Apply> {
        self.state.as_mut().expect("nothing is asked for while a snapshot is installed")
    }

    /// How to write a copy of the state.
    pub(crate) fn checkpoint(&mut self) -> Checkpoint {
        self.state().checkpoint()
    }

    /// How to read the state again.
    pub(crate) fn scrub(&mut self) -> Option<Scrub> {
        self.state().scrub()
    }

    async fn install(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        let started = Instant::now();
        let mut state = self.state.take().expect("one snapshot is installed at a time");
        let (store, log, log_dir) = (self.store.clone(), self.target.clone(), self.log_dir.clone());
        let path = store.installing();
        let work = move || {
            let installed = match snapshot {
                Snapshot::Arrived(dir) => {
                    let (store, log, log_dir) = (&*store, &*log, &*log_dir);
                    let target = Target { store, log, log_dir, state: &mut state };
                    Some(install::install(target, &dir)?)
                }
                // A state that was lost, or lives in memory only; the log has the rest.
                Snapshot::Own(stored) => {
                    Apply::install(&mut *state, &stored.state())?;
                    None
                }
            };
            Ok((state, installed))
        };
        let installed = AssertUnwindSafe(blocking(work)).catch_unwind().await;
        let installed =
            installed.unwrap_or_else(|panic| Err(ApplyError::new(Panicked::from(&*panic)).into()));
        let (state, installed) = installed.map_err(|source| match source {
            snapshot::Error::Install(error) => Error::Apply(error),
            source => Error::Snapshot { path, source: Box::new(source) },
        })?;
        let applied = Apply::applied(&*state);
        match (installed, applied.log_id) {
            (Some(Installed { last, log_last, log_stamp }), _) => {
                self.log.installed(last, log_last, log_stamp);
                self.upkeep.snapshot_installed(started.elapsed());
            }
            (None, Some(last)) => {
                let log_last = self.log.last().unwrap_or(last);
                self.log.watermarks.installed(last, log_last);
            }
            (None, None) => {}
        }
        self.log.set_floor(state.floor());
        self.applied = applied.log_id.map(to_raft);
        self.membership = stored_membership(applied.membership, &self.roster)?;
        self.state = Some(state);
        tracing::info!(applied = ?applied.log_id, took = ?started.elapsed(), "snapshot installed");
        Ok(())
    }

    async fn apply_chunk(&mut self, chunk: Chunk) -> Result<(), Error> {
        let Some(last) = chunk.entries.last().map(|entry| entry.log_id) else { return Ok(()) };
        let expected = self.applied.map_or(0, |applied| applied.index() + 1);
        let first = chunk.entries.first().map(|entry| entry.log_id.index.0);
        assert_eq!(first, Some(expected), "entries are applied without a gap");
        // The state machine may make durable what it applied at any moment. It must not get ahead
        // of the log, which a crash would otherwise leave with a hole.
        self.log.wait_stored(last.index).await;
        let replies = self.apply_or_fail(chunk.entries)?;
        self.applied = Some(to_raft(last));
        if let Some(membership) = chunk.membership {
            self.roster.apply(membership.membership(), self.roster.highest());
            self.membership = membership;
        }
        self.log.watermarks.applied(last);
        let floor = self.state().floor();
        self.log.set_floor(floor);
        for (responder, reply) in chunk.responders.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    /// A panic ends the node like an error: the task that it unwinds would otherwise be missed only
    /// by the proposers, who would wait for ever.
    fn apply_or_fail(&mut self, entries: Vec<Entry>) -> Result<Vec<Reply>, ApplyError> {
        let applied = catch_unwind(AssertUnwindSafe(|| self.state().apply(entries)));
        applied.unwrap_or_else(|panic| Err(ApplyError::new(Panicked::from(&*panic))))
    }

    async fn apply_stream<Strm>(&mut self, mut entries: Strm) -> Result<(), Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunk = Chunk::default();
        let mut highest = self.roster.highest();
        while let Some((entry, responder)) =
            entries.try_next().await.map_err(|error| read_failed(&error))?
        {
            chunk.push(entry, responder, &mut highest)?;
            if chunk.is_full() {
                self.apply_chunk(std::mem::take(&mut chunk)).await?;
            }
        }
        self.apply_chunk(chunk).await
    }
}

/// What a state machine kept of the membership, as openraft takes it; noted in the roster as well.
fn stored_membership(
    kept: Option<Bytes>,
    roster: &Roster,
) -> Result<StoredMembershipOf<TypeConfig>, ApplyError> {
    let Some(bytes) = kept else { return Ok(StoredMembershipOf::<TypeConfig>::default()) };
    let kept = membership::decode(bytes).map_err(ApplyError::new)?;
    roster.apply(&kept.membership, kept.highest);
    Ok(StoredMembershipOf::<TypeConfig>::new(kept.log_id.map(to_raft), kept.membership))
}

fn read_failed(error: &io::Error) -> Error {
    Error::Consensus { reason: format!("read committed entries: {error}") }
}

/// Entries that go to the state machine in one call.
#[derive(Default)]
struct Chunk {
    entries: Vec<Entry>,
    responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    membership: Option<StoredMembershipOf<TypeConfig>>,
    bytes: usize,
}

impl Chunk {
    fn push(
        &mut self,
        entry: LogEntry,
        responder: Option<ApplyResponder<TypeConfig>>,
        highest: &mut u64,
    ) -> Result<(), Error> {
        let log_id = from_raft(&entry.log_id);
        self.bytes += entry.body_len();
        let payload = match entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Membership(body) => {
                *highest = (*highest).max(membership::highest_of(&body.membership));
                let kept = membership::encode_kept(log_id, &body.membership, *highest);
                self.membership = Some(StoredMembershipOf::<TypeConfig>::new(
                    Some(entry.log_id),
                    body.membership,
                ));
                Payload::Membership(kept)
            }
            EntryPayload::Batch(body) => {
                let position = entry.position.expect("committed entries are read from the log");
                let commands = batch::decode(&body.body, position).map_err(ApplyError::new)?;
                Payload::Batch(commands)
            }
        };
        self.entries.push(Entry { log_id, stamp: entry.stamp, payload });
        self.responders.push(responder);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes >= CHUNK_BYTES || self.entries.len() >= CHUNK_ENTRIES
    }
}

/// Shows openraft the snapshot that counts: [`crate::purge`] makes it. Makes one itself only where
/// there is none, which is when what was purged asks for one at the start.
pub(crate) struct Builder {
    store: Arc<Store>,
    checkpoint: Option<Checkpoint>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, Snapshot>, io::Error> {
        let stored = match (self.store.current(), self.checkpoint.take()) {
            (Some(stored), _) => stored,
            (None, Some(checkpoint)) => {
                let store = self.store.clone();
                blocking(move || store.build(checkpoint)).await.map_err(io::Error::other)?
            }
            (None, None) => return Err(io::Error::other("a builder builds once")),
        };
        shown(stored)
    }
}

fn shown(stored: Arc<Stored>) -> Result<SnapshotOf<TypeConfig, Snapshot>, io::Error> {
    let meta = stored.manifest.meta().map_err(io::Error::other)?;
    Ok(SnapshotOf::<TypeConfig, Snapshot> { meta, snapshot: Snapshot::Own(stored) })
}

/// A state machine during an installation.
impl Installs for Box<dyn Apply> {
    fn applied(&self) -> Applied {
        Apply::applied(&**self)
    }

    fn install(&mut self, from: &Path) -> Result<(), ApplyError> {
        Apply::install(&mut **self, from)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<RaftLogId>, StoredMembershipOf<TypeConfig>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.apply_stream(entries).await.map_err(|error| {
            let text = error.to_string();
            self.failure.report(error);
            io::Error::other(text)
        })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: self.store.clone(), checkpoint: Some(self.checkpoint()) }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: Snapshot,
    ) -> Result<(), io::Error> {
        self.install(snapshot).await.map_err(|error| {
            let text = error.to_string();
            self.failure.report(error);
            io::Error::other(text)
        })
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, Snapshot>>, io::Error> {
        self.store.current().map(shown).transpose()
    }
}
