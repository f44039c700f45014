//! NameServers and one broker group on this machine.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jepsen::Verdict;
use proto::{admin, v2};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::address::Host;
use crate::consumer::Consumer;
use crate::eventually;
use crate::ledger::Ledger;
use crate::nameserver::NameServer;
use crate::network::Network;
use crate::node::{Addresses, Node};
use crate::producer::Producer;
use crate::scratch::Scratch;
use crate::status::{Role, Status};

/// Clusters of one test process that may run at the same time on the two cores we count on.
const AT_ONCE: u32 = 2;
static PERMITS: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// How long a group may take to form, or to find a leader after a fault. Generous: a loaded
/// machine is no failure. What is promised about time is measured by tests of its own.
pub const ELECTION: Duration = Duration::from_secs(20);
/// How long replicas may take to apply the same.
pub const CATCH_UP: Duration = Duration::from_secs(60);
/// How long reading everything may take.
pub const DRAIN: Duration = Duration::from_secs(90);

/// The name of all NameServers of a cluster, in the hosts file that [`Cluster::names`] writes.
pub const NAMESERVERS: &str = "namesrv.raftmq.test";
/// The name of all brokers.
pub const BROKERS: &str = "brokers.raftmq.test";

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    brokers: u64,
    nameservers: usize,
    settings: Vec<(String, String)>,
    alone: bool,
    shared_ports: bool,
    broker_name: String,
    network: Option<Network>,
}

impl Plan {
    #[must_use]
    pub fn nameservers(mut self, count: usize) -> Self {
        self.nameservers = count;
        self
    }

    /// A key of the broker's configuration, as `--set` takes it.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs while no other cluster of this test process does: for what is measured.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Gives all NameServers one port and all brokers one client port, on addresses of their own,
    /// so that one name can stand for all of them; see [`Cluster::names`].
    #[must_use]
    pub fn with_shared_ports(mut self) -> Self {
        self.shared_ports = true;
        self
    }

    #[must_use]
    pub fn broker_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.broker_name);
        self
    }

    /// Gives each node a machine of its own in this network.
    #[must_use]
    pub fn apart(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Describes all processes and starts none.
    pub async fn lay_out(self) -> Cluster {
        let permits = if self.alone { AT_ONCE } else { 1 };
        let permit = PERMITS.acquire_many(permits).await.expect("never closed");
        Cluster::new(self, permit)
    }

    /// Starts everything and waits for a leader that NameServers know.
    pub async fn start(self) -> Cluster {
        let cluster = self.lay_out().await;
        cluster.nameservers.iter().for_each(NameServer::start);
        cluster.nodes.iter().for_each(|node| node.start());
        cluster.leader().await;
        cluster
    }
}

/// A running cluster. End each test with [`Cluster::finish`].
#[derive(Debug)]
pub struct Cluster {
    pub nameservers: Vec<NameServer>,
    pub nodes: Vec<Arc<Node>>,
    pub ledger: Arc<Ledger>,
    pub scratch: Scratch,
    pub host: Host,
    pub broker_name: String,
    peers: String,
    settings: Vec<(String, String)>,
    finished: bool,
    _permit: SemaphorePermit<'static>,
}

impl Cluster {
    /// A plan for this many brokers in one group, and one NameServer.
    #[must_use]
    pub fn of(brokers: u64) -> Plan {
        Plan {
            brokers,
            nameservers: 1,
            settings: Vec::new(),
            alone: false,
            shared_ports: false,
            broker_name: "broker-a".to_owned(),
            network: None,
        }
    }

    fn new(plan: Plan, permit: SemaphorePermit<'static>) -> Self {
        let host = plan.network.map_or_else(Host::reserve, |network| Host::at(network.test()));
        let scratch = Scratch::new();
        let path = |name: String| scratch.path().join(name);
        let ports = |count: usize| match plan.shared_ports {
            true => host.shared_port(count),
            false => (0..count).map(|_| host.free_port()).collect(),
        };
        let nameservers: Vec<NameServer> = ports(plan.nameservers)
            .into_iter()
            .enumerate()
            .map(|(n, address)| {
                let log = path(format!("namesrv-{n}.log"));
                NameServer::new(n, address, host.free_port(), log)
            })
            .collect();
        let brokers = usize::try_from(plan.brokers).expect("few brokers");
        let addresses: Vec<Addresses> = match plan.network {
            None => {
                ports(brokers).into_iter().map(|client| Addresses::beside(client, host)).collect()
            }
            Some(network) => {
                (1..=plan.brokers).map(|id| Addresses::at(network.address(id))).collect()
            }
        };
        let peers = (1..).zip(&addresses).map(|(id, a): (u64, _)| format!("{id}={}", a.raft));
        let mut settings = plan.settings;
        if plan.network.is_some() {
            let secret = path("secret".to_owned());
            std::fs::write(&secret, "replicas that are not on one machine need one\n")
                .expect("a file for the secret");
            settings.push(("raft_secret_file".to_owned(), secret.display().to_string()));
        }
        let mut cluster = Self {
            peers: peers.collect::<Vec<_>>().join(","),
            nameservers,
            nodes: Vec::new(),
            ledger: Arc::new(Ledger::new()),
            host,
            broker_name: plan.broker_name,
            settings,
            finished: false,
            _permit: permit,
            scratch,
        };
        for (id, addresses) in (1..).zip(addresses) {
            let node = cluster.describe(id, addresses);
            if let Some(network) = plan.network {
                network.add(id);
                node.process().set_prefix(network.on(id));
            }
            cluster.nodes.push(Arc::new(node));
        }
        cluster
    }

