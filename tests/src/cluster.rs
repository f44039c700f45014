//! NameServers and broker groups on this machine.

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
use crate::group::BrokerGroup;
use crate::ledger::Ledger;
use crate::nameserver::NameServer;
use crate::network::Network;
use crate::node::{Addresses, Node};
use crate::producer::Producer;
use crate::scratch::Scratch;
use crate::status::Status;

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
    groups: u8,
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

    /// So many broker groups of equal size: broker-a, broker-b...
    #[must_use]
    pub fn groups(mut self, count: u8) -> Self {
        self.groups = count;
        self
    }

    /// The name of the first broker group.
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

    /// Starts everything and waits for a leader of each broker group.
    pub async fn start(self) -> Cluster {
        let cluster = self.lay_out().await;
        cluster.nameservers.iter().for_each(NameServer::start);
        cluster.groups.iter().for_each(BrokerGroup::start);
        for group in &cluster.groups {
            group.leader().await;
        }
        cluster
    }
}

/// A running cluster. End each test with [`Cluster::finish`].
#[derive(Debug)]
pub struct Cluster {
    pub nameservers: Vec<NameServer>,
    pub groups: Vec<BrokerGroup>,
    /// Of all groups.
    pub nodes: Vec<Arc<Node>>,
    pub ledger: Arc<Ledger>,
    pub scratch: Scratch,
    pub host: Host,
    /// Of the first group.
    pub broker_name: String,
    settings: Vec<(String, String)>,
    finished: bool,
    _permit: SemaphorePermit<'static>,
}

impl Cluster {
    /// A plan for one group of this many brokers, and one NameServer.
    #[must_use]
    pub fn of(brokers: u64) -> Plan {
        Plan {
            brokers,
            groups: 1,
            nameservers: 1,
            settings: Vec::new(),
            alone: false,
            shared_ports: false,
            broker_name: "broker-a".to_owned(),
            network: None,
        }
    }

    fn new(plan: Plan, permit: SemaphorePermit<'static>) -> Self {
        let host =
            plan.network.as_ref().map_or_else(Host::reserve, |network| Host::at(network.test()));
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
        let count = plan.brokers * u64::from(plan.groups);
        let addresses: Vec<Addresses> = match &plan.network {
            None => {
                let clients = ports(usize::try_from(count).expect("few brokers"));
                clients.into_iter().map(|client| Addresses::beside(client, host)).collect()
            }
            Some(network) => (1..=count).map(|id| Addresses::at(network.address(id))).collect(),
        };
        let mut settings = plan.settings;
        if plan.network.is_some() {
            let secret = path("secret".to_owned());
            std::fs::write(&secret, "replicas that are not on one machine need one\n")
                .expect("a file for the secret");
            settings.push(("raft_secret_file".to_owned(), secret.display().to_string()));
        }
        let mut cluster = Self {
            nameservers,
            groups: Vec::new(),
            nodes: Vec::new(),
            ledger: Arc::new(Ledger::new()),
            host,
            broker_name: plan.broker_name,
            settings,
            finished: false,
            _permit: permit,
            scratch,
        };
        for addresses in addresses.chunks(addresses.len() / usize::from(plan.groups)) {
            cluster.describe_group(addresses);
        }
        if let Some(network) = &plan.network {
            for (number, node) in (1..).zip(&cluster.nodes) {
                network.add(number);
                node.process().set_prefix(network.on(number));
            }
        }
        cluster
    }

    /// Another broker group, with its replicas at these addresses; nothing of it runs yet.
    fn describe_group(&mut self, addresses: &[Addresses]) {
        let name = match u8::try_from(self.groups.len()).expect("few groups") {
            0 => self.broker_name.clone(),
            further => format!("broker-{}", char::from(b'a' + further)),
        };
        let peers = (1..).zip(addresses).map(|(id, a): (u64, _)| format!("{id}={}", a.raft));
        let peers = peers.collect::<Vec<_>>().join(",");
        let node = |(id, addresses): (u64, &Addresses)| {
            let path = |end: &str| self.scratch.path().join(format!("{name}-{id}{end}"));
            Arc::new(Node::new(
                id,
                *addresses,
                path(""),
                path(".log"),
                self.arguments(&name, &peers),
            ))
        };
        let nodes: Vec<_> = (1..).zip(addresses).map(node).collect();
        self.nodes.extend(nodes.iter().cloned());
        self.groups.push(BrokerGroup { name, nodes, peers });
    }

