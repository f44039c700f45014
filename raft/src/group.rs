//! One replica of a broker group: what the layers above hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commitlog::position::LogOffset;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backup::{Backup, BackupError, Wish};
use crate::bootstrap::adoption::Adoption;
use crate::bootstrap::identity::Identity;
use crate::bootstrap::{Bootstrap, WaitingFor};
use crate::config::SNAPSHOT_RATE_MIN;
use crate::consensus::{Opened, Services, open};
use crate::failure::Failure;
use crate::local::Local;
use crate::network::auth::Credentials;
use crate::network::links::Links;
use crate::network::presence::{Presence, Watcher};
use crate::network::server::{Consensus, Server};
use crate::proposals::Proposals;
use crate::purge::make;
use crate::read_barrier::{Failed, ReadBarrier};
use crate::repair::Mender;
use crate::role::UNFORMED;
use crate::snapshot::send::Goods;
use crate::transfer::{TransferError, transfer};
use crate::upkeep::{Counters, Upkeep};
use crate::{
    Config, DiskSpace, Error, Member, NodeId, ProposeError, Reader, Role, StateMachine, Status,
    membership,
};

/// How often a backup looks whether this node has come far enough.
const APPLIED_POLL: Duration = Duration::from_millis(20);
/// What a node said of its disk longer ago does not count: it says so every second.
const DISK_WORD_AGE: Duration = Duration::from_secs(10);
/// How long connections to peers may take to end.
const GOOD_BYE: Duration = Duration::from_millis(500);

/// A running replica. Clones are handles of the same one, which ends with the last of them; call
/// [`Group::shutdown`] to end it in good order.
pub struct Group<S: StateMachine> {
    inner: Arc<Inner<S::Outcome>>,
}

impl<S: StateMachine> Clone for Group<S> {
    fn clone(&self) -> Self {
        Group { inner: self.inner.clone() }
    }
}

impl<S: StateMachine> std::fmt::Debug for Group<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("node", &self.inner.parts.local.node).finish_non_exhaustive()
    }
}

struct Inner<O> {
    parts: Parts,
    proposals: Arc<Proposals<O>>,
    /// Ends with this handle.
    tasks: Mutex<JoinSet<()>>,
}

/// What the parts of a node share.
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
    known: Arc<Mutex<BTreeMap<NodeId, String>>>,
    pub waiting_for: Arc<WaitingFor>,
    /// Held while a backup is taken.
    pub backups: Arc<tokio::sync::Mutex<()>>,
    pub failure: Failure,
    pub role: watch::Sender<Role>,
    pub stop: watch::Sender<bool>,
}

impl<S: StateMachine> Group<S> {
    /// Starts a replica. Returns once what the node holds is replayed and its Raft port is open;
    /// a node that holds nothing yet goes on to find its peers, which [`Group::status`] shows.
    ///
    /// # Errors
    /// The configuration, the data directory or the port cannot be used. What is found out later
    /// is told by [`Group::failed`].
    pub async fn start(config: Config, state_machine: S) -> Result<Group<S>, Error> {
        let addr = config.validate()?.to_owned();
        std::fs::create_dir_all(&config.data_dir).map_err(|source| Error::Io {
            action: "create",
            path: config.data_dir.clone(),
            source,
        })?;
        let identity = Identity::load(&config)?;
        let listener = TcpListener::bind(&addr)
            .await
            .map_err(|source| Error::Listen { addr: addr.clone(), source })?;
        let parts = Parts::new(config, identity.map(|identity| identity.group));
        let proposals = Arc::new(Proposals::new(parts.config.limits.clone()));
        let inner = Arc::new(Inner {
            parts: parts.clone(),
            proposals: proposals.clone(),
            tasks: Mutex::new(JoinSet::new()),
        });
        let adoption = Arc::new(Adoption::new(
            parts.local.clone(),
            parts.config.data_dir.clone(),
            parts.failure.clone(),
        ));
        // A node with data replays it before it says anything to anybody.
        let opened = match parts.local.group.get() {
            Some(&group) => Ok(open(&parts, group, state_machine).await?),
            None => Err(state_machine),
        };
        inner.serve(listener, &adoption);
        inner.watch_peers();
        inner.spawn(take_part(parts, proposals, adoption, opened));
        Ok(Group { inner })
    }

