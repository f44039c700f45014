//! Opens the log and starts openraft over it, then everything that runs beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use commitlog::position::LogId;
use commitlog::{CommitLog, FaultDisk, FileDisk, GroupId, Identity, Recovered};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Config as RaftConfig, SnapshotPolicy};
use tokio::task::JoinSet;

use crate::bootstrap::decision::list;
use crate::bootstrap::identity::{LOG_DIR, Synced};
use crate::change::changer::Changer;
use crate::change::finish::finish_changes;
use crate::change::progress::Tracker;
use crate::change::turn::Turn;
use crate::detector::{Detector, Watch};
use crate::drain::Keeper as DrainKeeper;
use crate::failure::{Chain, Failure, Panicked};
use crate::log_store::LogStore;
use crate::log_view::LogView;
use crate::machine::{Machine, Surroundings};
use crate::network::client::Factory;
use crate::network::server::{Consensus, RaftNode};
use crate::parts::Parts;
use crate::preference::Preference;
use crate::proposals::{Proposals, Sender};
use crate::purge::Purger;
use crate::read_barrier::ReadBarrier;
use crate::repair::Mender;
use crate::repair::closed::{self, Opening};
use crate::repair::refill::{self, Lack};
use crate::repair::scrub::Scrubber;
use crate::role::RoleKeeper;
use crate::snapshot::install::{self, Installs, Target};
use crate::snapshot::receive::Receiver;
use crate::snapshot::store::Store;
use crate::space::Space;
use crate::suspect::{Suspect, Suspicion, rehabilitate};
use crate::transfer::Transfer;
use crate::watermarks::Watermarks;
use crate::{
    Applied, ApplyError, Config, Error, Flush, NodeId, StateMachine, batch, bootstrap, snapshot,
    vote,
};

/// A log with consensus over it.
pub(crate) struct Opened {
    pub(crate) raft: RaftNode,
    log: Arc<LogView>,
    space: Arc<Space>,
    store: Arc<Store>,
    mender: Arc<Mender>,
    suspect: Option<Suspect>,
}

/// Opens the log of `group`, repairs what is damaged, and replays what the state machine has not
/// applied yet.
pub(crate) async fn open<S: StateMachine>(
    parts: &Parts,
    group: GroupId,
    mut state_machine: S,
) -> Result<Opened, Error> {
    let started = Instant::now();
    let config = &parts.config;
    parts.remember_members(state_machine.applied().membership);
    parts.meet_seeds().await;
    // Before the log, whose opening is noted on the disk: a newer snapshot changes nothing.
    let store = open_store(config, group)?;
    let LogFound { log, suspect, recovered } = open_log(parts, group).await?;
    let log = Arc::new(log);
    take_snapshot(parts, &store, &log, &mut state_machine)?;
    if let Some(lack) = Lack::of(&log, state_machine.applied().log_id) {
        let log_dir = config.data_dir.join(LOG_DIR);
        let mut state = Restored(&mut state_machine);
        let target = Target { store: &store, log: &log, log_dir: &log_dir, state: &mut state };
        refill::refill(parts, lack, target).await?;
    }
    let store = Arc::new(store);
    let reader = log.reader();
    let view = Arc::new(look_at(&log)?);
    let mender = Arc::new(Mender::new(parts.clone(), log.clone()));
    let applied = state_machine.applied().log_id;
    let surroundings = Surroundings {
        view: view.clone(),
        roster: parts.local.roster.clone(),
        store: store.clone(),
        log: log.clone(),
        log_dir: config.data_dir.join(LOG_DIR),
        failure: parts.failure.clone(),
        upkeep: parts.upkeep.clone(),
    };
    let machine = Machine::new(state_machine, surroundings)?;
    let voters = parts.local.roster.get().nodes.len().max(config.peers.len());
    let log_store = LogStore::new(log.clone(), view.clone()).repaired_by(mender.clone());
    let factory = Factory {
        links: parts.links.clone(),
        node: config.node_id,
        boot_id: parts.local.boot_id,
        append_deadline: config.timing.append_deadline,
        log: log.clone(),
        segment_size: config.segment_size,
        snapshot_rate: config.snapshot_rate,
        upkeep: parts.upkeep.clone(),
    };
    let settings = Arc::new(raft_config(config, voters, suspect.is_some())?);
    let raft = RaftNode::new(config.node_id.0, settings, factory, log_store, machine)
        .await
        .map_err(|fatal| Error::Consensus { reason: fatal.to_string() })?;
    parts.local.log_opened(view.clone());
    let space = Arc::new(Space::new(log.clone()));
    parts.log.set(log).expect("a log is opened once");
    parts.reader.set(reader).expect("a log is opened once");
    assert!(parts.mender.set(mender.clone()).is_ok(), "a log is opened once");
    say_membership(config, &raft);
    say_recovered(&recovered, applied, &view, started);
    Ok(Opened { raft, log: view, space, store, mender, suspect })
}

