//! openraft's own test suite for storages, on the simulated disk and on a real directory.

use std::io;
use std::sync::{Arc, Mutex};

use futures::{Stream, TryStreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot, StorageError};

use super::*;
use crate::types::Reply;

/// A state machine that remembers no more than where it is. Unlike the real one it makes
/// snapshots, because the suite asks for them.
#[derive(Debug, Clone, Default)]
struct Remembers(Arc<Mutex<Memory>>);

#[derive(Debug, Clone, Default)]
struct Memory {
    applied: Option<RaftLogId>,
    membership: StoredMembershipOf<TypeConfig>,
    snapshot: Option<SnapshotMetaOf<TypeConfig>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Remembers {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        let mut memory = self.0.lock().unwrap();
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: memory.applied,
            last_membership: memory.membership.clone(),
        };
        memory.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Remembers {
    type SnapshotData = ();
    type SnapshotBuilder = Remembers;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<RaftLogId>, StoredMembershipOf<TypeConfig>), io::Error> {
        let memory = self.0.lock().unwrap();
        Ok((memory.applied, memory.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut memory = self.0.lock().unwrap();
            memory.applied = Some(entry.log_id);
            if let Some(membership) = entry.get_membership() {
                memory.membership =
                    StoredMembershipOf::<TypeConfig>::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Reply::new(Vec::<()>::new()));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Remembers {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        (): (),
    ) -> Result<(), io::Error> {
        let mut memory = self.0.lock().unwrap();
        memory.applied = meta.last_log_id;
        memory.membership = meta.last_membership.clone();
        memory.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        let snapshot = self.0.lock().unwrap().snapshot.clone();
        Ok(snapshot.map(|meta| Snapshot { meta, snapshot: () }))
    }
}

/// The suite leaves out the first entries of some logs, which Raft never does and the commit log
/// does not allow. This puts blanks in their place.
struct Backfilled(LogStore);

impl RaftLogStorage<TypeConfig> for Backfilled {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.0.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.0.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.0.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.0.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        self.0.read_committed().await
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
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let next = self.0.log.state().last.map_or(0, |last| last.index.0 + 1);
        let first = entries.first().map_or(next, |entry| entry.log_id.index());
        let term = self.0.log.state().last.map_or(0, |last| last.term.0);
        let blanks = (next..first).map(|index| {
            LogEntry::new_blank(to_raft(commitlog::position::LogId::new(term, index)))
        });
        let all: Vec<LogEntry> = blanks.chain(entries).collect();
        self.0.append(all, flushed).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.0.truncate_after(last).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        self.0.purge(upto).await
    }
}

fn stores<D: commitlog::Disk + 'static>(disk: D) -> (Backfilled, Remembers) {
    let identity =
        commitlog::Identity { node_id: 0, group_id: Some(commitlog::GroupId(7)), boot_id: None };
    let config = commitlog::Config::with_segment_size(1 << 20);
    let (log, _) = CommitLog::open(config, disk, identity).unwrap();
    let log = Arc::new(log);
    let view = Arc::new(crate::consensus::look_at(&log).unwrap());
    (Backfilled(LogStore::new(log, view)), Remembers::default())
}

struct OnDirectory;

impl StoreBuilder<TypeConfig, Backfilled, Remembers, tempfile::TempDir> for OnDirectory {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, Backfilled, Remembers), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = commitlog::FileDisk::new(dir.path()).unwrap();
        let (store, machine) = stores(disk);
        Ok((dir, store, machine))
    }
}

#[test]
fn the_suite_passes_on_a_directory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(Suite::test_all(OnDirectory)).unwrap();
}

struct OnSimulatedDisk;

impl StoreBuilder<TypeConfig, Backfilled, Remembers> for OnSimulatedDisk {
    async fn build(&self) -> Result<((), Backfilled, Remembers), StorageError<TypeConfig>> {
        let (store, machine) = stores(commitlog::SimDisk::new());
        Ok(((), store, machine))
    }
}

#[test]
fn the_suite_passes_on_the_simulated_disk() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(Suite::test_all(OnSimulatedDisk)).unwrap();
}
