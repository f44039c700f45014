//! A scripted server: a broker in memory that does what a test tells it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures::Stream;
use prost::Message as _;
use proto::{SendMessageRequest, v2};
use raftmq_client::Code;
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Status, transport::Server as Tonic};

mod produce;
mod service;

/// No wait of a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What becomes of a call.
#[derive(Clone, Debug)]
pub enum Script {
    /// Refused with this code; nothing happens.
    Code(Code),
    /// It happens, and the answer is this gRPC error.
    Lost(tonic::Code),
    /// It happens, and the answer never comes.
    Silence,
}

#[derive(Clone, Debug)]
pub struct Stored {
    pub message: v2::Message,
    pub offset: i64,
    pub attempt: i32,
    pub in_flight: bool,
    pub done: bool,
    pub visible: Instant,
}

#[derive(Default)]
pub struct State {
    /// Queues per topic, all at this server unless `route` says otherwise.
    pub topics: HashMap<String, Topic>,
    pub stored: Vec<Stored>,
    /// Requests of each RPC, by its name.
    pub calls: HashMap<&'static str, usize>,
    pub scripts: HashMap<&'static str, VecDeque<Script>>,
    pub settings: Vec<v2::Settings>,
    pub commands: Vec<mpsc::Sender<Result<v2::TelemetryCommand, Status>>>,
    pub ended: Vec<v2::EndTransactionRequest>,
    pub given_back: Vec<v2::ChangeInvisibleDurationRequest>,
    pub given_up: Vec<v2::ForwardMessageToDeadLetterQueueRequest>,
    pub terminated: usize,
    pub client_ids: Vec<String>,
    pub headers: Vec<tonic::metadata::MetadataMap>,
    pub fifo: bool,
    pub attempts: i32,
    pub backoff: Vec<Duration>,
    pub batches: Vec<usize>,
    pub streamed: usize,
    /// How long each send takes: of a stream one after the other, otherwise at once.
    pub hold: Duration,
    pub offsets: HashMap<(String, i32), i64>,
}

#[derive(Clone, Debug)]
pub struct Topic {
    /// Broker names with their addresses and numbers of queues.
    pub brokers: Vec<(String, String, i32)>,
    pub accepts: Vec<v2::MessageType>,
}

/// One server on a port of its own. It dies when it is dropped.
pub struct Server {
    pub address: String,
    pub state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
pub struct Service {
    pub state: Arc<Mutex<State>>,
    pub address: String,
}

impl Server {
    /// Like a proxy of RocketMQ: no produce streams, no topology.
    pub async fn start() -> Self {
        Self::serve(false).await
    }

    /// With produce streams.
    pub async fn with_streams() -> Self {
        Self::serve(true).await
    }

    async fn serve(streams: bool) -> Self {
        // A runtime of its own, so that it can die with all its connections.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.await.expect("it does not panic").expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("bound");
        let state =
            State { attempts: 17, backoff: vec![Duration::from_millis(20)], ..State::default() };
        let service = Service { state: Arc::new(Mutex::new(state)), address: address.to_string() };
        let state = Arc::clone(&service.state);
        let messaging = v2::messaging_service_server::MessagingServiceServer::new(service.clone());
        let produce =
            streams.then(|| proto::produce::produce_server::ProduceServer::new(service.clone()));
        runtime.spawn(async move {
            let served = Tonic::builder().add_service(messaging).add_optional_service(produce);
            let _ = served.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Self { address: address.to_string(), state, runtime: Some(runtime) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// A topic with queues of broker `a` here.
    pub fn topic(&self, name: &str, queues: i32, accepts: v2::MessageType) {
        let brokers = vec![("a".to_owned(), self.address.clone(), queues)];
        self.state().topics.insert(name.to_owned(), Topic { brokers, accepts: vec![accepts] });
    }

    /// What becomes of the next calls of this RPC.
    pub fn script(&self, rpc: &'static str, scripts: impl IntoIterator<Item = Script>) {
        self.state().scripts.entry(rpc).or_default().extend(scripts);
    }

    pub fn calls(&self, rpc: &str) -> usize {
        self.state().calls.get(rpc).copied().unwrap_or_default()
    }

    pub fn bodies(&self) -> Vec<String> {
        let text = |stored: &Stored| String::from_utf8_lossy(&stored.message.body).into_owned();
        self.state().stored.iter().map(text).collect()
    }

    /// Bodies of messages that nobody acknowledged.
    pub fn left(&self) -> Vec<String> {
        let text = |stored: &Stored| String::from_utf8_lossy(&stored.message.body).into_owned();
        self.state().stored.iter().filter(|stored| !stored.done).map(text).collect()
    }

    /// Puts a message there as if somebody had sent it.
    pub fn put(&self, topic: &str, body: &str, group: Option<&str>) {
        let system = v2::SystemProperties {
            message_id: format!("id-{body}"),
            message_group: group.map(str::to_owned),
            body_encoding: v2::Encoding::Identity.into(),
            ..Default::default()
        };
        let message = v2::Message {
            topic: Some(v2::Resource { name: topic.to_owned(), ..Default::default() }),
            system_properties: Some(system),
            body: body.to_owned().into(),
            ..Default::default()
        };
        self.state().store(message);
    }

    /// Ends every connection and takes no new one.
    pub fn die(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.die();
    }
}

impl State {
    /// Counts a call; what is to become of it.
    pub fn called(&mut self, rpc: &'static str) -> Option<Script> {
        *self.calls.entry(rpc).or_default() += 1;
        self.scripts.get_mut(rpc).and_then(VecDeque::pop_front)
    }

    pub fn store(&mut self, message: v2::Message) -> v2::SendResultEntry {
        let system = message.system_properties.clone().unwrap_or_default();
        // Like RaftMQ: a message that is here is not stored again.
        let known = self.stored.iter().find(|stored| {
            let known = stored.message.system_properties.as_ref();
            known.is_some_and(|known| known.message_id == system.message_id)
        });
        let offset = match known {
            Some(known) => known.offset,
            None => {
                let offset = i64::try_from(self.stored.len()).expect("few");
                self.stored.push(Stored {
                    message,
                    offset,
                    attempt: 0,
                    in_flight: false,
                    done: false,
                    visible: Instant::now(),
                });
                offset
            }
        };
        let transactional = system.message_type() == v2::MessageType::Transaction;
        let delayed = system.delivery_timestamp.is_some();
        v2::SendResultEntry {
            status: Some(status(Code::Ok)),
            offset,
            transaction_id: if transactional { format!("tx-{offset}") } else { String::new() },
            recall_handle: if delayed { format!("recall-{offset}") } else { String::new() },
            message_id: system.message_id,
        }
    }

    pub fn send(&mut self, request: SendMessageRequest) -> v2::SendMessageResponse {
        self.batches.push(request.messages.len());
        let decode = |bytes| v2::Message::decode(bytes).expect("a message");
        let entries = request.messages.into_iter().map(|bytes| self.store(decode(bytes))).collect();
        v2::SendMessageResponse { status: Some(status(Code::Ok)), entries }
    }
}

pub fn status(code: Code) -> v2::Status {
    v2::Status { code: code.into(), message: code.as_str_name().to_owned() }
}

/// Waits for a condition.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