    /// Replicates one command, given in parts that are concatenated, and returns its outcome.
    ///
    /// # Errors
    /// See [`ProposeError`], whose variants say what became of the command. Past `deadline` it is
    /// `Overloaded` if the command had not been proposed, else `Unknown`.
    pub async fn propose(
        &self,
        parts: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<S::Outcome, ProposeError> {
        self.inner.check_leader()?;
        self.inner.proposals.propose(parts, deadline.into()).await
    }

    /// Returns once everything that was committed before the call is applied here, and a quorum
    /// has confirmed that this node led meanwhile.
    ///
    /// # Errors
    /// `NotLeader`: another node leads, or a quorum did not confirm before `deadline`. `Stopped`.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<(), ProposeError> {
        self.inner.check_leader()?;
        let barrier = self.inner.parts.barrier.get();
        let barrier = barrier.ok_or(ProposeError::NotLeader { leader: None })?;
        barrier.pass(deadline.into()).await.map_err(|failed| match failed {
            Failed::NotConfirmed => ProposeError::NotLeader { leader: self.inner.other_leader() },
            Failed::Stopped => ProposeError::Stopped,
        })
    }

    /// This node's role. `Leader` appears once everything that was committed before is applied.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.parts.role.subscribe()
    }

    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Where the log on this node begins and ends; `None` until the node belongs to a group.
    pub fn log_span(&self) -> Option<std::ops::Range<LogOffset>> {
        let log = self.inner.parts.log.get()?.state();
        Some(log.start..log.end)
    }

    /// Reads commands by the position that [`crate::Command`] named.
    pub fn reader(&self) -> Reader {
        Reader::new(self.inner.parts.reader.clone(), self.inner.parts.mender.clone())
    }

    /// What this node did to stay whole.
    pub fn upkeep(&self) -> Upkeep {
        self.inner.parts.upkeep.read()
    }

    /// The newest commands that all members understand: what may be proposed without stopping any
    /// of them. `None` while a member has not said, in this process's time, what it understands.
    pub fn feature_level(&self) -> Option<u32> {
        let parts = &self.inner.parts;
        let of = |member: &Member| match member.node_id == parts.local.node {
            true => Some(parts.local.feature_level),
            false => parts.presence.feature_level(member.node_id),
        };
        let levels = self.inner.members().iter().map(of).collect::<Option<Vec<u32>>>()?;
        levels.into_iter().min()
    }

    /// What is left of the disk under this node's log; the other replicas are told.
    pub fn set_disk(&self, space: DiskSpace) {
        self.inner.parts.local.set_disk(space);
    }

    /// What each member said of its disk in the last 10 s; this node is one of them.
    pub fn disks(&self) -> Vec<(Member, Option<DiskSpace>)> {
        let parts = &self.inner.parts;
        let of = |member: Member| {
            let space = match member.node_id == parts.local.node {
                true => Some(parts.local.disk()).filter(|space| *space != DiskSpace::default()),
                false => parts.presence.disk(member.node_id, DISK_WORD_AGE),
            };
            (member, space)
        };
        self.inner.members().into_iter().map(of).collect()
    }

    /// A copy of this replica that reaches up to what was applied here when this was called, or
    /// further. One at a time; entries are applied meanwhile.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn backup(&self, wish: Wish) -> Result<Backup, BackupError> {
        self.inner.backup(wish).await
    }

    /// Hands leadership to `to`, or to the voter that lags least. Returns who leads then.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        self.inner.transfer(to).await
    }

    /// Resolves when the node cannot go on: a failed disk, a state machine that cannot apply,
    /// peers that refuse it. The process should end, with this error.
    pub async fn failed(&self) -> Arc<Error> {
        self.inner.parts.failure.wait().await
    }

    /// Ends the replica in good order: accepts nothing more, answers what is in flight, hands
    /// leadership over, and marks the log as cleanly closed. Takes at most `timing.shutdown` for
    /// each of the two waits.
    pub async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

