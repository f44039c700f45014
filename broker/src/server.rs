//! The composition root: everything is built and wired here, in order, and stopped in order.
//!
//! Start: lock the directory; take the ports, so that a second process ends before it touches
//! data; open the state; start consensus, which replays the log after the state; then the edge. A
//! node serves as soon as it is started: whatever it cannot do itself it forwards.
//!
//! Stop: hand leadership over; go on forwarding while clients and other nodes learn of it; end
//! polls and streams; close the log and the state.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use gateway::{
    AdminSwitch, Gateway, LogLevel, RemoteDirectory, TlsConfig, directory::RemoteDirectoryConfig,
    listener,
};
use proto::{
    admin::admin_server::AdminServer,
    backup_rpc::backup_server::BackupServer,
    operator::{OperatorSecret, SecretError},
    session::sessions_server::SessionsServer,
    wire,
};
use raft::{Group, NodeId, Secret, Startup};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    command::level,
    config::{Book, Config, Flush, Loaded, RouteMode},
    connections::bounded,
    data_dir::{DataDir, DataDirError},
    delivery::{Readers, Waiting},
    directory,
    fault::Fault,
    grpc::{BackupService, Edge, Guard, LocalAdmin, ReplicaService, SessionService},
    http::{self, Pages},
    kv, leadership,
    lobby::Lobby,
    metrics::{Base, Metrics, rates},
    ops::{Broker, DiskSettings, ReplicaDisk, Settings, Signals, Space, View},
    otlp,
    pages::NodePages,
    registration::Registration,
    state::Machine,
};

/// Where the `raft` crate keeps the log's files.
const LOG_DIR: &str = "log";
/// A transfer of leadership that takes longer is given up; the others elect somebody.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);
/// The log's own good order: draining, closing.
const CLOSE_WAIT: Duration = Duration::from_secs(15);
/// Calls that were cut off let go of the state soon.
const STORE_CLOSE_WAIT: Duration = Duration::from_secs(2);
const STORE_CLOSE_LOOK: Duration = Duration::from_millis(5);

