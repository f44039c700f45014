//! Groups of toy replicas within one process, each on a runtime of its own so that it can be
//! killed.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    reason = "each test file uses a part of this, and speaks to whoever runs it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes};
use raft::{
    Applied, ApplyError, Change, ChangeError, ChangeRefusal, Changed, Checkpoint, CheckpointError,
    Config, Entry, Error, Group, LogId, LogOffset, NodeId, Payload, ProposeError, Refusal, Secret,
    StateMachine, Status,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Longer than anything here should take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives something.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A state machine that counts and digests what it applies, and keeps it in memory only.
#[derive(Debug, Clone, Default)]
pub struct Toy {
    state: Arc<Mutex<ToyState>>,
    pub gate: Gate,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToyState {
    pub applied: Applied,
    /// Commands applied, in order, with their positions.
    pub commands: Vec<(LogOffset, Bytes)>,
    pub last_stamp: u64,
    pub digest: u32,
    /// Applying this command fails.
    pub poison: Option<Bytes>,
    /// Where the last command stands that told to forget what was before it.
    pub floor: LogOffset,
    /// How often the state was replaced.
    pub installed: usize,
}

/// A command that moves the floor to itself.
pub const FORGET: &str = "forget";

/// Holds up a state machine while it is closed.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn close(&self) {
        *self.0.0.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().unwrap();
        let (_open, waited) =
            self.0.1.wait_timeout_while(closed, PATIENCE, |closed| *closed).unwrap();
        assert!(!waited.timed_out(), "nobody opened the gate");
    }
}

/// The number of a command among all that were applied.
pub type Number = usize;

impl Toy {
    pub fn state(&self) -> ToyState {
        self.state.lock().unwrap().clone()
    }

    pub fn texts(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        state.commands.iter().map(|(_, bytes)| text(bytes)).collect()
    }

    pub fn poison(&self, command: &'static str) {
        self.state.lock().unwrap().poison = Some(Bytes::from_static(command.as_bytes()));
    }
}

impl StateMachine for Toy {
    type Outcome = Number;

    fn applied(&self) -> Applied {
        self.state.lock().unwrap().applied.clone()
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Vec<Number>>, ApplyError> {
        self.gate.pass();
        let mut state = self.state.lock().unwrap();
        let mut outcomes = Vec::new();
        for entry in entries {
            assert!(entry.stamp >= state.last_stamp, "stamps never go back");
            state.last_stamp = entry.stamp;
            outcomes.push(match entry.payload {
                Payload::Blank => Vec::new(),
                Payload::Membership(bytes) => {
                    state.applied.membership = Some(bytes);
                    Vec::new()
                }
                Payload::Batch(commands) => {
                    let mut numbers = Vec::new();
                    for command in commands {
                        if state.poison.as_ref() == Some(&command.bytes) {
                            if command.bytes.starts_with(b"panic") {
                                drop(state);
                                panic!("poisoned");
                            }
                            return Err(ApplyError::new("poisoned"));
                        }
                        let mut hasher = crc32fast::Hasher::new_with_initial(state.digest);
                        hasher.update(&command.bytes);
                        hasher.update(&command.position.0.to_le_bytes());
                        state.digest = hasher.finalize();
                        if command.bytes == FORGET.as_bytes() {
                            state.floor = command.position;
                        }
                        numbers.push(state.commands.len());
                        state.commands.push((command.position, command.bytes));
                    }
                    numbers
                }
            });
            state.applied.log_id = Some(entry.log_id);
        }
        Ok(outcomes)
    }

    fn floor(&self) -> LogOffset {
        self.state.lock().unwrap().floor
    }

    fn checkpoint(&self) -> Checkpoint {
        let state = self.state();
        Box::new(move |into| {
            let write = || -> std::io::Result<()> {
                std::fs::create_dir(into)?;
                let mut file = std::fs::File::create(into.join("toy"))?;
                file.write_all(&state.encode())?;
                file.sync_all()
            };
            write().map_err(CheckpointError::new)?;
            Ok(state.applied)
        })
    }

    fn install(&mut self, from: &Path) -> Result<(), ApplyError> {
        let bytes = std::fs::read(from.join("toy")).map_err(ApplyError::new)?;
        let mut state = self.state.lock().unwrap();
        let installed = state.installed + 1;
        *state = ToyState { installed, ..ToyState::decode(bytes.into()) };
        Ok(())
    }
}

impl ToyState {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let last = self.applied.log_id.expect("something was applied");
        let membership = self.applied.membership.as_ref().expect("somebody belongs to it");
        for number in [last.term.0, last.index.0, self.last_stamp, self.floor.0] {
            out.put_u64(number);
        }
        out.put_u32(self.digest);
        out.put_u32(u32::try_from(membership.len()).unwrap());
        out.put_slice(membership);
        for (position, bytes) in &self.commands {
            out.put_u64(position.0);
            out.put_u32(u32::try_from(bytes.len()).unwrap());
            out.put_slice(bytes);
        }
        out
    }

