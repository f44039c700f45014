//! What the parts of a node share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::bootstrap::WaitingFor;
use crate::change::reception::Reception;
use crate::failure::Failure;
use crate::local::Local;
use crate::network::auth::Credentials;
use crate::network::hello::hello;
use crate::network::links::Links;
use crate::network::presence::Presence;
use crate::network::server::Consensus;
use crate::read_barrier::ReadBarrier;
use crate::repair::Mender;
use crate::role::UNFORMED;
use crate::upkeep::Counters;
use crate::{Config, NodeId, Role, membership};

/// How long a member may take to say who it is.
const SEED_TIMEOUT: Duration = Duration::from_secs(1);

/// Cheap to clone: everything in it is shared.
#[derive(Clone)]
pub(crate) struct Parts {
    pub config: Arc<Config>,
    pub local: Arc<Local>,
    pub credentials: Credentials,
    pub links: Arc<Links>,
    pub presence: Arc<Presence>,
    pub consensus: Arc<OnceLock<Consensus>>,
    pub barrier: Arc<OnceLock<ReadBarrier>>,
    pub log: Arc<OnceLock<Arc<commitlog::CommitLog>>>,
    pub reader: Arc<OnceLock<commitlog::Reader>>,
    pub mender: Arc<OnceLock<Arc<Mender>>>,
    pub upkeep: Arc<Counters>,
    /// The members that the state knew when it was opened.
    pub known: Arc<Mutex<BTreeMap<NodeId, String>>>,
    pub waiting_for: Arc<WaitingFor>,
    pub reception: Arc<Reception>,
    /// Held while a backup is taken.
    pub backups: Arc<tokio::sync::Mutex<()>>,
    pub failure: Failure,
    pub role: watch::Sender<Role>,
    pub stop: watch::Sender<bool>,
}

impl Parts {
    pub(crate) fn new(config: Config, group: Option<crate::GroupId>) -> Parts {
        let local = Arc::new(Local::new(&config, group));
        let credentials = Credentials::new(
            config.node_id,
            &config.broker_name,
            config.secret.clone(),
            local.group.clone(),
        );
        let barrier: Arc<OnceLock<ReadBarrier>> = Arc::default();
        let role = watch::Sender::new(UNFORMED);
        let reception =
            Reception::new(local.clone(), role.subscribe(), barrier.clone(), config.segment_size);
        Parts {
            links: Arc::new(Links::new(credentials.clone())),
            config: Arc::new(config),
            local,
            credentials,
            presence: Arc::default(),
            consensus: Arc::default(),
            barrier,
            log: Arc::default(),
            reader: Arc::default(),
            mender: Arc::default(),
            upkeep: Arc::default(),
            known: Arc::default(),
            waiting_for: Arc::default(),
            reception: Arc::new(reception),
            backups: Arc::default(),
            failure: Failure::default(),
            role,
            stop: watch::Sender::new(false),
        }
    }

    /// Keeps in mind whom a state knew, for as long as consensus does not say it.
    pub(crate) fn remember_members(&self, membership: Option<Bytes>) {
        let Some(Ok(kept)) = membership.map(membership::decode) else { return };
        let nodes = kept.membership.nodes();
        let known = nodes.map(|(id, node)| (NodeId(*id), node.raft_addr.clone())).collect();
        *self.known.lock().expect("no holder panics") = known;
    }

    /// A node that joined its group and then lost its state knows nobody but those whom it was told
    /// of; it asks them who they are.
    pub(crate) async fn meet_seeds(&self) {
        if !self.others().is_empty() {
            return;
        }
        let met = self.config.join.iter().map(async |addr| {
            let link = self.links.anybody(addr);
            let greeting = hello(&link, &self.local, &self.credentials);
            let greeting = timeout(SEED_TIMEOUT, greeting).await.ok()?.ok()?;
            Some((NodeId(greeting.from.node_id), addr.clone()))
        });
        let met = join_all(met).await.into_iter().flatten().collect();
        *self.known.lock().expect("no holder panics") = met;
    }

    /// Who belongs to the group, as far as this node knows; empty if it does not.
    pub(crate) fn members(&self) -> BTreeMap<NodeId, String> {
        let running = self.consensus.get().map(|consensus| {
            let metrics = consensus.raft.server_metrics();
            let membership = metrics.borrow_watched().membership_config.clone();
            let nodes = membership.nodes();
            nodes.map(|(id, node)| (NodeId(*id), node.raft_addr.clone())).collect()
        });
        let known = || self.known.lock().expect("no holder panics").clone();
        running.filter(|members: &BTreeMap<_, _>| !members.is_empty()).unwrap_or_else(known)
    }
}
