//! Taking on a group's identity, by founding the group or by invitation.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use proto::raft_rpc as rpc;
use tokio::sync::watch;

use super::decision::Holding;
use super::identity::{Identity, Synced};
use crate::failure::Failure;
use crate::local::{self, Local};
use crate::{Error, GroupId, NodeId};

pub(crate) struct Adoption {
    local: Arc<Local>,
    data_dir: PathBuf,
    failure: Failure,
    /// One at a time, so that two invitations cannot both be accepted.
    deciding: Mutex<()>,
    adopted: watch::Sender<bool>,
}

impl Adoption {
    pub(crate) fn new(local: Arc<Local>, data_dir: PathBuf, failure: Failure) -> Adoption {
        let adopted = watch::Sender::new(local.group.get().is_some());
        Adoption { local, data_dir, failure, deciding: Mutex::new(()), adopted }
    }

    /// Turns true once the node belongs to a group.
    pub(crate) fn adopted(&self) -> watch::Receiver<bool> {
        self.adopted.subscribe()
    }

    /// Stores `group` as this node's group, unless it already belongs to one. Durable when it
    /// returns.
    pub(crate) fn adopt(&self, group: GroupId) -> Result<(), Error> {
        let _deciding = self.deciding.lock().expect("no holder panics");
        self.store(group, false)
    }

    /// The same for a group that existed before this node came.
    pub(crate) fn join(&self, group: GroupId) -> Result<(), Error> {
        let _deciding = self.deciding.lock().expect("no holder panics");
        self.store(group, true)
    }

    fn store(&self, group: GroupId, joined: bool) -> Result<(), Error> {
        if self.local.group.get().is_some() {
            return Ok(());
        }
        let (broker_name, node) = (self.local.broker_name.clone(), self.local.node);
        Identity { broker_name, group, node, joined, has_log: false, synced: Synced::Always }
            .store(&self.data_dir)?;
        self.local.group.set(group).expect("only set under the lock");
        self.adopted.send_replace(true);
        Ok(())
    }

    /// Whether this node takes on the identity that `caller` offers: if it holds nothing and
    /// `caller` is the founder of the group that both were configured for.
    pub(crate) fn invited(
        &self,
        caller: NodeId,
        from: Option<&rpc::Introduction>,
        group: GroupId,
    ) -> bool {
        let _deciding = self.deciding.lock().expect("no holder panics");
        match self.local.holding() {
            Holding::Adopted(ours) | Holding::Formed(ours) => return ours == group,
            Holding::Nothing => {}
        }
        let founder = self.local.peers.keys().next() == Some(&caller);
        let same = from.and_then(local::answer).is_some_and(|answer| {
            answer.peers == self.local.peers && answer.broker_name == self.local.broker_name
        });
        if !founder || !same {
            return false;
        }
        match self.store(group, false) {
            Ok(()) => {
                tracing::info!(%group, founder = %caller, "invited into a new group");
                true
            }
            Err(error) => {
                self.failure.report(error);
                false
            }
        }
    }
}
