//! Feeds committed entries to the state machine, and its outcomes to the proposers.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::failure::{Failure, Panicked};
use crate::log_view::LogView;
use crate::membership;
use crate::state_machine::{Entry, Payload, StateMachine};
use crate::types::{EntryPayload, LogEntry, RaftLogId, Reply, TypeConfig, from_raft, to_raft};
use crate::{ApplyError, Error, batch};

/// Entries are applied together until they have this many bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Or until there are this many.
const CHUNK_ENTRIES: usize = 1024;

/// A [`StateMachine`] with its type of outcome hidden, so that openraft is instantiated once.
trait Apply: Send + Sync + 'static {
    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Reply>, ApplyError>;
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
}

fn command_count(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Blank | Payload::Membership(_) => 0,
        Payload::Batch(commands) => commands.len(),
    }
}

/// The adapter between openraft and a [`StateMachine`].
pub(crate) struct Machine {
    state: Box<dyn Apply>,
    applied: Option<RaftLogId>,
    membership: StoredMembershipOf<TypeConfig>,
    log: Arc<LogView>,
    failure: Failure,
}

impl Machine {
    /// # Errors
    /// What the state machine kept of the membership cannot be read.
    pub(crate) fn new<S: StateMachine>(
        state: S,
        log: Arc<LogView>,
        failure: Failure,
    ) -> Result<Machine, Error> {
        let applied = state.applied();
        if applied.log_id > log.last() {
            return Err(Error::LogBehindState { applied: applied.log_id, last: log.last() });
        }
        let membership = match applied.membership {
            None => StoredMembershipOf::<TypeConfig>::default(),
            Some(bytes) => {
                let (log_id, membership) = membership::decode(bytes).map_err(ApplyError::new)?;
                StoredMembershipOf::<TypeConfig>::new(log_id.map(to_raft), membership)
            }
        };
        log.watermarks.attach_machine(applied.log_id.map(|id| id.index));
        Ok(Machine {
            state: Box::new(Typed(state)),
            applied: applied.log_id.map(to_raft),
            membership,
            log,
            failure,
        })
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
            self.membership = membership;
        }
        self.log.watermarks.applied(last);
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
        let applied = catch_unwind(AssertUnwindSafe(|| self.state.apply(entries)));
        applied.unwrap_or_else(|panic| Err(ApplyError::new(Panicked::from(&*panic))))
    }

    async fn apply_stream<Strm>(&mut self, mut entries: Strm) -> Result<(), Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunk = Chunk::default();
        while let Some((entry, responder)) =
            entries.try_next().await.map_err(|error| read_failed(&error))?
        {
            chunk.push(entry, responder)?;
            if chunk.is_full() {
                self.apply_chunk(std::mem::take(&mut chunk)).await?;
            }
        }
        self.apply_chunk(chunk).await
    }
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
    ) -> Result<(), Error> {
        let log_id = from_raft(&entry.log_id);
        self.bytes += entry.body_len();
        let payload = match entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Membership(body) => {
                let kept = membership::encode(Some(log_id), &body.membership);
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

/// Snapshots come with retention, which is what makes them necessary. Until then nothing is ever
/// purged, so that none is ever asked for; being asked all the same is an error, not a pretence.
#[derive(Debug)]
pub(crate) struct NoSnapshots;

/// The data of a snapshot: there is none.
#[derive(Debug, Clone)]
pub(crate) enum NoSnapshot {}

#[derive(Debug, thiserror::Error)]
#[error("this version neither makes nor takes snapshots")]
pub(crate) struct SnapshotsUnsupported;

impl RaftSnapshotBuilder<TypeConfig> for NoSnapshots {
    type SnapshotData = NoSnapshot;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, NoSnapshot>, io::Error> {
        Err(io::Error::new(io::ErrorKind::Unsupported, SnapshotsUnsupported))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = NoSnapshot;
    type SnapshotBuilder = NoSnapshots;

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

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: NoSnapshot,
    ) -> Result<(), io::Error> {
        match snapshot {}
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, NoSnapshot>>, io::Error> {
        Ok(None)
    }
}
