//! What producers and consumers share: connections, routes, sessions, and the tasks that keep them
//! fresh.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use proto::{ClientId, header, v2};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tonic::{Request, Response, Status, metadata::MetadataValue};
use tracing::debug;

use crate::{
    ClientConfig, Error, Fate, FilterExpression,
    address::Address,
    error::check,
    health::Health,
    keep,
    pool::{Messaging, Pool},
    route::{Placed, Route},
    session::{self, Orphan},
    settings::{Role, ServerSettings},
    topology::Topology,
};

/// Topics whose routes are kept and refreshed. A client that uses more asks again for the others.
const TOPICS: usize = 4096;
/// Questions about transactions that wait for the checker.
const ORPHANS: usize = 256;
/// How much longer than its server a client waits: the answer has to travel.
const TRAVEL: Duration = Duration::from_millis(500);

/// One member of the cluster, as the cluster sees it.
pub(crate) struct Client {
    pub(crate) config: ClientConfig,
    pub(crate) id: ClientId,
    pub(crate) pool: Pool,
    pub(crate) role: watch::Sender<Role>,
    /// What the server decided; `None` until it has.
    pub(crate) told: watch::Sender<Option<ServerSettings>>,
    pub(crate) orphans: mpsc::Sender<Orphan>,
    /// Asks for routes to be refreshed now.
    pub(crate) refresh: Notify,
    pub(crate) topology: RwLock<Topology>,
    mind_latency: bool,
    access: Mutex<Vec<Address>>,
    health: Mutex<Health>,
    routes: Mutex<HashMap<String, Arc<Route>>>,
    sessions: Mutex<HashMap<Address, watch::Sender<bool>>>,
    stop: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked here is never half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Finds the access points, asks for the routes of the role's topics, introduces itself, and
    /// waits until the server has answered that.
    pub(crate) async fn start(
        config: ClientConfig,
        role: Role,
        mind_latency: bool,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Orphan>), Error> {
        let id = config.check()?;
        if let Some(group) = role.group() {
            group.parse::<proto::ConsumerGroup>()?;
        }
        let pool = Pool::new(&config)?;
        let access = config.discovery.find().await?;
        let (orphans, questions) = mpsc::channel(ORPHANS);
        let client = Arc::new(Self {
            id,
            pool,
            role: watch::Sender::new(role),
            told: watch::Sender::new(None),
            orphans,
            refresh: Notify::new(),
            topology: RwLock::default(),
            mind_latency,
            access: Mutex::new(access),
            health: Mutex::default(),
            routes: Mutex::default(),
            sessions: Mutex::default(),
            stop: watch::Sender::new(false),
            config,
        });
        let mut closer = Closer(Some(Arc::clone(&client)));
        let topics = client.role.borrow().topics();
        for topic in &topics {
            client.route(topic).await?;
        }
        client.meet();
        client.introduced().await?;
        keep::start(&client);
        closer.0 = None;
        Ok((client, questions))
    }

    /// Waits for the first answer to the settings.
    async fn introduced(&self) -> Result<(), Error> {
        let wait = self.config.request_timeout * 2;
        let mut told = self.told.subscribe();
        let answered = timeout(wait, told.wait_for(Option::is_some)).await;
        match answered {
            Ok(_) => Ok(()),
            Err(_) => {
                let address = self.access_points().first().map(ToString::to_string);
                Err(Error::Timeout { address: address.unwrap_or_default(), waited: wait })
            }
        }
    }

    pub(crate) fn settings(&self) -> ServerSettings {
        self.told.borrow().clone().unwrap_or_default()
    }

