//! Builds a NameServer and runs it until it is told to stop.

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use gateway::{AdminFanout, Gateway, LogLevel, NoLocal, Shared, TlsConfig, listener};
use proto::{
    admin::admin_server::AdminServer, limits::GRPC_BYTES, registry::registry_server::RegistryServer,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::timeout};
use tracing::{info, warn};

use crate::{
    config::Config,
    grpc::RegistryService,
    http::{self, Pages},
    metrics::{Metrics, Sample},
    state::State,
};

/// On a stop: how long requests in progress may take.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// Why a NameServer cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen at {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("{0}")]
    RouteMode(#[from] gateway::UnknownRouteMode),
    #[error("TLS: {what}")]
    Tls { what: String },
    #[error("serve: {0}")]
    Serve(#[from] tonic::transport::Error),
}

impl From<listener::TlsError> for Error {
    fn from(error: listener::TlsError) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        Self::Tls { what: format!("{error}{}", source.unwrap_or_default()) }
    }
}

/// A NameServer whose ports are open.
#[derive(Debug)]
pub struct NameServer {
    config: Config,
    listener: TcpListener,
    pages: Option<TcpListener>,
    tls: TlsConfig,
    log: LogLevel,
}

impl NameServer {
    /// Opens the ports. Nothing is served yet.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let listener = listen(&config.listen).await?;
        let pages = match config.metrics.as_str() {
            "" => None,
            address => Some(listen(address).await?),
        };
        let tls = certificate(&config)?;
        Ok(Self { config, listener, pages, tls, log: LogLevel::default() })
    }

    /// In a process whose log level can be changed.
    #[must_use]
    pub fn logging(self, log: LogLevel) -> Self {
        Self { log, ..self }
    }

    /// Where clients and brokers reach it; tells the port when port 0 was asked for.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the pages are.
    pub fn pages_address(&self) -> Option<SocketAddr> {
        self.pages.as_ref().and_then(|pages| pages.local_addr().ok())
    }

    /// Serves until `stop` is done, then lets requests in progress finish for a bounded time.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let boot_id: u64 = rand::random();
        let state = Arc::new(State::new(boot_id));
        let metrics = Arc::new(Metrics::default());
        let gateway = self.gateway(boot_id, &state)?;
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let state = Arc::clone(&state);
            async move { state.expire().await }
        });
        if let Some(pages) = self.pages {
            let shown = Shown {
                state: Arc::clone(&state),
                metrics: Arc::clone(&metrics),
                gateway: gateway.clone(),
                addresses: self.config.address_list().join(";"),
            };
            tasks.spawn(http::serve(pages, Arc::new(shown)));
        }
        let registry = RegistryServer::new(RegistryService::new(Arc::clone(&state), metrics))
            .max_decoding_message_size(GRPC_BYTES);
        let admin = AdminServer::new(AdminFanout::new(Arc::clone(state.directory())));
        let (stopping, stopped) = oneshot::channel::<()>();
        let serve = gateway::server::builder()
            .add_service(gateway.service())
            .add_service(gateway.produce_service())
            .add_service(self.log.into_service())
            .add_service(registry)
            .add_service(admin)
            .serve_with_incoming_shutdown(listener::incoming(self.listener, self.tls), async {
                // An error means that the sender is gone, which is a reason to stop, too.
                stopped.await.unwrap_or(());
            });
        let mut serve = std::pin::pin!(serve);
        tokio::select! {
            ended = &mut serve => return Ok(ended?),
            () = stop => {}
        }
        info!("stopping");
        state.close();
        gateway.close();
        drop(stopping);
        match timeout(FINISH_WITHIN, serve).await {
            Ok(ended) => ended?,
            Err(_) => warn!(after = ?FINISH_WITHIN, "requests in progress were cut off"),
        }
        Ok(())
    }

    fn gateway(&self, boot_id: u64, state: &State) -> Result<Gateway<NoLocal, Arc<Shared>>, Error> {
        let listen = &self.config.listen;
        let mut config = gateway::Config::new(format!("namesrv {listen} {boot_id:016x}"), boot_id);
        config.route_mode = self.config.route_mode()?;
        config.clients_max = self.config.limits.clients;
        Ok(Gateway::start(config, NoLocal, Arc::clone(state.directory())))
    }
}

async fn listen(address: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address: address.to_owned(), source })
}

/// From the files if there are any, else one for the names by which this machine may be dialled.
fn certificate(config: &Config) -> Result<TlsConfig, Error> {
    let (chain, key): (&PathBuf, &PathBuf) = (&config.tls.certificates, &config.tls.key);
    if !chain.as_os_str().is_empty() {
        return Ok(TlsConfig::from_files(chain, key)?);
    }
    let host = config.listen.rsplit_once(':').map_or("", |(host, _)| host);
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    Ok(TlsConfig::self_signed(&names)?)
}

/// What the pages are made of.
struct Shown {
    state: Arc<State>,
    metrics: Arc<Metrics>,
    gateway: Gateway<NoLocal, Arc<Shared>>,
    addresses: String,
}

impl Pages for Shown {
    fn metrics(&self) -> String {
        let view = self.state.directory().view();
        self.metrics.page(Sample {
            groups: view.groups.len(),
            leaders: view.groups.values().filter(|group| group.leader_id.is_some()).count(),
            nodes: self.state.nodes(),
            topics: view.topics.len(),
            clients: self.gateway.clients(),
            forwarded: self.gateway.hops().count(),
        })
    }

    fn status(&self) -> String {
        let view = self.state.directory().view();
        let groups: Vec<_> = view
            .groups
            .values()
            .map(|group| {
                let members: Vec<_> = group
                    .members
                    .iter()
                    .map(|member| {
                        json!({
                            "node_id": member.node_id,
                            "raft_address": member.raft_address,
                            "client_address": member.client_address,
                            "voter": member.voter,
                            "alive": member.alive,
                        })
                    })
                    .collect();
                json!({
                    "cluster": group.cluster,
                    "broker_name": group.broker_name.as_str(),
                    "group_id": group.group_id,
                    "term": group.term,
                    "leader_id": group.leader_id,
                    "leader": group.leader,
                    "members": members,
                })
            })
            .collect();
        let status = json!({ "groups": groups, "topics": view.topics.len() });
        format!("{status}\n")
    }

    fn addresses(&self) -> String {
        self.addresses.clone()
    }
}