    fn describe(&self, id: u64, addresses: Addresses) -> Node {
        let directory = self.scratch.path().join(format!("broker-{id}"));
        let log = self.scratch.path().join(format!("broker-{id}.log"));
        Node::new(id, addresses, directory, log, self.arguments(&self.broker_name, &self.peers))
    }

    /// The arguments that all replicas share, with this name and these peers.
    #[must_use]
    pub fn arguments(&self, broker_name: &str, peers: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["--broker-name".into(), broker_name.into(), "--raft-peers".into(), peers.into()];
        if !self.nameservers.is_empty() {
            let all: Vec<String> = self.nameservers.iter().map(|n| n.address.to_string()).collect();
            arguments.extend(["--namesrv".into(), all.join(",").into()]);
        }
        for (key, value) in &self.settings {
            arguments.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        arguments
    }

    /// The `--raft-peers` of this group.
    #[must_use]
    pub fn peers(&self) -> &str {
        &self.peers
    }

    /// Where clients may connect: every NameServer and every broker.
    #[must_use]
    pub fn access_points(&self) -> Vec<SocketAddr> {
        let nameservers = self.nameservers.iter().map(|n| n.address);
        nameservers.chain(self.nodes.iter().map(|n| n.addresses.client)).collect()
    }

    /// A hosts file in which [`NAMESERVERS`] stands for all NameServers and [`BROKERS`] for all
    /// brokers of this cluster.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn names(&self) -> PathBuf {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for nameserver in &self.nameservers {
            text.push_str(&format!("{} {NAMESERVERS}\n", nameserver.address.ip()));
        }
        for node in &self.nodes {
            text.push_str(&format!("{} {BROKERS}\n", node.addresses.client.ip()));
        }
        let path = self.scratch.path().join("hosts");
        std::fs::write(&path, text).expect("a hosts file");
        path
    }

    #[must_use]
    pub fn producer(&self, topic: &str) -> Producer {
        Producer::new(&self.access_points(), topic, &self.ledger)
    }

    #[must_use]
    pub fn consumer(&self, group: &str, topic: &str) -> Consumer {
        Consumer::new(&self.access_points(), group, topic, &self.ledger)
    }

    /// Creates a topic for normal messages with this many queues, and waits until every running
    /// NameServer has a route for it.
    ///
    /// # Panics
    /// When it is refused, or not known in time.
    pub async fn topic(&self, name: &str, queues: u32) {
        self.topic_of(name, queues, v2::MessageType::Normal).await;
    }

    /// The same for messages of another type.
    ///
    /// # Panics
    /// When it is refused, or not known in time.
    pub async fn topic_of(&self, name: &str, queues: u32, accepts: v2::MessageType) {
        let config = admin::TopicConfig {
            topic: name.to_owned(),
            queues,
            permission: v2::Permission::ReadWrite.into(),
            accepts: vec![accepts.into()],
        };
        let request = admin::PutTopicRequest { config: Some(config), ..Default::default() };
        eventually("a topic is created", ELECTION, async || {
            let mut last = String::new();
            for node in self.nodes.iter().filter(|n| n.is_active()) {
                match node.rpc().admin().put_topic(request.clone()).await {
                    Ok(answer) => match answer.into_inner().error {
                        None => return Ok(()),
                        Some(error) => last = format!("{error:?}"),
                    },
                    Err(error) => last = error.to_string(),
                }
            }
            Err(last)
        })
        .await;
        for nameserver in self.nameservers.iter().filter(|n| n.is_running()) {
            eventually("a NameServer knows the topic", ELECTION, async || {
                nameserver.rpc().query_route(name).await.map(|_| ()).map_err(|e| e.to_string())
            })
            .await;
        }
    }

    /// The node that leads now, and what it says of itself.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn leader(&self) -> (Arc<Node>, Status) {
        self.leader_after(0).await
    }

    /// A leader of a later term than `term`.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn leader_after(&self, term: u64) -> (Arc<Node>, Status) {
        eventually(&format!("a leader after term {term}"), ELECTION, async || {
            let mut best: Option<(Arc<Node>, Status)> = None;
            let mut said = String::new();
            for node in &self.nodes {
                match node.status().await {
                    Ok(status) => {
                        said.push_str(&format!("{status}; "));
                        let newer = best.as_ref().is_none_or(|(_, b)| b.term < status.term);
                        if status.role == Role::Leader && status.term > term && newer {
                            best = Some((Arc::clone(node), status));
                        }
                    }
                    Err(error) => said.push_str(&format!("{node:?}: {error:#}; ")),
                }
            }
            best.ok_or(said)
        })
        .await
    }

    /// The running replicas that do not lead.
    pub async fn followers(&self) -> Vec<Arc<Node>> {
        let (leader, _) = self.leader().await;
        self.nodes.iter().filter(|n| n.id != leader.id && n.is_active()).cloned().collect()
    }

    /// Waits until all running replicas have applied everything that the leader committed, and
    /// checks that their states are equal.
    ///
    /// # Panics
    /// When they do not get there, or differ.
    pub async fn replicas_agree(&self) {
        eventually("all replicas apply the same", CATCH_UP, async || {
            let mut seen: Vec<(u64, u64, String)> = Vec::new();
            for node in self.nodes.iter().filter(|n| n.is_active()) {
                let (applied, digest) =
                    node.digest().await.map_err(|e| format!("{node:?}: {e:#}"))?;
                seen.push((node.id, applied, digest));
            }
            let (Some(low), Some(high)) =
                (seen.iter().map(|s| s.1).min(), seen.iter().map(|s| s.1).max())
            else {
                return Err("no replica runs".to_owned());
            };
            if low != high {
                return Err(format!("applied {seen:?}"));
            }
            // At one index there is no excuse.
            assert!(
                seen.iter().all(|s| s.2 == seen[0].2),
                "replicas that applied {low} differ: {seen:?}"
            );
            Ok(())
        })
        .await;
    }

    /// Messages that were delivered to `group` and neither acked nor due again, over all queues.
    pub async fn in_flight(&self, group: &str) -> Option<u64> {
        let request = admin::GroupProgressRequest { group: group.to_owned(), topic: String::new() };
        let node = self.nodes.iter().find(|n| n.is_active())?;
        let answer = node.rpc().admin().group_progress(request).await.ok()?.into_inner();
        Some(answer.queues.iter().map(|q| q.in_flight).sum())
    }

    /// Starts what is down and resumes what is paused.
    pub fn heal(&self) {
        for nameserver in &self.nameservers {
            if !nameserver.is_running() {
                nameserver.start();
            }
        }
        for node in &self.nodes {
            let (running, active) = (node.is_running(), node.is_active());
            if !running {
                node.start();
            } else if !active {
                node.resume();
            }
        }
    }

    /// The end of every test: replicas are equal, nothing panicked, everything is stopped and
    /// removed.
    ///
    /// # Panics
    /// When that is not so.
    pub async fn finish(mut self) {
        if self.nodes.iter().any(|n| n.is_active()) {
            self.replicas_agree().await;
        }
        self.no_panics();
        self.finished = true;
    }

    /// A complete check: each of `groups` reads everything, the ledger holds, the replicas agree.
    ///
    /// # Panics
    /// When that is not so.
    pub async fn finish_with_everything_received(self, topic: &str, groups: &[&str]) -> Verdict {
        for group in groups {
            self.consumer(group, topic).receives_everything(DRAIN).await;
        }
        let verdict = self.ledger.must_hold(groups);
        self.finish().await;
        verdict
    }

    /// # Panics
    /// When a log tells of a panic.
    pub fn no_panics(&self) {
        let mut panics: Vec<String> = Vec::new();
        for node in &self.nodes {
            panics.extend(node.process().panics());
        }
        for nameserver in &self.nameservers {
            panics.extend(nameserver.process().panics());
        }
        assert!(panics.is_empty(), "processes panicked: {panics:#?}");
    }

    /// Role and positions of each node, and the end of each log.
    fn report(&self) {
        for node in &self.nodes {
            let state = match (node.is_running(), node.is_active()) {
                (false, _) => "down".to_owned(),
                (true, false) => "paused".to_owned(),
                (true, true) => match Status::of(node.addresses.metrics) {
                    Ok(status) => status.to_string(),
                    Err(error) => format!("no status: {error:#}"),
                },
            };
            eprintln!("== {node:?}: {state}\n{}", node.process().tail());
        }
        for nameserver in &self.nameservers {
            eprintln!("== namesrv at {}\n{}", nameserver.address, nameserver.process().tail());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let start = Instant::now();
        self.report();
        let history = self.scratch.path().join("history.jsonl");
        if let Ok(file) = std::fs::File::create(&history) {
            let _ = self.ledger.history().write(std::io::BufWriter::new(file));
        }
        eprintln!("(reported in {:?}; the history is in {})", start.elapsed(), history.display());
    }
}
