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
