//! One replica of a broker group: what the layers above hold.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commitlog::Checksum;
use commitlog::position::{LogIndex, LogOffset};
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backup::{Backup, BackupError, Wish};
use crate::bootstrap::adoption::Adoption;
use crate::bootstrap::arrival::Arrival;
use crate::bootstrap::decision::Holding;
use crate::bootstrap::identity::Identity;
use crate::config::SNAPSHOT_RATE_MIN;
use crate::consensus::{Opened, Services, open};
use crate::network::server::Server;
use crate::network::watchers::Watchers;
use crate::parts::Parts;
use crate::proposals::Proposals;
use crate::purge::make;
use crate::read_barrier::Failed;
use crate::snapshot::send::Goods;
use crate::transfer::TransferError;
use crate::upkeep::Upkeep;
use crate::{
    Change, ChangeError, Changed, Config, DiskSpace, DrainError, Error, Member, NodeId,
    ProposeError, Reader, Replication, Role, StateMachine, Status, membership,
};

/// Bytes of a segment that are read in one go.
const SEGMENT_PIECE: u64 = 1 << 20;
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
        let joined = identity.as_ref().is_some_and(|identity| identity.joined);
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
        let arrival = Arrival::of(&inner.parts, adoption, joined);
        inner.spawn(take_part(parts, proposals, arrival, opened));
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

    /// Where the segments begin that are written to no more.
    pub fn sealed_segments(&self) -> Vec<LogOffset> {
        let reader = self.inner.parts.reader.get();
        reader.map(commitlog::Reader::sealed).unwrap_or_default()
    }

    /// Reads a segment from the disk; `None` if it has gone.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub async fn read_segment(
        &self,
        base: LogOffset,
    ) -> Result<Option<Checksum>, commitlog::Error> {
        let Some(reader) = self.inner.parts.reader.get().cloned() else { return Ok(None) };
        let read = move || {
            let mut scrub = match reader.scrub(base) {
                Err(commitlog::Error::Missing { .. }) => return Ok(None),
                scrub => scrub?,
            };
            while scrub.step(SEGMENT_PIECE)? > 0 {}
            Ok(Some(scrub.checksum()))
        };
        crate::repair::off_thread(read).await
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

    /// Makes a snapshot of what is applied here now, whatever the last one holds. Returns the last
    /// entry that it holds.
    ///
    /// # Errors
    /// See [`BackupError`], of which a snapshot knows two: no group, and that it cannot be made.
    pub async fn make_snapshot(&self) -> Result<LogIndex, BackupError> {
        self.inner.make_snapshot().await
    }

    /// Hands leadership to `to`, or to the voter that lags least. Returns who leads then.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        self.inner.transfer(to).await
    }

    /// Changes who belongs to the group, where this node leads it. Past `deadline` the change goes
    /// on by itself, and the answer is [`ChangeError::Unfinished`].
    ///
    /// # Errors
    /// See [`ChangeError`], whose variants say what became of the change.
    pub async fn change(&self, change: Change, deadline: Instant) -> Result<Changed, ChangeError> {
        self.inner.change(change, deadline).await
    }

    /// How far each replica has come; `None` unless this node leads.
    pub fn replication(&self) -> Option<Replication> {
        self.inner.replication()
    }

    /// Hands leadership away and keeps this node from standing for election, until it is told
    /// otherwise or its process ends. If nobody else stands it does, see [`crate::drain`].
    ///
    /// # Errors
    /// This node leads, and nobody can take over. Nothing has changed.
    pub async fn drain(&self, on: bool) -> Result<(), DrainError> {
        self.inner.drain(on).await
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

/// From a node that serves to a member of a group that runs.
async fn take_part<S: StateMachine>(
    parts: Parts,
    proposals: Arc<Proposals<S::Outcome>>,
    arrival: Arrival,
    opened: Result<Opened, S>,
) {
    let opened = match opened {
        Ok(opened) => opened,
        Err(state_machine) => {
            let Some(group) = arrival.find_group().await else { return };
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
        () = arrival.settle(&raft) => {}
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
            reception: self.parts.reception.clone(),
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
        let watchers = Watchers {
            local: parts.local.clone(),
            presence: parts.presence.clone(),
            links: parts.links.clone(),
            credentials: parts.credentials.clone(),
            failure: parts.failure.clone(),
        };
        self.spawn(watchers.run());
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
            waits_to_be_added: self.parts.local.joins
                && !matches!(self.parts.local.holding(), Holding::Formed(_)),
            drained: self.parts.local.drain.is_on(),
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

    async fn make_snapshot(&self) -> Result<LogIndex, BackupError> {
        let consensus = self.parts.consensus.get().ok_or(BackupError::NoGroup)?;
        let store = &consensus.receiver.store;
        let stored = make(&consensus.raft, store, &self.parts.upkeep, None).await?;
        Ok(stored.manifest.last.index)
    }

    async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let consensus = self.parts.consensus.get().ok_or(TransferError::NotLeader)?;
        consensus.changer.transfer.hand_over(to).await
    }

    async fn change(&self, change: Change, deadline: Instant) -> Result<Changed, ChangeError> {
        let consensus = self.parts.consensus.get().ok_or(ChangeError::NotLeader)?;
        if !self.parts.role.borrow().is_leader() {
            return Err(ChangeError::NotLeader);
        }
        consensus.changer.clone().make(change, deadline.into()).await
    }

    fn replication(&self) -> Option<Replication> {
        let consensus = self.parts.consensus.get()?;
        let role = *self.parts.role.borrow();
        role.is_leader().then_some(())?;
        let mut replication = consensus.changer.replication(role, self.members())?;
        replication.waiting = self.parts.reception.waiting();
        for member in &mut replication.members {
            member.snapshot = self.parts.upkeep.transfers.to(member.member.node_id);
        }
        Some(replication)
    }

    async fn drain(&self, on: bool) -> Result<(), DrainError> {
        let consensus = self.parts.consensus.get().ok_or(DrainError::NoGroup)?;
        let drain = &self.parts.local.drain;
        drain.set(on);
        if on
            && self.parts.role.borrow().is_leader()
            && let Err(error) = consensus.changer.transfer.hand_over(None).await
            && self.parts.role.borrow().is_leader()
        {
            drain.set(false);
            return Err(error.into());
        }
        tracing::info!(on, "drain");
        Ok(())
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