/// The broker could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A port is taken, or an address is not ours.
    #[error("listen on {address} ({key})")]
    Listen {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The secret cannot be read.
    #[error("read raft_secret_file {path}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The operators' secret cannot be used.
    #[error("read admin.secret_file {path}")]
    OperatorSecret {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SecretError,
    },
    /// The certificate cannot be used.
    #[error("set up TLS")]
    Tls(#[from] listener::TlsError),
    /// The state cannot be opened.
    #[error("open the state in {path}")]
    State {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: kv::Error,
    },
    /// The state is damaged and cannot be removed.
    #[error("remove the damaged state in {path}")]
    RemoveState {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The state was found damaged. The next start does without it.
    #[error("the state in {path} is damaged")]
    StateDamaged {
        /// Its directory.
        path: PathBuf,
    },
    /// Consensus cannot start.
    #[error("start replication")]
    Raft(#[from] raft::Error),
    /// Consensus had to stop: a failed disk, or peers that refuse this node.
    #[error("replication failed")]
    Failed(#[source] Arc<raft::Error>),
    /// The gRPC server ended by itself.
    #[error("serve clients")]
    Serve(#[source] tonic::transport::Error),
}

impl ServerError {
    /// Whether the node stops because it was removed from its group.
    pub fn is_removal(&self) -> bool {
        matches!(self, ServerError::Failed(error)
            if matches!(**error, raft::Error::Refused(raft::Refusal::Removed { .. })))
    }
}

/// A broker that serves.
#[derive(Debug)]
pub struct Server {
    broker: Arc<Broker>,
    gateway: Gateway<Edge, Arc<RemoteDirectory>>,
    pages: Arc<NodePages>,
    registration: Registration,
    client_addr: std::net::SocketAddr,
    metrics_addr: Option<std::net::SocketAddr>,
    stop_serving: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    leadership: JoinHandle<()>,
    store: Weak<kv::Rocks>,
    damaged: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
    _registering: JoinSet<()>,
    forward_for: Duration,
    finish_within: Duration,
    data_dir: DataDir,
}

impl Server {
    /// Starts a broker. When this returns it accepts clients.
    ///
    /// # Errors
    /// See [`ServerError`]: nothing was changed that a start with mended settings could not use.
    pub async fn start(config: Config) -> Result<Server, ServerError> {
        Server::start_logging(config.into(), LogLevel::default()).await
    }

    /// The same in a process whose log level can be changed.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start_logging(loaded: Loaded, log: LogLevel) -> Result<Server, ServerError> {
        let config = loaded.config.clone();
        let started = Instant::now();
        if let Some(bug) = config.bug().expect("validated") {
            bug.sow();
        }
        if config.fault.level > 0 {
            level::pretend(config.fault.level);
        }
        if config.fault.wire > 0 {
            wire::pretend(config.fault.wire);
        }
        let data_dir = DataDir::lock(&config.data_dir)?;
        let listener = bind("listen", &config.listen).await?;
        let client_addr = local_addr("listen", &config.listen, &listener)?;
        let advertised = advertised(&config, client_addr);
        let pages_listener = match config.metrics.as_str() {
            "" => None,
            address => Some(bind("metrics", address).await?),
        };
        let metrics_addr = match &pages_listener {
            Some(listener) => Some(local_addr("metrics", &config.metrics, listener)?),
            None => None,
        };
        let startup = Startup::default();
        let lobby = Lobby::new(&config.broker_name, config.node_id, startup.clone());
        let mut tasks = JoinSet::new();
        if let Some(listener) = pages_listener {
            tasks.spawn(http::serve(listener, Arc::clone(&lobby) as Arc<dyn Pages>));
        }
        let tls = tls(&config, &advertised)?;
        let guard = guard(&config.admin.secret_file)?;

        let waiting = Arc::new(Waiting::new(config.limits.long_polls));
        let readers = Readers::new(config.limits.long_polls);
        let signals = Signals::new(Arc::clone(&waiting), readers);
        let StateFound { machine, store, damaged } =
            open_state(&data_dir, config.log.segment_size.0, &signals)?;
        let state = machine.state();
        let replayed_from = state.read().applied().map_or(0, |log_id| log_id.index.0);
        let mut raft_config = raft_config(&config, &data_dir, &advertised)?;
        raft_config.startup = startup;
        let group = Group::start(raft_config, machine).await?;
        let view = View::new(state, group.reader(), signals);
        let metrics = Arc::new(Metrics::new(Base {
            cluster: config.cluster.clone(),
            node_id: config.broker_name.clone(),
        }));
        let settings = settings(loaded, advertised.clone());
        let broker = Broker::new(settings, group, view, waiting, metrics);

        let directory = Arc::new(RemoteDirectory::start(RemoteDirectoryConfig {
            name_servers: config.namesrv.0.clone(),
            cluster: config.cluster.clone(),
        }));
        let boot_id = rand::random();
        let gateway = Gateway::start(
            gateway_config(&config, advertised, boot_id),
            Edge::new(Arc::clone(&broker)),
            Arc::clone(&directory),
        );
        let registration = Registration {
            broker: Arc::clone(&broker),
            cluster: config.cluster.clone(),
            node_id: config.node_id,
            boot_id,
            name_servers: config.namesrv.0.clone(),
        };
        let registering = registration.start(&directory.reached());
        let leadership = tokio::spawn(leadership::follow(Arc::clone(&broker), broker.role()));
        let pages = NodePages::new(Arc::clone(&broker), gateway.hops().clone());
        lobby.open(Arc::clone(&pages));
        tasks.spawn(watch_disk(Arc::clone(&broker), &data_dir));
        tasks.spawn(Arc::clone(&broker).follow_live_settings());
        tasks.spawn(look_at_rates(Arc::clone(&broker)));
        tasks.spawn(directory::inform(Arc::clone(&broker), config.cluster.clone(), directory));
        if let Some(endpoint) = config.otlp_endpoint().expect("validated") {
            let node = otlp::Node {
                cluster: config.cluster.clone(),
                broker_name: config.broker_name.clone(),
                node_id: config.node_id,
            };
            tasks.spawn(otlp::run(endpoint, config.otlp.interval, node, pages.clone()));
        }
        let (stop_serving, stopped) = oneshot::channel();
        let serving = serve(&config, &gateway, &broker, (log, guard), (listener, tls), stopped);
        report_start(&broker, client_addr, replayed_from, started);
        Ok(Server {
            broker,
            gateway,
            pages,
            registration,
            client_addr,
            metrics_addr,
            stop_serving,
            serving,
            leadership,
            store,
            damaged,
            _tasks: tasks,
            _registering: registering,
            forward_for: config.shutdown.forward_for,
            finish_within: config.shutdown.finish_within,
            data_dir,
        })
    }

    /// Where clients connect.
    pub fn client_addr(&self) -> std::net::SocketAddr {
        self.client_addr
    }

    /// Where the HTTP pages are, if anywhere.
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.metrics_addr
    }

    /// The operations of this node.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Returns when the broker cannot go on. After [`ServerError::StateDamaged`] a new start can.
    pub async fn failed(&mut self) -> ServerError {
        let error = tokio::select! {
            error = self.broker.group.failed() => ServerError::Failed(error),
            // The store lives as long as somebody could ask.
            _ = self.damaged.wait_for(|damaged| *damaged) => {
                ServerError::StateDamaged { path: self.data_dir.state() }
            }
            served = &mut self.serving => match served {
                Ok(Err(error)) => ServerError::Serve(error),
                Ok(Ok(())) | Err(_) => {
                    unreachable!("the server ends only when it is told to, and does not panic")
                }
            },
        };
        let found = matches!(&error, ServerError::Failed(why)
            if matches!(**why, raft::Error::StateDamaged { .. }));
        if !found && !*self.damaged.borrow() {
            return error;
        }
        let path = self.data_dir.state();
        match self.data_dir.condemn_state() {
            Ok(()) => ServerError::StateDamaged { path },
            Err(source) => ServerError::RemoveState { path, source },
        }
    }

    /// Stops in good order; see the head of this file. Bounded.
    pub async fn stop(self) {
        let Server { broker, gateway, pages, registration, mut serving, leadership, .. } = self;
        let mut tasks = self._tasks;
        let started = Instant::now();
        info!("stopping");
        pages.stop();
        let handed_over = hand_over(&broker).await;
        drop(self._registering);
        registration.unregister().await;
        if handed_over || !broker.role().borrow().is_leader() {
            tokio::time::sleep(self.forward_for).await;
        }
        broker.end_waits();
        gateway.close();
        // The server may have ended by itself.
        let _ = self.stop_serving.send(());
        if timeout(self.finish_within, &mut serving).await.is_err() {
            info!(waited = ?self.finish_within, "closing connections with calls in progress");
            serving.abort();
        }
        if timeout(CLOSE_WAIT, broker.group.shutdown()).await.is_err() {
            warn!(waited = ?CLOSE_WAIT, "the log did not close in time; it will be checked again");
        }
        leadership.abort();
        if let Err(error) = broker.view().flush() {
            warn!(%error, "state not flushed; the next start replays more");
        }
        drop((broker, gateway, pages, registration));
        tasks.shutdown().await;
        closed(&self.store).await;
        info!(took = ?started.elapsed(), "stopped");
    }
}

/// Waits until the last user of the store is gone, so that it can be opened again.
async fn closed(store: &Weak<kv::Rocks>) {
    let start = Instant::now();
    while store.strong_count() > 0 && start.elapsed() < STORE_CLOSE_WAIT {
        tokio::time::sleep(STORE_CLOSE_LOOK).await;
    }
    if store.strong_count() > 0 {
        warn!(waited = ?STORE_CLOSE_WAIT, "the state is still in use");
    }
}

/// True if another node leads now.
async fn hand_over(broker: &Broker) -> bool {
    if !broker.role().borrow().is_leader() || broker.group.status().members.len() < 2 {
        return false;
    }
    match timeout(HAND_OVER_WAIT, broker.group.transfer_leader(None)).await {
        Ok(Ok(leader)) => {
            info!(%leader, "leadership handed over");
            true
        }
        Ok(Err(error)) => {
            warn!(%error, "leadership not handed over");
            false
        }
        Err(_) => {
            warn!(waited = ?HAND_OVER_WAIT, "leadership not handed over in time");
            false
        }
    }
}

async fn bind(key: &'static str, address: &str) -> Result<TcpListener, ServerError> {
    let failed = |source| ServerError::Listen { key, address: address.to_owned(), source };
    TcpListener::bind(address).await.map_err(failed)
}

fn local_addr(
    key: &'static str,
    address: &str,
    listener: &TcpListener,
) -> Result<std::net::SocketAddr, ServerError> {
    let failed = |source| ServerError::Listen { key, address: address.to_owned(), source };
    listener.local_addr().map_err(failed)
}

/// Port 0 asks for any port: what is told is the one that it became.
fn advertised(config: &Config, bound: std::net::SocketAddr) -> String {
    match config.advertised().rsplit_once(':') {
        Some((host, "0")) => format!("{host}:{}", bound.port()),
        _ => config.advertised().to_owned(),
    }
}

fn tls(config: &Config, advertised: &str) -> Result<TlsConfig, ServerError> {
    let tls = &config.tls;
    if !tls.certificate_file.as_os_str().is_empty() {
        return Ok(TlsConfig::from_files(&tls.certificate_file, &tls.key_file)?);
    }
    let host = advertised.rsplit_once(':').map_or(advertised, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    Ok(TlsConfig::self_signed(&names)?)
}

/// What opening the state came to.
struct StateFound {
    machine: Machine,
    store: Weak<kv::Rocks>,
    damaged: watch::Receiver<bool>,
}

/// The state. One that is damaged is removed: it is derived from the log, and where the log has
/// not got all of it any more, there are snapshots here and with the other replicas.
fn open_state(
    data_dir: &DataDir,
    segment: u64,
    signals: &Arc<Signals>,
) -> Result<StateFound, ServerError> {
    let path = data_dir.state();
    let removed = |source| ServerError::RemoveState { path: data_dir.state(), source };
    if data_dir.state_is_condemned() {
        warn!(path = %path.display(), "the state was found damaged and is removed");
        data_dir.remove_state().map_err(removed)?;
    }
    let failed = |source| ServerError::State { path: path.clone(), source };
    match try_open_state(&path, segment, signals) {
        Err(error) if error.is_damage() => {
            tracing::error!(%error, path = %path.display(), "the state is damaged and is removed");
            data_dir.remove_state().map_err(removed)?;
            try_open_state(&path, segment, signals).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

fn try_open_state(
    path: &Path,
    segment: u64,
    signals: &Arc<Signals>,
) -> Result<StateFound, kv::Error> {
    let rocks = Arc::new(kv::Rocks::open(&kv::RocksConfig::new(path))?);
    let (store, damaged) = (Arc::downgrade(&rocks), rocks.damaged());
    let signals = Arc::clone(signals);
    let machine = Machine::open(rocks, segment, move |effects| signals.tell(effects))?;
    Ok(StateFound { machine, store, damaged })
}

fn raft_config(
    config: &Config,
    data_dir: &DataDir,
    advertised: &str,
) -> Result<raft::Config, ServerError> {
    let peers: BTreeMap<NodeId, String> =
        config.raft_peers.0.iter().map(|(id, at)| (NodeId(*id), at.clone())).collect();
    let mut raft = raft::Config::new(
        NodeId(config.node_id),
        config.broker_name.clone(),
        peers,
        advertised,
        data_dir.raft(),
    );
    let given = |address: &String| (!address.is_empty()).then(|| address.clone());
    raft.join.clone_from(&config.join.0);
    raft.listen = given(&config.raft_listen);
    raft.raft_addr = given(&config.raft_advertise);
    raft.flush = match config.flush {
        Flush::Sync => raft::Flush::Sync,
        Flush::Async => raft::Flush::Async,
    };
    raft.secret = secret(&config.raft_secret_file)?;
    raft.segment_size = config.log.segment_size.0;
    raft.snapshot_rate = config.raft.snapshot_rate.0;
    raft.scrub_rate = config.raft.scrub_rate.0;
    raft.scrub_interval = config.raft.scrub_interval;
    raft.disk_fault = config.disk_fault().expect("validated");
    raft.preferred_leader = config.raft.preferred_leader;
    raft.feature_level = level::understood();
    raft.timing.heartbeat = config.raft.heartbeat_interval;
    raft.timing.election_min = config.raft.election_timeout_min;
    raft.timing.election_max = config.raft.election_timeout_max;
    Ok(raft)
}

fn secret(path: &PathBuf) -> Result<Option<Secret>, ServerError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let bytes =
        std::fs::read(path).map_err(|source| ServerError::Secret { path: path.clone(), source })?;
    // Editors end a file with a line feed that nobody meant.
    Ok(Some(Secret::new(bytes.trim_ascii())?))
}

fn guard(path: &Path) -> Result<Guard, ServerError> {
    if path.as_os_str().is_empty() {
        return Ok(Guard::new(None));
    }
    let failed = |source| ServerError::OperatorSecret { path: path.to_owned(), source };
    Ok(Guard::new(Some(OperatorSecret::read(path).map_err(failed)?)))
}

fn settings(loaded: Loaded, advertised: String) -> Settings {
    let config = &loaded.config;
    Settings {
        name: config.broker_name.parse().expect("validated"),
        advertised,
        disk: DiskSettings {
            high: config.log.disk_high,
            full: config.log.disk_full,
            reserve: config.log.disk_reserve.0,
        },
        long_polls: config.limits.long_polls,
        send_bytes: config.limits.send_bytes.bytes(),
        receive_bytes: config.limits.receive_bytes.bytes(),
        clients: config.limits.clients,
        fault: Fault::holding(config.hold().expect("validated")),
        book: Book::new(loaded),
    }
}

async fn look_at_rates(broker: Arc<Broker>) {
    let mut ticks = tokio::time::interval(rates::TICK);
    loop {
        ticks.tick().await;
        broker.metrics.rates().look();
    }
}

/// The log and the state may be on file systems of their own.
fn watch_disk(broker: Arc<Broker>, data_dir: &DataDir) -> impl Future<Output = ()> + use<> {
    let paths = vec![data_dir.raft().join(LOG_DIR), data_dir.state()];
    async move {
        let replicas = |own: Space| {
            broker.group.set_disk(raft::DiskSpace { total: own.total, free: own.free });
            let told = broker.group.disks().into_iter();
            told.map(|(member, space)| ReplicaDisk {
                node: member.node_id,
                voter: member.voter,
                space: space.map(|space| Space { total: space.total, free: space.free }),
            })
            .collect()
        };
        broker.disk.watch(paths, replicas).await;
    }
}

fn gateway_config(config: &Config, advertised: String, boot_id: u64) -> gateway::Config {
    let mut gateway = gateway::Config::new(advertised, boot_id);
    gateway.route_mode = match config.route.mode {
        RouteMode::AccessPoint => gateway::RouteMode::AccessPoint,
        RouteMode::Split => gateway::RouteMode::Split,
        RouteMode::Direct => gateway::RouteMode::Direct,
    };
    gateway.clients_max = config.limits.clients;
    gateway
}

fn serve(
    config: &Config,
    gateway: &Gateway<Edge, Arc<RemoteDirectory>>,
    broker: &Arc<Broker>,
    (log, guard): (LogLevel, Guard),
    (listener, tls): (TcpListener, TlsConfig),
    stopped: oneshot::Receiver<()>,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    let flush = match config.flush {
        Flush::Sync => "sync",
        Flush::Async => "async",
    };
    let directory = Arc::clone(gateway.directory());
    let admin = LocalAdmin::new(Arc::clone(broker), config.cluster.clone(), flush);
    let backups = BackupService::new(Arc::clone(broker), config.cluster.clone());
    let incoming = bounded(listener::incoming(listener, tls), config.limits.connections);
    let router = gateway::server::builder()
        .layer(guard)
        .add_service(gateway.service())
        .add_service(gateway.produce_service())
        .add_service(log.into_service())
        .add_service(SessionsServer::new(SessionService::new(Arc::clone(broker))))
        .add_service(ReplicaService::new(Arc::clone(broker)))
        .add_service(BackupServer::new(backups))
        .add_service(AdminServer::new(AdminSwitch::new(admin, directory)));
    tokio::spawn(router.serve_with_incoming_shutdown(incoming, async {
        // Dropped means the same.
        let _ = stopped.await;
    }))
}

fn report_start(
    broker: &Broker,
    client_addr: std::net::SocketAddr,
    replayed_from: u64,
    started: Instant,
) {
    let status = broker.group.status();
    let last = status.last.map_or(0, |index| index.0);
    info!(
        broker = %broker.name(),
        node = %status.node_id,
        %client_addr,
        last_index = last,
        replay_from = replayed_from,
        took = ?started.elapsed(),
        "serving"
    );
    if !status.waiting_for.is_empty() {
        let nodes: Vec<u64> = status.waiting_for.iter().map(|node| node.0).collect();
        info!(?nodes, "waiting for peers");
    }
}
