//! How fast three replicas in one process agree, with 1, 16 and 256 proposers, and how long
//! nothing can be written when the leader's process dies.
//!
//! ```text
//! cargo run -p raft --example pipeline -- [seconds per measurement, default 3]
//! ```
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement speaks and may panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::{
    Applied, ApplyError, Checkpoint, CheckpointError, Config, Entry, Group, NodeId, Payload,
    ProposeError, StateMachine,
};
use tokio::runtime::Runtime;

const BODY: usize = 1024;
const KILLS: usize = 10;

/// Remembers only how far it came.
#[derive(Debug, Default)]
struct Counter(Applied);

impl StateMachine for Counter {
    type Outcome = ();

    fn applied(&self) -> Applied {
        self.0.clone()
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Vec<()>>, ApplyError> {
        let outcome = |entry: Entry| {
            self.0.log_id = Some(entry.log_id);
            match entry.payload {
                Payload::Blank => Vec::new(),
                Payload::Membership(bytes) => {
                    self.0.membership = Some(bytes);
                    Vec::new()
                }
                Payload::Batch(commands) => vec![(); commands.len()],
            }
        };
        Ok(entries.into_iter().map(outcome).collect())
    }

    fn checkpoint(&self) -> Checkpoint {
        Box::new(|_| Err(CheckpointError::new("a counter keeps nothing")))
    }

    fn install(&mut self, _from: &Path) -> Result<(), ApplyError> {
        Err(ApplyError::new("a counter keeps nothing"))
    }
}

/// A replica on a runtime of its own.
struct Node {
    config: Config,
    running: Option<(Runtime, Group<Counter>)>,
}

impl Node {
    fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let group = Group::start(self.config.clone(), Counter::default());
        let group = runtime.block_on(group).unwrap();
        self.running = Some((runtime, group));
    }

    fn kill(&mut self) {
        let (runtime, group) = self.running.take().unwrap();
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(group);
    }
}

fn leader(nodes: &[Node]) -> usize {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let leads = |node: &Node| {
            node.running.as_ref().is_some_and(|(_, group)| group.role().borrow().is_leader())
        };
        if let Some(index) = nodes.iter().position(leads) {
            return index;
        }
        assert!(Instant::now() < deadline, "no leader");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn main() {
    let seconds = std::env::args().nth(1).map_or(3, |text| text.parse().unwrap());
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).init();
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let listeners: Vec<_> =
        (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let peers: BTreeMap<NodeId, String> = (1..)
        .zip(&listeners)
        .map(|(id, listener)| (NodeId(id), listener.local_addr().unwrap().to_string()))
        .collect();
    drop(listeners);
    let mut nodes: Vec<Node> = (1..=3)
        .map(|id| {
            let data_dir = dir.path().join(id.to_string());
            let config = Config::new(NodeId(id), "pipeline", peers.clone(), "", data_dir);
            Node { config, running: None }
        })
        .collect();
    let started = Instant::now();
    nodes.iter_mut().for_each(Node::start);
    leader(&nodes);
    println!("3 replicas in one process, fsync, commands of {BODY} bytes");
    println!("formed in {:?}", started.elapsed());
    for proposers in [1, 16, 256] {
        measure(&nodes, proposers, Duration::from_secs(seconds));
    }
    gaps(&mut nodes);
}

fn measure(nodes: &[Node], proposers: usize, duration: Duration) {
    let (runtime, group) = nodes[leader(nodes)].running.as_ref().unwrap();
    let before = group.status().last.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut latencies = runtime.block_on(async {
        let tasks: Vec<_> = (0..proposers)
            .map(|_| {
                let (group, stop) = (group.clone(), stop.clone());
                tokio::spawn(async move {
                    let body = Bytes::from(vec![7; BODY]);
                    let mut latencies = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let sent = Instant::now();
                        let deadline = sent + Duration::from_secs(10);
                        group.propose(vec![body.clone()], deadline).await.unwrap();
                        latencies.push(sent.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        tokio::time::sleep(duration).await;
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    latencies.sort_unstable();
    let at = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000];
    let entries = group.status().last.unwrap().0 - before.0;
    println!(
        "{proposers:>4} proposers: {:>7.0}/s  p50 {:?}  p99 {:?}  p99.9 {:?}  {:.1} commands an entry",
        latencies.len() as f64 / duration.as_secs_f64(),
        at(500),
        at(990),
        at(999),
        latencies.len() as f64 / entries as f64,
    );
}

/// Kills the leader again and again, and takes the time until something is written.
fn gaps(nodes: &mut [Node]) {
    let mut gaps: Vec<Duration> = (0..KILLS)
        .map(|_| {
            let old = leader(nodes);
            let killed = Instant::now();
            nodes[old].kill();
            while !written(nodes) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            let gap = killed.elapsed();
            nodes[old].start();
            caught_up(nodes);
            gap
        })
        .collect();
    gaps.sort_unstable();
    println!(
        "leader killed {KILLS} times: write gap p50 {:?}, max {:?}",
        gaps[KILLS / 2],
        gaps[KILLS - 1]
    );
}

fn written(nodes: &[Node]) -> bool {
    let running = nodes.iter().filter_map(|node| node.running.as_ref());
    for (runtime, group) in running {
        let deadline = Instant::now() + Duration::from_secs(5);
        let proposal = group.propose(vec![Bytes::from_static(b"x")], deadline);
        match runtime.block_on(proposal) {
            Ok(()) => return true,
            Err(ProposeError::NotLeader { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    false
}

fn caught_up(nodes: &[Node]) {
    let applied = || {
        let running = nodes.iter().filter_map(|node| node.running.as_ref());
        running.map(|(_, group)| group.status().applied).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while applied().windows(2).any(|pair| pair[0] != pair[1]) {
        assert!(Instant::now() < deadline, "a replica does not catch up");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
