//! `raftmq.registry.v1.Registry`: brokers report, and brokers and tools look.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use gateway::Directory;
use proto::registry::{
    RegisterRequest, RegisterResponse, SnapshotRequest, SnapshotResponse, UnregisterRequest,
    UnregisterResponse, registry_server,
};
use tokio::{sync::watch, time::timeout};
use tonic::{Request, Response, Status};
use tracing::{debug, warn};

use crate::{
    metrics::Metrics,
    state::{State, Told},
};

/// Watchers hear something at least this often.
const WATCH_EVERY: Duration = Duration::from_secs(4);

/// The service over the shared state.
#[derive(Debug)]
pub(crate) struct RegistryService {
    state: Arc<State>,
    metrics: Arc<Metrics>,
}

impl RegistryService {
    pub(crate) fn new(state: Arc<State>, metrics: Arc<Metrics>) -> Self {
        Self { state, metrics }
    }
}

#[tonic::async_trait]
impl registry_server::Registry for RegistryService {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let report = request.into_inner();
        let response = self.state.register(&report);
        self.metrics.reported(response.refused.is_empty());
        let (broker_name, node_id) = (&report.broker_name, report.node_id);
        let reason = &response.refused;
        if reason.is_empty() {
            debug!(%broker_name, node_id, term = report.term, "report taken");
        } else if report.group_id.is_empty() {
            // Every node says so until its group has formed.
            debug!(%broker_name, node_id, %reason, "report refused");
        } else {
            warn!(%broker_name, node_id, %reason, "report refused");
        }
        Ok(Response::new(response))
    }

    async fn unregister(
        &self,
        request: Request<UnregisterRequest>,
    ) -> Result<Response<UnregisterResponse>, Status> {
        self.state.unregister(&request.into_inner());
        Ok(Response::new(UnregisterResponse {}))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        Ok(Response::new(self.state.snapshot(&request.get_ref().cluster)))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher {
            changed: self.state.directory().changed(),
            closing: self.state.closing(),
            state: Arc::clone(&self.state),
            cluster: request.into_inner().cluster,
            told: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(watcher, Watcher::next))))
    }
}

struct Watcher {
    state: Arc<State>,
    changed: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    cluster: String,
    told: Option<Told>,
}

impl Watcher {
    /// The next answer: at once the first time, then after each change, and now and then a sign of
    /// life that carries nothing. Ends when the NameServer stops.
    async fn next(mut self) -> Option<(Result<SnapshotResponse, Status>, Self)> {
        if self.told.is_some() {
            tokio::select! {
                // Silence is worth a sign of life, and so is nothing else.
                _ = timeout(WATCH_EVERY, self.changed.changed()) => {}
                _ = self.closing.wait_for(|closing| *closing) => return None,
            }
        }
        self.changed.mark_unchanged();
        let (news, told) = self.state.news(&self.cluster, self.told.as_ref());
        self.told = Some(told);
        Some((Ok(news), self))
    }
}