/// One line about how the node was found and what it took to go on.
fn say_recovered(recovered: &Recovered, applied: Option<LogId>, view: &LogView, started: Instant) {
    let marks = view.watermarks.marks();
    let first = applied.map_or(0, |applied| applied.index.0 + 1);
    let replayed = marks.applied.map_or(0, |now| (now.0 + 1).saturating_sub(first));
    let index = |id: Option<LogId>| id.map_or(0, |id| id.index.0);
    tracing::info!(
        clean = recovered.clean,
        segments = recovered.segments,
        last = index(recovered.last),
        purged = index(recovered.purged),
        checked_bytes = recovered.checked_bytes,
        cut_bytes = recovered.cut.map_or(0, |cut| cut.bytes),
        lost_bytes = recovered.lost.unwrap_or(0),
        state_at = index(applied),
        replayed,
        took = ?started.elapsed(),
        "recovered"
    );
}

/// This node's snapshots.
fn open_store(config: &Config, group: GroupId) -> Result<Store, Error> {
    let path = config.data_dir.join(snapshot::store::DIR);
    let opened = Store::open(&config.data_dir, group);
    opened.map_err(|source| Error::Snapshot { path, source: Box::new(source) })
}

/// Finishes an installation that was interrupted, and takes the state from the last snapshot if it
/// was lost.
fn take_snapshot<S: StateMachine>(
    parts: &Parts,
    store: &Store,
    log: &CommitLog,
    state_machine: &mut S,
) -> Result<(), Error> {
    let config = &parts.config;
    let failed = |source| Error::Snapshot {
        path: config.data_dir.join(snapshot::store::DIR),
        source: Box::new(source),
    };
    let log_dir = config.data_dir.join(LOG_DIR);
    let mut state = Restored(state_machine);
    let target = Target { store, log, log_dir: &log_dir, state: &mut state };
    install::finish(target).map_err(failed)?;
    // The state was lost, or is kept in memory only. The log has what is behind the snapshot.
    if let Some(stored) = store.current()
        && state_machine.applied().log_id < Some(stored.manifest.last)
    {
        // Its files may be the very ones that were damaged in the state, under another name.
        if let Err(error) = stored.check() {
            parts.upkeep.damage_found();
            tracing::error!(error = %Chain(&error), "this node's snapshot is damaged and removed");
            store.discard(&stored);
            return Ok(());
        }
        tracing::info!(last = %stored.manifest.last, "taking the state from the last snapshot");
        state_machine.install(&stored.state())?;
    }
    Ok(())
}

struct Restored<'a, S>(&'a mut S);

impl<S: StateMachine> Installs for Restored<'_, S> {
    fn applied(&self) -> Applied {
        self.0.applied()
    }

    fn install(&mut self, from: &Path) -> Result<(), ApplyError> {
        self.0.install(from)
    }
}

struct LogFound {
    log: CommitLog,
    /// Why acknowledged entries may be missing from it.
    suspect: Option<Suspect>,
    recovered: Recovered,
}

/// The log, repaired with the help of peers if need be.
async fn open_log(parts: &Parts, group: GroupId) -> Result<LogFound, Error> {
    let config = &parts.config;
    let path = config.data_dir.join(LOG_DIR);
    let identity =
        Identity { node_id: config.node_id.0, group_id: Some(group), boot_id: config.boot_id };
    let before = bootstrap::identity::Identity::load(config)?;
    let mut before = before.map_or(Synced::Always, |identity| identity.synced);
    if before == Synced::Lazily {
        // Opening the log forgets how it was left: should this process die right after it, the
        // next one must not trust it.
        note_log(config, group, Synced::Doubtful)?;
    }
    let settings = log_config(config)?;
    let files =
        FileDisk::new(&path).map_err(|source| Error::Io { action: "create", path, source })?;
    let files = FaultDisk::new(files, config.disk_fault);
    let open =
        |settings: &commitlog::Config| CommitLog::open(settings.clone(), files.clone(), identity);
    let opening = closed::open(parts, group, Arc::new(files.clone()), || open(&settings)).await?;
    let (log, recovered) = match opening {
        Opening::Open(log, recovered) => (log, recovered),
        Opening::EndDamaged(error) => {
            tracing::error!(
                error = %Chain(&error),
                "the end of the log is damaged: it is cut there, and this node does not vote until \
                 a leader has brought back what was lost"
            );
            before = Synced::Damaged;
            note_log(config, group, before)?;
            open(&commitlog::Config { cut_damage: true, ..settings })?
        }
    };
    let suspect = match before {
        Synced::Always => None,
        Synced::Lazily => (!recovered.clean).then_some(Suspect::Unsynced),
        Synced::Doubtful => Some(Suspect::Unsynced),
        Synced::Damaged => Some(Suspect::Damaged),
    };
    let synced = match suspect {
        None => synced_by(config),
        Some(Suspect::Unsynced) => Synced::Doubtful,
        Some(Suspect::Damaged) => Synced::Damaged,
    };
    note_log(config, group, synced)?;
    Ok(LogFound { log, suspect, recovered })
}