    fn decode(mut bytes: Bytes) -> ToyState {
        let log_id = Some(LogId::new(bytes.get_u64(), bytes.get_u64()));
        let (last_stamp, floor) = (bytes.get_u64(), LogOffset(bytes.get_u64()));
        let digest = bytes.get_u32();
        let membership = bytes.get_u32() as usize;
        let membership = Some(bytes.split_to(membership));
        let mut commands = Vec::new();
        while bytes.has_remaining() {
            let position = LogOffset(bytes.get_u64());
            let len = bytes.get_u32() as usize;
            commands.push((position, bytes.split_to(len)));
        }
        let applied = Applied { log_id, membership };
        ToyState { applied, commands, last_stamp, digest, floor, poison: None, installed: 0 }
    }
}

/// One replica, running or not.
pub struct Node {
    pub config: Config,
    pub toy: Toy,
    running: Option<(Runtime, Group<Toy>)>,
}

impl Node {
    pub fn new(config: Config) -> Node {
        Node { config, toy: Toy::default(), running: None }
    }

    pub fn id(&self) -> NodeId {
        self.config.node_id
    }

    pub fn try_start(&mut self) -> Result<(), Error> {
        assert!(self.running.is_none(), "already running");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        self.toy = Toy::default();
        let started = runtime.block_on(Group::start(self.config.clone(), self.toy.clone()));
        match started {
            Ok(group) => {
                self.running = Some((runtime, group));
                Ok(())
            }
            Err(error) => {
                runtime.shutdown_timeout(PATIENCE);
                Err(error)
            }
        }
    }

    pub fn start(&mut self) {
        self.try_start().unwrap();
    }

    pub fn group(&self) -> &Group<Toy> {
        &self.running.as_ref().expect("running").1
    }