    /// Turns true when the client is closed.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.stop.borrow()
    }

    /// Ends every task of the client. Calls under way go on.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
        for session in lock(&self.sessions).values() {
            session.send_replace(true);
        }
    }

    /// Says good-bye, so that the cluster need not wait for silence, and ends every task.
    pub(crate) async fn close(&self) {
        if self.is_closed() {
            return;
        }
        let group = self.role.borrow().group().map(|group| self.config.resource(group));
        for address in self.sessions() {
            let request = v2::NotifyClientTerminationRequest { group: group.clone() };
            let wait = self.config.request_timeout;
            let told = self
                .unary(&address, request, wait, |mut rpc, request| async move {
                    rpc.notify_client_termination(request).await
                })
                .await;
            if let Err(error) = told {
                debug!(%address, %error, "could not say good-bye");
            }
        }
        self.stop();
    }

    // Calls.

    /// A request with the headers that every server wants.
    pub(crate) fn request<T>(&self, message: T, deadline: Duration) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        if let Ok(id) = self.id.as_str().parse() {
            headers.insert(header::CLIENT_ID, id);
        }
        headers.insert(header::LANGUAGE, MetadataValue::from_static("RUST"));
        headers.insert(
            header::CLIENT_VERSION,
            MetadataValue::from_static(concat!("5.9.", env!("CARGO_PKG_VERSION_PATCH"))),
        );
        headers.insert(header::PROTOCOL, MetadataValue::from_static("v2"));
        if !self.config.namespace.is_empty()
            && let Ok(namespace) = self.config.namespace.parse()
        {
            headers.insert(header::NAMESPACE, namespace);
        }
        if let Some(credentials) = &self.config.credentials {
            credentials.sign(headers, proto::clock::wall_now());
        }
        request.set_timeout(deadline);
        request
    }

    /// One call to one address. `wait` is how long the server may take.
    pub(crate) async fn unary<Q, A, F>(
        &self,
        address: &Address,
        message: Q,
        wait: Duration,
        rpc: impl FnOnce(Messaging, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let messaging = self.pool.messaging(address)?;
        let start = Instant::now();
        let answer = timeout(wait + TRAVEL, rpc(messaging, self.request(message, wait))).await;
        let result = match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Error::transport(address.as_str(), status)),
            Err(_) => Err(Error::Timeout { address: address.to_string(), waited: wait }),
        };
        match &result {
            Ok(_) => self.answered(address, start.elapsed()),
            Err(_) => self.failed(address),
        }
        result
    }

    /// Makes a call at one access point after the other until one of them answers it. Only for
    /// calls that may be made twice. `rpc` judges the payload.
    pub(crate) async fn anywhere<A, F>(
        &self,
        mut addresses: Vec<Address>,
        rpc: impl Fn(Address) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<A, Error>>,
    {
        self.by_health(&mut addresses);
        let mut end = Error::NoAccessPoint;
        for address in addresses {
            match rpc(address).await {
                Err(error) if error.blames_address() || error.fate() == Fate::NotDone => {
                    end = error;
                }
                answer => return answer,
            }
        }
        Err(end)
    }

    // Health.

    pub(crate) fn answered(&self, address: &Address, took: Duration) {
        lock(&self.health).answered(address, took, self.mind_latency, Instant::now());
    }

    pub(crate) fn failed(&self, address: &Address) {
        lock(&self.health).failed(address, Instant::now());
        if let Ok(mut topology) = self.topology.write() {
            topology.doubt(address);
        }
        self.refresh.notify_one();
    }

    pub(crate) fn by_health(&self, addresses: &mut [Address]) {
        lock(&self.health).order(addresses, Instant::now());
    }

    // Addresses.

    /// Where anything can be asked, in the user's order.
    pub(crate) fn access_points(&self) -> Vec<Address> {
        lock(&self.access).clone()
    }

    /// An empty list changes nothing: somewhere the client must go on.
    pub(crate) fn set_access_points(&self, found: Vec<Address>) {
        if !found.is_empty() {
            *lock(&self.access) = found;
        }
    }

    /// Every way to a queue, best first: its leader, the address in its route, and, when that is an
    /// access point, the other access points, which can do what it can.
    pub(crate) fn ways_to(&self, placed: &Placed) -> Vec<Address> {
        let access = lock(&self.access);
        let mut ways = Vec::with_capacity(access.len() + 2);
        if let Ok(topology) = self.topology.read()
            && let Some(leader) = topology.leader(placed.queue.broker_name())
        {
            ways.push(leader.clone());
        }
        let mut add = |address: &Address| {
            if !ways.contains(address) {
                ways.push(address.clone());
            }
        };
        add(&placed.address);
        if access.contains(&placed.address) {
            access.iter().for_each(add);
        }
        drop(access);
        self.by_health(&mut ways);
        ways
    }

    // Routes.

    /// The route of a topic, asked for if it is not known.
    pub(crate) async fn route(&self, topic: &str) -> Result<Arc<Route>, Error> {
        if let Some(known) = lock(&self.routes).get(topic) {
            return Ok(Arc::clone(known));
        }
        self.fetch(topic).await
    }

    /// Adds a topic that exists to what a consumer receives, or changes its filter; false if it was
    /// so already.
    pub(crate) async fn subscribe(
        &self,
        topic: &str,
        filter: &FilterExpression,
    ) -> Result<bool, Error> {
        filter.check()?;
        self.route(topic).await?;
        Ok(self.role.send_if_modified(|role| role.subscribe(topic, filter)))
    }

    /// Asks for a route. What was known stays when nobody answers.
    pub(crate) async fn fetch(&self, topic: &str) -> Result<Arc<Route>, Error> {
        let wait = self.config.request_timeout;
        let route = self
            .anywhere(self.access_points(), |address| async move {
                let request = v2::QueryRouteRequest {
                    topic: Some(self.config.resource(topic)),
                    endpoints: Some(address.to_wire()),
                };
                let answer = self
                    .unary(&address, request, wait, |mut rpc, request| async move {
                        rpc.query_route(request).await
                    })
                    .await?;
                check(address.as_str(), answer.status.as_ref())?;
                Ok(Arc::new(Route::from_wire(topic, &answer.message_queues)))
            })
            .await?;
        let mut routes = lock(&self.routes);
        if routes.len() >= TOPICS && !routes.contains_key(topic) {
            routes.clear();
        }
        routes.insert(topic.to_owned(), Arc::clone(&route));
        Ok(route)
    }

    /// Topics whose routes are kept.
    pub(crate) fn known_topics(&self) -> Vec<String> {
        lock(&self.routes).keys().cloned().collect()
    }

    // Sessions.

    /// The addresses that sessions are kept with.
    pub(crate) fn sessions(&self) -> Vec<Address> {
        lock(&self.sessions).keys().cloned().collect()
    }

    /// Opens a session with every address that a route names, or with the best access point while
    /// there is no route, and ends those with others.
    pub(crate) fn meet(self: &Arc<Self>) {
        let mut wanted: Vec<Address> = Vec::new();
        for route in lock(&self.routes).values() {
            wanted.extend(route.addresses());
        }
        if wanted.is_empty() {
            let mut access = self.access_points();
            self.by_health(&mut access);
            wanted.extend(access.into_iter().take(1));
        }
        let mut sessions = lock(&self.sessions);
        if self.is_closed() {
            return;
        }
        sessions.retain(|address, stop| {
            let keep = wanted.contains(address);
            if !keep {
                stop.send_replace(true);
            }
            keep
        });
        for address in wanted {
            sessions.entry(address.clone()).or_insert_with(|| {
                let stop = watch::Sender::new(false);
                let stopped = stop.subscribe();
                tokio::spawn(session::keep(Arc::clone(self), address, stopped));
                stop
            });
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Ends the tasks of a client whose start does not come to its end.
struct Closer(Option<Arc<Client>>);

impl Drop for Closer {
    fn drop(&mut self) {
        if let Some(client) = &self.0 {
            client.stop();
        }
    }
}