/// What will be true of what this run acknowledges.
fn synced_by(config: &Config) -> Synced {
    match config.flush {
        Flush::Sync => Synced::Always,
        Flush::Async => Synced::Lazily,
    }
}

/// Remembers that there is a log and how far it can be trusted, before anything in it can matter.
fn note_log(config: &Config, group: GroupId, synced: Synced) -> Result<(), Error> {
    let (broker_name, node) = (config.broker_name.clone(), config.node_id);
    let found = bootstrap::identity::Identity::load(config)?;
    let joined = found.as_ref().is_some_and(|found| found.joined);
    let noted =
        bootstrap::identity::Identity { broker_name, group, node, joined, has_log: true, synced };
    match found {
        Some(found) if found == noted => Ok(()),
        _ => noted.store(&config.data_dir),
    }
}

pub(crate) fn log_config(config: &Config) -> Result<commitlog::Config, Error> {
    let limits = &config.limits;
    let body =
        limits.command_bytes.max(limits.entry_bytes) + batch::table_len(limits.unacked_commands);
    let max_body = u32::try_from(body).map_err(|_large| Error::Limits {
        unacked_bytes: limits.unacked_bytes,
        command_bytes: limits.command_bytes,
    })?;
    let flush = match config.flush {
        Flush::Sync => commitlog::Flush::Sync,
        Flush::Async => commitlog::Flush::ASYNC,
    };
    let default = commitlog::Config::with_segment_size(config.segment_size);
    Ok(commitlog::Config { max_body: max_body.max(default.max_body), flush, ..default })
}

/// What the log held when it was opened.
pub(crate) fn look_at(log: &CommitLog) -> Result<LogView, Error> {
    let state = log.state();
    let index = |id: Option<LogId>| id.map(|id| id.index);
    // Written lazily, and before the entries it names may have reached the disk.
    let committed = state.committed.min(index(state.last));
    let watermarks = Watermarks::opened(index(state.purged), committed, index(state.last));
    let saved = match state.vote {
        None => None,
        Some(bytes) => Some(vote::decode(&bytes).ok_or(Error::Vote)?),
    };
    // The last entry may be purged and still be there.
    let last_stamp = match state.last {
        None => 0,
        Some(last) => match log.reader().frames(last.index..last.index.next(), 0) {
            Ok(frames) => frames.last().map_or(0, |frame| frame.record.stamp),
            Err(commitlog::Error::Purged { .. }) => 0,
            Err(error) => return Err(error.into()),
        },
    };
    Ok(LogView::new(Arc::new(watermarks), saved, state.last, last_stamp))
}

/// Settings of openraft.
///
/// Entries are up to a batch each, so that everything counted in entries is kept small, and reads
/// are capped by bytes besides.
fn raft_config(config: &Config, voters: usize, suspect: bool) -> Result<RaftConfig, Error> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timing = &config.timing;
    let election_max = millis(timing.election_max);
    // In larger groups a leader that lost its quorum can keep one follower from electing another.
    let probe = (voters > 3).then_some(2 * election_max);
    let settings = RaftConfig {
        cluster_name: config.broker_name.clone(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: election_max,
        max_payload_entries: 64,
        max_append_entries: Some(64),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        enable_pre_vote: Some(true),
        enable_elect: !suspect,
        // A replica whose log was cut at damage comes back with less than it had acknowledged; it
        // does not vote until that has been made up for.
        allow_log_reversion: Some(true),
        // A restarted leader is elected like everybody else: it may lag behind its own past.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: probe,
        backoff: "50ms 100ms 200ms ..500ms".to_owned(),
        ..RaftConfig::default()
    };
    settings.validate().map_err(|error| Error::Consensus { reason: error.to_string() })
}

/// A peer list that differs from the membership has no effect, and should not surprise anybody.
fn say_membership(config: &Config, raft: &RaftNode) {
    let membership = raft.server_metrics().borrow_watched().membership_config.clone();
    let members: BTreeMap<NodeId, String> =
        membership.nodes().map(|(id, node)| (NodeId(*id), node.raft_addr.clone())).collect();
    if !members.is_empty() && config.join.is_empty() && members != config.peers {
        tracing::warn!(
            configured = list(&config.peers),
            replicated = list(&members),
            "the configured peer list differs from the replicated membership, which counts"
        );
    }
}