    pub fn runtime(&self) -> &Runtime {
        &self.running.as_ref().expect("running").0
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn status(&self) -> Status {
        self.group().status()
    }

    /// As if the process had been killed: nothing is finished, nothing is said.
    pub fn kill(&mut self) {
        let (runtime, group) = self.running.take().expect("running");
        // Connections and the listener go with the tasks that hold them.
        runtime.shutdown_timeout(PATIENCE);
        drop(group);
    }

    pub fn shutdown(&mut self) {
        let (runtime, group) = self.running.take().expect("running");
        runtime.block_on(group.shutdown());
        drop(group);
        runtime.shutdown_timeout(PATIENCE);
    }

    pub fn propose(&self, command: &str) -> Result<Number, ProposeError> {
        let parts = vec![Bytes::copy_from_slice(command.as_bytes())];
        let deadline = Instant::now() + Duration::from_secs(10);
        self.runtime().block_on(self.group().propose(parts, deadline))
    }

    pub fn change(&self, change: &Change) -> Result<Changed, ChangeError> {
        let deadline = Instant::now() + Duration::from_secs(5);
        self.runtime().block_on(self.group().change(change.clone(), deadline))
    }

    pub fn read_barrier(&self) -> Result<(), ProposeError> {
        let deadline = Instant::now() + Duration::from_secs(5);
        self.runtime().block_on(self.group().read_barrier(deadline))
    }

    /// The reason for which the node stopped by itself.
    pub fn failure(&self) -> Arc<Error> {
        let failed = async { tokio::time::timeout(PATIENCE, self.group().failed()).await };
        self.runtime().block_on(failed).expect("the node fails")
    }

    pub fn refusal(&self) -> Refusal {
        match &*self.failure() {
            Error::Refused(refusal) => refusal.clone(),
            other => panic!("failed otherwise: {other:?}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

/// Replicas of one group, with their data.
pub struct Cluster {
    pub nodes: BTreeMap<u64, Node>,
    pub peers: BTreeMap<NodeId, String>,
    dir: TempDir,
}

impl Cluster {
    /// `size` replicas that are not running yet.
    pub fn new(size: u64) -> Cluster {
        let peers = (1..=size).map(|id| (NodeId(id), free_addr())).collect();
        let mut cluster =
            Cluster { nodes: BTreeMap::new(), peers, dir: tempfile::tempdir().unwrap() };
        for id in 1..=size {
            let node = Node::new(cluster.config(id));
            cluster.nodes.insert(id, node);
        }
        cluster
    }

    /// A running group of `size` with a leader.
    pub fn running(size: u64) -> Cluster {
        let mut cluster = Cluster::new(size);
        cluster.start_all();
        cluster.leader();
        cluster
    }

    pub fn config(&self, id: u64) -> Config {
        let mut config = Config::new(
            NodeId(id),
            "broker-a",
            self.peers.clone(),
            format!("client-{id}:8081"),
            self.data_dir(id),
        );
        config.segment_size = 16 << 20;
        config
    }

    /// A node that waits to be added, told of every running one; it is not running yet.
    pub fn newcomer(&mut self, id: u64) -> &mut Node {
        let mut config = self.config(id);
        config.peers = BTreeMap::new();
        config.join = self.running_nodes().map(|node| self.raft_addr(node.id().0)).collect();
        config.listen = Some(free_addr());
        self.nodes.insert(id, Node::new(config));
        self.node(id)
    }

    /// Where its peers reach a node.
    pub fn raft_addr(&self, id: u64) -> String {
        let config = &self.nodes[&id].config;
        config.listen.clone().unwrap_or_else(|| config.peers[&NodeId(id)].clone())
    }

    /// A change made by whoever leads, tried again as long as it is not done or not known to be.
    pub fn change(&self, change: &Change) -> Result<Changed, ChangeRefusal> {
        eventually(&format!("{change} ends"), || match self.nodes[&self.leader()].change(change) {
            Ok(changed) => Some(Ok(changed)),
            Err(ChangeError::Refused(refusal)) => Some(Err(refusal)),
            Err(_) => None,
        })
    }

    /// Starts a newcomer, has it added, and gives it a vote once it has caught up.
    pub fn grow(&mut self, id: u64) {
        self.add_learner(id);
        self.promote(id);
    }

    pub fn add_learner(&mut self, id: u64) {
        self.newcomer(id).start();
        let addr = self.raft_addr(id);
        let change = Change::AddLearner { node: NodeId(id), raft_addr: addr };
        // It has to introduce itself first.
        eventually("it is added", || self.change(&change).ok());
    }

    pub fn promote(&self, id: u64) {
        let change = Change::Promote { node: NodeId(id) };
        eventually("it has caught up and is promoted", || self.change(&change).ok());
    }

    /// The voters and the learners, as the leader has them.
    pub fn membership(&self) -> (Vec<u64>, Vec<u64>) {
        let members = self.nodes[&self.leader()].status().members;
        let (voters, learners): (Vec<_>, Vec<_>) = members.into_iter().partition(|m| m.voter);
        let ids = |list: Vec<raft::Member>| list.iter().map(|m| m.node_id.0).collect();
        (ids(voters), ids(learners))
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub fn wipe(&self, id: u64) {
        remove(&self.data_dir(id));
    }

    pub fn start_all(&mut self) {
        for node in self.nodes.values_mut().filter(|node| !node.is_running()) {
            node.start();
        }
    }

    pub fn kill_all(&mut self) {
        for node in self.nodes.values_mut().filter(|node| node.is_running()) {
            node.kill();
        }
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub fn running_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.is_running())
    }

    /// The leader on which all running nodes agree.
    pub fn leader(&self) -> u64 {
        eventually("all running nodes agree on a leader", || self.agreed_leader())
    }

    fn agreed_leader(&self) -> Option<u64> {
        let role = |node: &Node| *node.group().role().borrow();
        let leading = self.running_nodes().filter(|node| role(node).is_leader());
        let leader = leading.max_by_key(|node| role(node).term)?;
        let followed = |node: &Node| {
            (role(node).leader, role(node).term) == (Some(leader.id()), role(leader).term)
        };
        self.running_members(leader).all(followed).then_some(leader.id().0)
    }

    /// Of the nodes that run, those that are members by the word of one of them.
    fn running_members(&self, by: &Node) -> impl Iterator<Item = &Node> {
        let members = by.status().members;
        self.running_nodes()
            .filter(move |node| members.iter().any(|member| member.node_id == node.id()))
    }

    pub fn follower(&self) -> u64 {
        self.follower_but(0)
    }

    pub fn follower_but(&self, but: u64) -> u64 {
        let leader = self.leader();
        let mut ids = self.running_nodes().map(|node| node.id().0);
        ids.find(|id| *id != leader && *id != but).unwrap()
    }

    /// Proposes on whoever leads, until it is done. Panics if the outcome is unknown.
    pub fn propose(&self, command: &str) -> Number {
        eventually("a proposal is accepted", || match self.nodes[&self.leader()].propose(command) {
            Ok(number) => Some(number),
            Err(ProposeError::NotLeader { .. } | ProposeError::Overloaded) => None,
            Err(error) => panic!("{error}"),
        })
    }

    /// Waits until all running nodes have applied the same, and returns it.
    pub fn converged(&self) -> ToyState {
        eventually("all running nodes have applied the same", || {
            let leader = &self.nodes[&self.agreed_leader()?];
            let mut states = self.running_members(leader).map(|node| {
                let marks = node.status();
                let settled = marks.applied == marks.last && marks.committed == marks.last;
                settled.then(|| ToyState { poison: None, ..node.toy.state() })
            });
            let first = states.next()??;
            states.all(|state| state.as_ref() == Some(&first)).then_some(first)
        })
    }
}

/// An address on which nobody listens. Below the range that the system hands out to connections,
/// which could otherwise take it while a node is down.
pub fn free_addr() -> String {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::random_range(PORTS);
        let addr = format!("127.0.0.1:{port}");
        // By nobody else in this process, which may not have started its node yet, and by no other.
        if TAKEN.lock().unwrap().insert(port) && TcpListener::bind(&addr).is_ok() {
            return addr;
        }
    }
}

pub fn remove(dir: &Path) {
    std::fs::remove_dir_all(dir).unwrap();
}

pub fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text.as_bytes()).unwrap())
}

/// Shows what nodes say when `RUST_LOG` asks for it.
pub fn logging() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // The first test of a process sets it up.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}
