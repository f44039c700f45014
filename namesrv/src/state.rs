//! The registry, its clock, and the view that everything here is served from.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gateway::{Directory, Shared, TopicRoute, directory::View};
use proto::{
    BrokerName, Topic,
    registry::{self, RegisterRequest, RegisterResponse, SnapshotResponse, UnregisterRequest},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::info;

use crate::registry::Registry;

/// How often the silent are looked for.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);

/// What a watcher was told last.
#[derive(Debug)]
pub struct Told {
    version: u64,
    topics: Arc<HashMap<Topic, Arc<TopicRoute>>>,
}

fn is_wanted(cluster: &str, name: &str) -> bool {
    cluster.is_empty() || cluster == name
}

/// Topics with a group in the cluster, or with one that is not known.
fn topics(cluster: &str, view: &View) -> Vec<registry::TopicRoute> {
    let in_cluster = |name: &BrokerName| {
        view.groups.get(name).is_none_or(|group| is_wanted(cluster, &group.cluster))
    };
    let wanted =
        view.topics.values().filter(|topic| topic.placement.iter().any(|(n, _)| in_cluster(n)));
    let mut topics: Vec<_> = wanted.map(|topic| topic.to_wire()).collect();
    topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    topics
}

/// What one NameServer holds in memory; nothing of it is on disk.
#[derive(Debug)]
pub struct State {
    registry: Mutex<Registry>,
    directory: Arc<Shared>,
    boot_id: u64,
    closing: watch::Sender<bool>,
}

impl State {
    /// Empty, for this start of the process.
    pub fn new(boot_id: u64) -> Self {
        Self {
            registry: Mutex::default(),
            directory: Arc::default(),
            boot_id,
            closing: watch::Sender::new(false),
        }
    }

    /// The view for the access point.
    pub fn directory(&self) -> &Arc<Shared> {
        &self.directory
    }

    /// See [`Registry::register`].
    pub fn register(&self, report: &RegisterRequest) -> RegisterResponse {
        self.change(|registry| registry.register(Instant::now(), report))
    }

    /// See [`Registry::unregister`].
    pub fn unregister(&self, request: &UnregisterRequest) {
        let UnregisterRequest { broker_name, node_id, .. } = request;
        info!(%broker_name, node_id, "node left");
        self.change(|registry| registry.unregister(request));
    }

    /// Publishes under the lock, so that views follow each other in the order of the changes.
    fn change<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.registry.lock().expect("no holder panics");
        let answer = change(&mut registry);
        self.directory.publish(registry.view());
        answer
    }

    /// Everything about one cluster, or about all when the name is empty.
    pub fn snapshot(&self, cluster: &str) -> SnapshotResponse {
        // The version first: a change in between is then told again, not missed.
        let version = *self.directory.changed().borrow();
        let view = self.directory.view();
        let mut snapshot = self.groups(cluster, version, &view);
        snapshot.topics = topics(cluster, &view);
        snapshot
    }

    /// What is new to a watcher that was told `told` last; the first time it was told nothing.
    pub fn news(&self, cluster: &str, told: Option<&Told>) -> (SnapshotResponse, Told) {
        let version = *self.directory.changed().borrow();
        let view = self.directory.view();
        let topics_same = told.is_some_and(|told| Arc::ptr_eq(&told.topics, &view.topics));
        let mut news = if told.is_some_and(|told| told.version == version) {
            SnapshotResponse { version, boot_id: self.boot_id, ..SnapshotResponse::default() }
        } else {
            self.groups(cluster, version, &view)
        };
        news.topics_same = topics_same;
        if !topics_same {
            news.topics = topics(cluster, &view);
        }
        (news, Told { version, topics: Arc::clone(&view.topics) })
    }

    fn groups(&self, cluster: &str, version: u64, view: &View) -> SnapshotResponse {
        let groups = view.groups.values().filter(|group| is_wanted(cluster, &group.cluster));
        SnapshotResponse {
            version,
            groups: groups.map(|group| group.to_wire()).collect(),
            boot_id: self.boot_id,
            ..SnapshotResponse::default()
        }
    }

    /// Nodes heard of lately.
    pub fn nodes(&self) -> usize {
        self.registry.lock().expect("no holder panics").nodes()
    }

    /// Gives up silent nodes, for ever.
    pub async fn expire(&self) {
        let mut ticks = interval(EXPIRE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let dead = self.change(|registry| registry.expire(Instant::now()));
            if dead > 0 {
                info!(dead, "nodes were silent for too long");
            }
        }
    }

    /// Ends the streams that would otherwise keep the server from stopping.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Becomes true when the NameServer is about to stop.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}