fn changer(parts: &Parts, raft: &RaftNode) -> Changer {
    let transfer = Transfer {
        raft: raft.clone(),
        presence: parts.presence.clone(),
        role: parts.role.clone(),
        patience: 2 * parts.config.timing.election_max,
    };
    Changer {
        raft: raft.clone(),
        local: parts.local.clone(),
        links: parts.links.clone(),
        credentials: parts.credentials.clone(),
        presence: parts.presence.clone(),
        tracker: Tracker {
            raft: raft.clone(),
            log: parts.log.get().expect("it was opened").clone(),
            tracks: Arc::default(),
            node: parts.config.node_id,
        },
        transfer,
        turn: Turn::default(),
    }
}

/// What runs beside openraft for as long as the node takes part. Ends when dropped.
pub(crate) struct Services {
    tasks: JoinSet<()>,
}

impl Services {
    pub(crate) fn start<O: Send + 'static>(
        parts: &Parts,
        proposals: Arc<Proposals<O>>,
        opened: Opened,
    ) -> Services {
        let Opened { raft, log, space, store, mender, suspect } = opened;
        let node = parts.config.node_id;
        let suspicion = Arc::new(Suspicion::new(suspect.is_some()));
        let presence = parts.presence.clone();
        let detector = Arc::new(Detector::new(node, presence, log.clone(), suspicion.clone()));
        let (barrier, rounds) = ReadBarrier::new(raft.clone());
        let mut tasks = JoinSet::new();
        let view = log.clone();
        let sender =
            Sender { proposals: proposals.clone(), raft: raft.clone(), log, space: space.clone() };
        let commit_log = parts.log.get().expect("it was opened").clone();
        let segment_size = parts.config.segment_size;
        let purger = Purger {
            raft: raft.clone(),
            log: commit_log.clone(),
            view,
            store: store.clone(),
            segment_size,
            upkeep: parts.upkeep.clone(),
            failure: parts.failure.clone(),
        };
        tasks.spawn(purger.run());
        let scrubber = Scrubber {
            raft: raft.clone(),
            log: commit_log.clone(),
            store: store.clone(),
            mender,
            upkeep: parts.upkeep.clone(),
            failure: parts.failure.clone(),
            rate: parts.config.scrub_rate,
            interval: parts.config.scrub_interval,
        };
        tasks.spawn(scrubber.run());
        let receiver = Arc::new(Receiver {
            raft: raft.clone(),
            store,
            log: commit_log,
            log_dir: parts.config.data_dir.join(LOG_DIR),
            segment_size,
            one: tokio::sync::Mutex::default(),
        });
        tasks.spawn(sender.run());
        tasks.spawn(rounds);
        let links = parts.links.clone();
        let drain = parts.local.drain.clone();
        tasks.spawn(
            Watch { detector: detector.clone(), raft: raft.clone(), links, drain: drain.clone() }
                .run(),
        );
        if let Some(suspect) = suspect {
            let patience = parts.config.timing.suspect_for;
            let (config, local) = (parts.config.clone(), parts.local.clone());
            let failure = parts.failure.clone();
            let (suspicion, raft) = (suspicion.clone(), raft.clone());
            tasks.spawn(async move {
                rehabilitate(&raft, suspect, patience).await;
                let group = *local.group.get().expect("the log of a group was opened");
                // A node that cannot keep this in mind goes on as a suspect.
                match note_log(&config, group, synced_by(&config)) {
                    Ok(()) => suspicion.clear(&raft),
                    Err(error) => failure.report(error),
                }
            });
        }
        let keeper = RoleKeeper {
            local: parts.local.clone(),
            raft: raft.clone(),
            role: parts.role.clone(),
            proposals,
            failure: parts.failure.clone(),
            stop: parts.stop.subscribe(),
        };
        tasks.spawn(keeper.run());
        let changer = changer(parts, &raft);
        tasks.spawn(changer.tracker.clone().run());
        tasks.spawn(finish_changes(raft.clone(), changer.turn.clone()));
        let drained = DrainKeeper {
            drain,
            transfer: changer.transfer.clone(),
            suspicion: suspicion.clone(),
            role: parts.role.subscribe(),
        };
        tasks.spawn(drained.run());
        let preference = Preference {
            transfer: changer.transfer.clone(),
            role: parts.role.subscribe(),
            own: parts.local.preferred,
        };
        tasks.spawn(preference.run());
        let consensus = Consensus { raft, detector, suspicion, space, receiver, changer };
        parts.barrier.set(barrier).expect("started once");
        assert!(parts.consensus.set(consensus).is_ok(), "started once");
        Services { tasks }
    }

    /// Never returns, unless one of them panics, which is reported: without any of them the node
    /// would be half alive.
    pub(crate) async fn watch(&mut self, failure: &Failure) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                let reason = Panicked::from(&*panic).to_string();
                return failure.report(Error::Task { reason });
            }
        }
        std::future::pending::<()>().await;
    }
}