impl Parts {
    fn new(config: Config, group: Option<crate::GroupId>) -> Parts {
        let local = Arc::new(Local::new(&config, group));
        let credentials = Credentials::new(
            config.node_id,
            &config.broker_name,
            config.secret.clone(),
            local.group.clone(),
        );
        Parts {
            links: Arc::new(Links::new(credentials.clone())),
            config: Arc::new(config),
            local,
            credentials,
            presence: Arc::default(),
            consensus: Arc::default(),
            barrier: Arc::default(),
            log: Arc::default(),
            reader: Arc::default(),
            mender: Arc::default(),
            upkeep: Arc::default(),
            known: Arc::default(),
            waiting_for: Arc::default(),
            backups: Arc::default(),
            failure: Failure::default(),
            role: watch::Sender::new(UNFORMED),
            stop: watch::Sender::new(false),
        }
    }
}

impl Parts {
    /// Keeps in mind whom a state knew, for as long as consensus does not say it.
    pub(crate) fn remember_members(&self, membership: Option<Bytes>) {
        let Some(Ok((_, membership))) = membership.map(membership::decode) else { return };
        let nodes = membership.nodes();
        let known = nodes.map(|(id, node)| (NodeId(*id), node.raft_addr.clone())).collect();
        *self.known.lock().expect("no holder panics") = known;
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

/// From a node that serves to a member of a group that runs.
async fn take_part<S: StateMachine>(
    parts: Parts,
    proposals: Arc<Proposals<S::Outcome>>,
    adoption: Arc<Adoption>,
    opened: Result<Opened, S>,
) {
    let bootstrap = Bootstrap {
        local: parts.local.clone(),
        presence: parts.presence.clone(),
        links: parts.links.clone(),
        adoption,
        waiting_for: parts.waiting_for.clone(),
        failure: parts.failure.clone(),
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(state_machine) => {
            let Some(group) = bootstrap.find_group().await else { return };
            match open(&parts, group, state_machine).await {
                Ok(opened) => opened,
                Err(error) => return parts.failure.report(error),
            }
        }
    };
    let raft = opened.raft.clone();
    let mut services = Services::start(&parts, proposals, opened);
    // Either end is reported, and ends the services too.
    tokio::select! {
        () = bootstrap.form(&raft) => {}
        () = services.watch(&parts.failure) => {}
    }
}

impl<O: Send + 'static> Inner<O> {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().expect("no holder panics").spawn(task);
    }

    fn serve(&self, listener: TcpListener, adoption: &Arc<Adoption>) {
        let server = Server {
            local: self.parts.local.clone(),
            credentials: self.parts.credentials.clone(),
            presence: self.parts.presence.clone(),
            adoption: adoption.clone(),
            consensus: self.parts.consensus.clone(),
            log: self.parts.log.clone(),
            upkeep: self.parts.upkeep.clone(),
            config: self.parts.config.clone(),
            stop: self.parts.stop.subscribe(),
        };
        self.spawn(server.run(listener));
    }

    fn watch_peers(&self) {
        let parts = &self.parts;
        let others = parts.config.peers.iter().filter(|(node, _)| **node != parts.local.node);
        for (&node, addr) in others {
            let watcher = Watcher {
                link: parts.links.to(node, addr),
                local: parts.local.clone(),
                presence: parts.presence.clone(),
                credentials: parts.credentials.clone(),
            };
            self.spawn(watcher.run());
        }
    }

    fn check_leader(&self) -> Result<(), ProposeError> {
        if *self.parts.stop.borrow() {
            return Err(ProposeError::Stopped);
        }
        if self.parts.role.borrow().is_leader() {
            return Ok(());
        }
        Err(ProposeError::NotLeader { leader: self.other_leader() })
    }

    /// The leader, unless it is this node.
    fn other_leader(&self) -> Option<Member> {
        let leader = self.parts.role.borrow().leader?;
        let members = self.members();
        members
            .into_iter()
            .find(|member| member.node_id == leader && leader != self.parts.local.node)
    }

    /// The members, with the client addresses that they last announced.
    fn members(&self) -> Vec<Member> {
        let Some(consensus) = self.parts.consensus.get() else { return Vec::new() };
        let membership = consensus.raft.server_metrics().borrow_watched().membership_config.clone();
        let mut members = membership::members(membership.membership());
        for member in &mut members {
            let announced = match member.node_id == self.parts.local.node {
                true => Some(self.parts.local.client_addr.clone()),
                false => self.parts.presence.client_addr(member.node_id),
            };
            if let Some(client_addr) = announced {
                member.client_addr = client_addr;
            }
        }
        members
    }

