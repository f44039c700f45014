//! Tells every NameServer what this node is: every five seconds, and at once when it changes.
//!
//! NameServers remember nothing across their own restarts and do not talk among themselves, so each
//! gets everything from here. One that is away costs nothing: its task tries again at the next beat.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
    time::Duration,
};

use commitlog::Bug;
use proto::registry::{
    self, RegisterRequest, RegisterResponse, UnregisterRequest, registry_client::RegistryClient,
};
use proto::wire;
use raft::{Role, RoleKind};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info, warn};

use crate::{command::TopicConfig, ops::Broker};

/// Between two reports without news.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A NameServer that does not answer within this is tried again at the next beat.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// After a failed report, so that one NameServer's restart is noticed soon.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Several changes in a row become one report.
const CHANGES_MERGE: Duration = Duration::from_millis(5);
/// A stopping node does not wait longer for NameServers.
const GOOD_BYE_WAIT: Duration = Duration::from_secs(1);

/// Of [`Bug::B32`] alone: what was reported first.
static FIRST: OnceLock<raft::Status> = OnceLock::new();

/// Who reports to whom.
#[derive(Debug, Clone)]
pub struct Registration {
    /// What there is to report.
    pub broker: Arc<Broker>,
    /// The cluster's name.
    pub cluster: String,
    /// This replica.
    pub node_id: u64,
    /// This start of it.
    pub boot_id: u64,
    /// `host:port` of each NameServer.
    pub name_servers: Vec<String>,
}

impl Registration {
    /// Reports until dropped. `reached` changes when a NameServer came (back) into reach.
    pub fn start(&self, reached: &watch::Receiver<u64>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for address in &self.name_servers {
            let reporter = Reporter {
                registration: self.clone(),
                address: address.clone(),
                told_version: None,
                refusal: None,
                away: false,
            };
            tasks.spawn(reporter.run(reached.clone()));
        }
        tasks
    }

    /// Takes this node out of all routes. Bounded; whoever is away notices by the silence.
    pub async fn unregister(&self) {
        let mut farewells = JoinSet::new();
        for address in &self.name_servers {
            let address = address.clone();
            let request = UnregisterRequest {
                cluster: self.cluster.clone(),
                broker_name: self.broker.name().to_string(),
                node_id: self.node_id,
                boot_id: self.boot_id,
            };
            farewells.spawn(async move {
                let farewell = async {
                    let mut client = connect(&address)?;
                    client.unregister(request).await.map_err(|status| status.to_string())
                };
                match timeout(GOOD_BYE_WAIT, farewell).await {
                    Ok(Ok(_)) => (),
                    Ok(Err(reason)) => debug!(%address, %reason, "good-bye not heard"),
                    Err(_) => debug!(%address, "good-bye not answered"),
                }
            });
        }
        while farewells.join_next().await.is_some() {}
    }

    fn report(&self, version: u64, with_topics: bool) -> RegisterRequest {
        let status = self.broker.group.status();
        let status = if Bug::B32.is_sown() && status.leader.is_some() {
            FIRST.get_or_init(|| status).clone()
        } else {
            status
        };
        let topics = if with_topics { self.topics() } else { Vec::new() };
        RegisterRequest {
            cluster: self.cluster.clone(),
            broker_name: self.broker.name().to_string(),
            group_id: status.group_id.map(|id| id.to_string()).unwrap_or_default(),
            node_id: self.node_id,
            client_address: self.broker.settings.advertised.clone(),
            role: wire_role(&status.role).into(),
            term: status.term.0,
            leader_id: status.leader.map_or(0, |node| node.0),
            members: status
                .members
                .iter()
                .map(|member| registry::Member {
                    node_id: member.node_id.0,
                    raft_address: member.raft_addr.clone(),
                    client_address: member.client_addr.clone(),
                    voter: member.voter,
                })
                .collect(),
            topics_version: version,
            has_topics: with_topics,
            topics,
            boot_id: self.boot_id,
            wire_oldest: wire::ours().oldest(),
            wire_newest: wire::ours().newest(),
        }
    }

