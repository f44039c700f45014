//! The registry, its clock, and the view that everything here is served from.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gateway::{Directory, Shared};
use proto::registry::{RegisterRequest, RegisterResponse, SnapshotResponse, UnregisterRequest};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::info;

use crate::registry::Registry;

/// How often the silent are looked for.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);

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
        let wanted = |name: &str| cluster.is_empty() || cluster == name;
        let groups = view.groups.values().filter(|group| wanted(&group.cluster));
        let mut topics: Vec<_> = view
            .topics
            .values()
            .filter(|topic| {
                topic.placement.iter().any(|(name, _)| {
                    view.groups.get(name).is_none_or(|group| wanted(&group.cluster))
                })
            })
            .map(|topic| topic.to_wire())
            .collect();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        SnapshotResponse {
            version,
            groups: groups.map(|group| group.to_wire()).collect(),
            topics,
            boot_id: self.boot_id,
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