    fn status(&self) -> Status {
        let role = *self.parts.role.borrow();
        let consensus = self.parts.consensus.get();
        let marks = self.parts.local.marks();
        Status {
            node_id: self.parts.local.node,
            group_id: self.parts.local.group.get().copied(),
            role,
            term: role.term,
            leader: role.leader,
            purged: marks.purged,
            applied: marks.applied,
            committed: marks.committed,
            last: marks.last,
            members: self.members(),
            waiting_for: self.parts.waiting_for.get(),
            suspect: consensus.is_some_and(|consensus| consensus.suspicion.is_suspect()),
        }
    }

    async fn backup(&self, wish: Wish) -> Result<Backup, BackupError> {
        let consensus = self.parts.consensus.get().ok_or(BackupError::NoGroup)?;
        let one = self.parts.backups.clone().try_lock_owned();
        let one = one.map_err(|_taken| BackupError::Busy)?;
        while let Some(wanted) = wish.at_least
            && self.parts.local.marks().applied < Some(wanted)
        {
            if Instant::now() >= wish.deadline {
                let applied = self.parts.local.marks().applied;
                return Err(BackupError::Behind { wanted, applied });
            }
            tokio::time::sleep(APPLIED_POLL).await;
        }
        let receiver = &consensus.receiver;
        let stored = make(&consensus.raft, &receiver.store, &self.parts.upkeep, None).await?;
        let goods = Goods::collect(stored, receiver.log.clone()).await?;
        let rate = wish.rate.unwrap_or(self.parts.config.snapshot_rate).max(SNAPSHOT_RATE_MIN);
        Ok(Backup::new(goods, receiver.segment_size, rate, one))
    }

    async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let consensus = self.parts.consensus.get().ok_or(TransferError::NotLeader)?;
        let patience = 2 * self.parts.config.timing.election_max;
        let role = self.parts.role.subscribe();
        transfer(&consensus.raft, &self.parts.presence, role, to, patience).await
    }

    async fn shutdown(&self) {
        let patience = self.parts.config.timing.shutdown;
        self.proposals.close();
        if !self.proposals.drained(patience).await {
            tracing::warn!(?patience, "stopping with proposals unanswered");
        }
        match self.transfer(None).await {
            Ok(leader) => tracing::info!(%leader, "leadership handed over"),
            Err(TransferError::NotLeader | TransferError::Stopped) => {}
            Err(TransferError::NoTarget) if self.members().len() <= 1 => {}
            Err(error) => tracing::warn!(%error, "stopping as the leader"),
        }
        self.parts.stop.send_replace(true);
        self.proposals.abort(&ProposeError::Stopped);
        if let Some(consensus) = self.parts.consensus.get()
            && let Err(error) = consensus.raft.shutdown().await
        {
            tracing::warn!(%error, "stop consensus");
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder panics"));
        // The server ends by itself, once it has said good-bye; everything else is cut off.
        let _ = tokio::time::timeout(GOOD_BYE, async { tasks.join_next().await }).await;
        tasks.shutdown().await;
        if let Some(log) = self.parts.log.get().cloned() {
            match tokio::task::spawn_blocking(move || log.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.parts.failure.report(error.into()),
                Err(error) => tracing::error!(%error, "close the log"),
            }
        }
    }
}

impl<O> Drop for Inner<O> {
    /// Without a [`Group::shutdown`] before, this is as abrupt as it can be: tasks are aborted
    /// where they are, and consensus is told to end.
    fn drop(&mut self) {
        self.parts.stop.send_replace(true);
        let runtime = tokio::runtime::Handle::try_current();
        if let (Ok(runtime), Some(consensus)) = (runtime, self.parts.consensus.get()) {
            let raft = consensus.raft.clone();
            runtime.spawn(async move {
                // It has ended already, or ends now; nobody is left to be told.
                let _ = raft.shutdown().await;
            });
        }
    }
}