    fn topics(&self) -> Vec<registry::TopicRoute> {
        let route = |(topic, config): (proto::Topic, TopicConfig)| registry::TopicRoute {
            topic: topic.to_string(),
            permission: config.permission.into(),
            accepts: config.accepts.iter().map(|kind| (*kind).into()).collect(),
            placement: config
                .placement
                .iter()
                .map(|(name, queues)| registry::TopicQueues {
                    broker_name: name.to_string(),
                    queues: *queues,
                })
                .collect(),
            version: config.version,
        };
        self.broker.view().topics().into_iter().map(route).collect()
    }
}

/// The reports to one NameServer.
struct Reporter {
    registration: Registration,
    address: String,
    /// The topics' version that it has from us.
    told_version: Option<u64>,
    /// Said once, not every five seconds.
    refusal: Option<String>,
    away: bool,
}

impl Reporter {
    async fn run(mut self, mut reached: watch::Receiver<u64>) {
        let mut role = self.registration.broker.role();
        let mut topics = self.registration.broker.view().topics_changed();
        let mut client = match connect(&self.address) {
            Ok(client) => client,
            Err(reason) => {
                warn!(name_server = %self.address, %reason, "name server cannot be dialled");
                return;
            }
        };
        loop {
            role.mark_unchanged();
            topics.mark_unchanged();
            reached.mark_unchanged();
            let pause = if self.tell(&mut client).await { HEARTBEAT } else { RETRY_PAUSE };
            let next = Instant::now() + pause;
            tokio::select! {
                () = sleep_until(next) => (),
                Ok(()) = role.changed() => (),
                Ok(()) = topics.changed() => tokio::time::sleep(CHANGES_MERGE).await,
                Ok(()) = reached.changed() => self.told_version = None,
            }
        }
    }

    /// True if the NameServer answered. A node whose group has not formed, or that it does not
    /// belong to yet, has nothing to report.
    async fn tell(&mut self, client: &mut RegistryClient<Channel>) -> bool {
        let status = self.registration.broker.group.status();
        if status.group_id.is_none() || status.waits_to_be_added {
            return false;
        }
        let version = version_of(&self.registration.broker.view().topics());
        let with_topics = self.told_version != Some(version);
        let report = self.registration.report(version, with_topics);
        match timeout(ANSWER_WAIT, client.register(report)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                self.told_version = (!response.topics_wanted).then_some(version);
                self.note_back();
                self.note_refusal(&response);
                // Wanted and not sent: send them with the next report, which is due at once.
                !response.topics_wanted
            }
            Ok(Err(status)) => self.note_away(&status.to_string()),
            Err(_) => self.note_away("no answer in time"),
        }
    }

    fn note_back(&mut self) {
        if self.away {
            info!(name_server = %self.address, "registered again");
            self.away = false;
        }
    }

    fn note_away(&mut self, reason: &str) -> bool {
        self.told_version = None;
        if !self.away {
            warn!(name_server = %self.address, %reason, "name server did not take the report");
            self.away = true;
        }
        false
    }

    fn note_refusal(&mut self, response: &RegisterResponse) {
        if response.refused.is_empty() {
            self.refusal = None;
        } else if self.refusal.as_ref() != Some(&response.refused) {
            warn!(name_server = %self.address, reason = %response.refused, "report refused");
            self.refusal = Some(response.refused.clone());
        }
    }
}

/// Dials when it is first used, and again whenever the connection broke.
fn connect(address: &str) -> Result<RegistryClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(ANSWER_WAIT)
        .tcp_nodelay(true);
    Ok(RegistryClient::new(endpoint.connect_lazy()))
}

fn wire_role(role: &Role) -> registry::Role {
    match role.kind {
        RoleKind::Leader => registry::Role::Leader,
        RoleKind::Follower => registry::Role::Follower,
        RoleKind::Learner => registry::Role::Learner,
        RoleKind::Candidate => registry::Role::Candidate,
    }
}

/// Differs when the topics differ. NameServers compare it with what the same node said before.
fn version_of(topics: &[(proto::Topic, TopicConfig)]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (topic, config) in topics {
        topic.hash(&mut hasher);
        config.queues.hash(&mut hasher);
        config.permission.hash(&mut hasher);
        config.accepts.hash(&mut hasher);
        config.placement.hash(&mut hasher);
        config.version.hash(&mut hasher);
    }
    hasher.finish()
}
