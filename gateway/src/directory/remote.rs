//! Follows every NameServer, and adds what the node knows by itself.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use proto::{
    BrokerName, Topic,
    limits::GRPC_BYTES,
    registry::{SnapshotRequest, SnapshotResponse, registry_client::RegistryClient},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tonic::transport::Endpoint;
use tracing::{debug, info, warn};

use super::{Directory, GroupView, Shared, TopicRoute, table::Table};

/// The node's own group, among the sources.
const OWN: &str = "own";

/// A connection to a NameServer that takes longer is given up.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// A NameServer that says nothing for this long is dialled again; it speaks at least every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(12);

/// Pause before the next attempt to reach a NameServer. Short, because a NameServer that comes
/// back should learn of the brokers at once.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Where to learn from.
#[derive(Debug, Clone, Default)]
pub struct RemoteDirectoryConfig {
    /// `host:port` of every NameServer. None: the node's own group is all there is.
    pub name_servers: Vec<String>,
    /// Only groups of this cluster; empty for all.
    pub cluster: String,
}

/// A [`Directory`] fed by the Watch streams of all NameServers and by the node itself.
/// The streams end when the last handle is dropped.
#[derive(Debug)]
pub struct RemoteDirectory {
    inner: Arc<Inner>,
    _watchers: JoinSet<()>,
}

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    shared: Shared,
    /// Counts the times that a NameServer was reached; see [`RemoteDirectory::reached`].
    reached: watch::Sender<u64>,
}

impl RemoteDirectory {
    /// Starts to follow the NameServers. Must be called within a tokio runtime.
    pub fn start(config: RemoteDirectoryConfig) -> Self {
        let inner = Arc::new(Inner {
            table: Mutex::default(),
            shared: Shared::default(),
            reached: watch::Sender::new(0),
        });
        let mut watchers = JoinSet::new();
        for address in config.name_servers {
            watchers.spawn(follow(Arc::clone(&inner), address, config.cluster.clone()));
        }
        Self { inner, _watchers: watchers }
    }

    /// What this node knows of its own group; to be called whenever that changes. It makes the
    /// node independent of NameServers as far as its own group is concerned.
    pub fn observe_group(&self, group: GroupView) {
        self.inner.update(|table| table.put_groups(OWN, vec![group]));
    }

    /// The topics that this node's group hosts; to be called whenever they change.
    pub fn observe_topics(&self, topics: Vec<TopicRoute>) {
        self.inner.update(|table| table.put_topics(OWN, topics));
    }

    /// Changes each time that a NameServer was reached (again): a good moment to register there.
    pub fn reached(&self) -> watch::Receiver<u64> {
        self.inner.reached.subscribe()
    }
}

impl Inner {
    fn update(&self, change: impl FnOnce(&mut Table)) -> Option<Instant> {
        let mut table = self.table.lock().expect("no holder panics");
        change(&mut table);
        let (view, again) = table.view(Instant::now());
        self.shared.publish(view);
        again
    }

    fn take(&self, source: &str, snapshot: &SnapshotResponse) -> Option<Instant> {
        let groups = snapshot.groups.iter().filter_map(|wire| {
            GroupView::from_wire(wire)
                .inspect_err(|error| warn!(%source, %error, "broker group ignored"))
                .ok()
        });
        let topics = || {
            let topics = snapshot.topics.iter().filter_map(|wire| {
                TopicRoute::from_wire(wire)
                    .inspect_err(|error| warn!(%source, %error, "topic ignored"))
                    .ok()
            });
            topics.collect()
        };
        let groups = groups.collect();
        let topics = (!snapshot.topics_same).then(topics);
        self.update(|table| table.put(source, snapshot.boot_id, groups, topics, Instant::now()))
    }
}

/// Follows one NameServer for ever.
async fn follow(inner: Arc<Inner>, address: String, cluster: String) {
    let mut told = false;
    loop {
        match watch_once(&inner, &address, &cluster).await {
            Ok(()) => {
                debug!(name_server = %address, "watch ended");
                told = false;
            }
            // Said once per outage: a dead NameServer is nothing that others cannot make up for.
            Err(reason) if !told => {
                info!(name_server = %address, %reason, "name server not reached");
                told = true;
            }
            Err(reason) => debug!(name_server = %address, %reason, "name server not reached"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// One Watch stream from beginning to end. `Err` when it gave nothing.
async fn watch_once(inner: &Inner, address: &str, cluster: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true);
    let channel = timeout(CONNECT_WAIT, endpoint.connect())
        .await
        .map_err(|_| "connect timed out".to_owned())?
        .map_err(|error| error.to_string())?;
    let mut client = RegistryClient::new(channel).max_decoding_message_size(GRPC_BYTES);
    let request = SnapshotRequest { cluster: cluster.to_owned() };
    let mut stream = timeout(CONNECT_WAIT, client.watch(request))
        .await
        .map_err(|_| "watch timed out".to_owned())?
        .map_err(|status| status.to_string())?
        .into_inner();
    info!(name_server = %address, "name server reached");
    inner.reached.send_modify(|count| *count += 1);
    let mut last_version = None;
    let mut refresh: Option<Instant> = None;
    loop {
        let wake = refresh.map_or(SILENCE_MAX, |at| {
            at.saturating_duration_since(Instant::now()).min(SILENCE_MAX)
        });
        match timeout(wake, stream.message()).await {
            Ok(Ok(Some(snapshot))) => {
                // The same version again only says that the NameServer lives.
                if last_version != Some(snapshot.version) {
                    last_version = Some(snapshot.version);
                    refresh = inner.take(address, &snapshot);
                }
            }
            Ok(Ok(None) | Err(_)) => return Ok(()),
            Err(_) if refresh.is_some() => refresh = inner.update(|_| ()),
            Err(_) => return Ok(()),
        }
    }
}

impl Directory for RemoteDirectory {
    fn topic(&self, topic: &Topic) -> Option<Arc<TopicRoute>> {
        self.inner.shared.topic(topic)
    }

    fn group(&self, name: &BrokerName) -> Option<Arc<GroupView>> {
        self.inner.shared.group(name)
    }

    fn groups(&self) -> Vec<BrokerName> {
        self.inner.shared.groups()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.inner.shared.changed()
    }

    fn report_leader(&self, name: &BrokerName, client_address: &str) {
        self.inner.shared.report_leader(name, client_address);
    }
}