    /// Starts a further broker group of this many replicas and waits for its leader.
    pub async fn add_group(&mut self, brokers: usize) -> &BrokerGroup {
        let beside = |_| Addresses::beside(self.host.free_port(), self.host);
        let addresses: Vec<_> = (0..brokers).map(beside).collect();
        self.describe_group(&addresses);
        let group = self.groups.last().expect("it was added");
        group.start();
        group.leader().await;
        group
    }

    /// Starts a further replica of the first group, which waits to be added. It is told of every
    /// running one.
    ///
    /// # Panics
    /// When the id was used before.
    pub fn newcomer(&mut self, id: u64) -> Arc<Node> {
        self.newcomer_with(id, &[])
    }

    /// The same with settings of its own.
    ///
    /// # Panics
    /// When the id was used before.
    pub fn newcomer_with(&mut self, id: u64, settings: &[(&str, &str)]) -> Arc<Node> {
        let group = &self.groups[0];
        assert!(group.nodes.iter().all(|node| node.id != id), "node {id} exists");
        let addresses = Addresses::beside(self.host.free_port(), self.host);
        let members = group.nodes.iter().filter(|node| node.is_running());
        let members: Vec<String> = members.map(|node| node.addresses.raft.to_string()).collect();
        let arrival = ["--join".into(), members.join(",").into(), "--raft-listen".into()];
        let arrival = arrival.into_iter().chain([addresses.raft.to_string().into()]);
        let name = group.name.clone();
        let path = |end: &str| self.scratch.path().join(format!("{name}-{id}{end}"));
        let mut arguments = self.arguments_of(&name, arrival.collect());
        for (key, value) in settings {
            arguments.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        let node = Arc::new(Node::new(id, addresses, path(""), path(".log"), arguments));
        node.start();
        self.groups[0].nodes.push(Arc::clone(&node));
        self.nodes.push(Arc::clone(&node));
        node
    }

    /// A replica of the first group that is none any more: it is not started again, and the others
    /// need not agree with it.
    pub fn forget(&mut self, id: u64) {
        self.groups[0].nodes.retain(|node| node.id != id);
        let name = self.broker_name.clone();
        let is_it =
            |node: &Arc<Node>| node.id == id && node.directory().ends_with(format!("{name}-{id}"));
        self.nodes.retain(|node| !is_it(node));
    }

    /// The arguments that all replicas share, with this name and these peers.
    #[must_use]
    pub fn arguments(&self, broker_name: &str, peers: &str) -> Vec<OsString> {
        self.arguments_of(broker_name, ["--raft-peers".into(), peers.into()].into())
    }

    fn arguments_of(&self, broker_name: &str, arrival: Vec<OsString>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--broker-name".into(), broker_name.into()];
        arguments.extend(arrival);
        if !self.nameservers.is_empty() {
            let all: Vec<String> = self.nameservers.iter().map(|n| n.address.to_string()).collect();
            arguments.extend(["--namesrv".into(), all.join(",").into()]);
        }
        // What else is on the disk of the machine that tests is not what is tested.
        for bound in ["log.disk_high=100", "log.disk_full=100"] {
            arguments.extend(["--set".into(), bound.into()]);
        }
        for (key, value) in &self.settings {
            arguments.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        arguments
    }

    /// The `--raft-peers` of the first group.
    #[must_use]
    pub fn peers(&self) -> &str {
        &self.groups[0].peers
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

    /// Sets a consumer group up, in every broker group.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn consumer_group(&self, config: admin::GroupConfig) {
        let (leader, _) = self.leader().await;
        let put = admin::PutGroupRequest { config: Some(config) };
        let answer = leader.rpc().admin().put_group(put).await.expect("an answer").into_inner();
        assert_eq!(answer.error, None);
    }

    /// The node that leads the first group now, and what it says of itself.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn leader(&self) -> (Arc<Node>, Status) {
        self.groups[0].leader().await
    }

    /// A leader of the first group of a later term than `term`.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn leader_after(&self, term: u64) -> (Arc<Node>, Status) {
        self.groups[0].leader_after(term).await
    }

    /// The running replicas of the first group that do not lead.
    pub async fn followers(&self) -> Vec<Arc<Node>> {
        self.groups[0].followers().await
    }

    /// Waits until in each group all running replicas have applied everything that the leader
    /// committed, and checks that their states are equal.
    ///
    /// # Panics
    /// When they do not get there, or differ.
    pub async fn replicas_agree(&self) {
        for group in &self.groups {
            group.replicas_agree().await;
        }
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
        self.replicas_agree().await;
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
