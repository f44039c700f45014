//! A NameServer in this process: brokers report, clients and watchers are told.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::time::{Duration, Instant};

use gateway::{Directory, RemoteDirectory, directory::RemoteDirectoryConfig};
use namesrv::{config::Config, server::NameServer};
use proto::{
    registry::{
        Member, RegisterRequest, Role, SnapshotRequest, TopicQueues, TopicRoute, UnregisterRequest,
        registry_client::RegistryClient,
    },
    v2::{
        MessageType, Permission, QueryRouteRequest, QueryRouteResponse, Resource,
        messaging_service_client::MessagingServiceClient,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::Channel;

/// Nothing here takes longer.
const BUDGET: Duration = Duration::from_secs(10);

struct Running {
    address: String,
    pages: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), namesrv::server::Error>>,
}

impl Running {
    async fn start(listen: &str) -> Self {
        let config = Config {
            listen: listen.to_owned(),
            metrics: "127.0.0.1:0".to_owned(),
            addresses: "10.0.0.1:9876;10.0.0.2:9876".to_owned(),
            ..Config::default()
        };
        let server = NameServer::bind(config).await.expect("free ports");
        let address = server.address().expect("bound").to_string();
        let pages = server.pages_address().expect("asked for").to_string();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { address, pages, stop, ended }
    }

    async fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::connect(format!("http://{}", self.address)).await.expect("it listens")
    }

    async fn route(&self, topic: &str) -> QueryRouteResponse {
        let mut client = MessagingServiceClient::connect(format!("http://{}", self.address))
            .await
            .expect("it listens");
        let name = topic.to_owned();
        let topic = Some(Resource { resource_namespace: String::new(), name });
        let request = QueryRouteRequest { topic, endpoints: None };
        client.query_route(request).await.expect("an answer").into_inner()
    }

    async fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.pages).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("open");
        let mut page = String::new();
        timeout(BUDGET, socket.read_to_string(&mut page)).await.expect("in time").expect("text");
        page
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        let ended = timeout(BUDGET, self.ended).await.expect("it stops in time");
        ended.expect("no panic").expect("no error");
    }
}

/// A report of the leader of broker-a, with one topic of four queues.
fn leader(term: u64) -> RegisterRequest {
    RegisterRequest {
        cluster: "DefaultCluster".into(),
        broker_name: "broker-a".into(),
        group_id: "g".into(),
        node_id: 1,
        client_address: "127.0.0.1:1".into(),
        role: Role::Leader.into(),
        term,
        leader_id: 1,
        members: vec![Member {
            node_id: 1,
            raft_address: "127.0.0.1:2".into(),
            client_address: "127.0.0.1:1".into(),
            voter: true,
        }],
        topics_version: 1,
        has_topics: true,
        topics: vec![TopicRoute {
            topic: "orders".into(),
            permission: Permission::ReadWrite.into(),
            accepts: vec![MessageType::Normal.into()],
            placement: vec![TopicQueues { broker_name: "broker-a".into(), queues: 4 }],
            version: 1,
        }],
        boot_id: 5,
        ..RegisterRequest::default()
    }
}

fn goodbye() -> UnregisterRequest {
    UnregisterRequest {
        cluster: "DefaultCluster".into(),
        broker_name: "broker-a".into(),
        node_id: 1,
        boot_id: 5,
    }
}

#[tokio::test]
async fn what_a_leader_reports_is_in_the_routes() {
    let server = Running::start("127.0.0.1:0").await;
    let mut registry = server.registry().await;
    let answer = registry.register(leader(3)).await.expect("an answer").into_inner();
    assert_eq!((answer.topics_wanted, answer.refused.as_str()), (false, ""));
    let route = server.route("orders").await;
    assert_eq!(route.message_queues.len(), 4);
    let mut second = leader(4);
    second.group_id = "another".into();
    let answer = registry.register(second).await.expect("an answer").into_inner();
    assert!(answer.refused.contains("another"), "{}", answer.refused);
    server.stop().await;
}

#[tokio::test]
async fn a_question_that_came_too_early_is_held_until_a_broker_reports() {
    let server = Running::start("127.0.0.1:0").await;
    let mut registry = server.registry().await;
    let asked = async { server.route("orders").await };
    let reported = async {
        tokio::task::yield_now().await;
        registry.register(leader(3)).await.expect("an answer");
    };
    let (route, ()) = tokio::join!(asked, reported);
    // Found in the routes or, had the question come first, asked of the leader, which is not there.
    let code = route.status.expect("set").code;
    assert!(code == 20000 || code == 50002, "{code}");
    assert_eq!(server.route("orders").await.status.expect("set").code, 20000);
    server.stop().await;
}

#[tokio::test]
async fn watchers_are_told_of_changes_and_that_the_name_server_lives() {
    let server = Running::start("127.0.0.1:0").await;
    let mut registry = server.registry().await;
    let watch = registry.watch(SnapshotRequest::default()).await.expect("an answer");
    let mut watch = watch.into_inner();
    let mut next = async || {
        let told = timeout(BUDGET, watch.message()).await.expect("in time");
        told.expect("no error").expect("it goes on")
    };
    let first = next().await;
    assert!(first.groups.is_empty() && first.boot_id != 0);
    registry.register(leader(3)).await.expect("an answer");
    let told = next().await;
    assert_eq!((told.groups[0].leader_id, told.topics.len()), (1, 1));
    let alive = next().await;
    assert_eq!((alive.version, alive.groups.len()), (told.version, 0), "a sign of life");
    registry.unregister(goodbye()).await.expect("an answer");
    assert!(next().await.version > told.version);
    let elsewhere = SnapshotRequest { cluster: "another".into() };
    registry.register(leader(3)).await.expect("an answer");
    let snapshot = registry.snapshot(elsewhere).await.expect("an answer").into_inner();
    assert!(snapshot.groups.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn brokers_that_follow_it_keep_the_routes_over_its_restart() {
    let server = Running::start("127.0.0.1:0").await;
    let address = server.address.clone();
    server.registry().await.register(leader(3)).await.expect("an answer");
    let directory = RemoteDirectory::start(RemoteDirectoryConfig {
        name_servers: vec![address.clone()],
        cluster: "DefaultCluster".into(),
    });
    let name = "broker-a".parse().expect("valid");
    let mut changed = directory.changed();
    let mut reached = directory.reached();
    let known = |directory: &RemoteDirectory| directory.group(&name).is_some();
    timeout(BUDGET, async {
        while !known(&directory) {
            changed.changed().await.expect("it lives");
        }
    })
    .await
    .expect("the group is known in time");
    assert_eq!(directory.topic(&"orders".parse().expect("valid")).expect("known").version, 1);
    server.stop().await;
    assert!(known(&directory), "a NameServer that is away changes nothing");
    reached.mark_unchanged();
    let server = Running::start(&address).await;
    timeout(BUDGET, reached.changed()).await.expect("reached again in time").expect("it lives");
    // The first snapshot of the new start is empty; it takes a moment to be taken in.
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        assert!(known(&directory), "it has only just started");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn the_pages_show_groups_and_leaders_and_the_address_list() {
    let server = Running::start("127.0.0.1:0").await;
    server.registry().await.register(leader(3)).await.expect("an answer");
    let status = server.page("/status").await;
    let (_, body) = status.split_once("\r\n\r\n").expect("a body");
    let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(status["groups"][0]["broker_name"], "broker-a");
    assert_eq!(status["groups"][0]["leader"], "127.0.0.1:1");
    assert!(server.page("/metrics").await.contains("raftmq_namesrv_leaders 1"));
    assert!(server.page("/health").await.starts_with("HTTP/1.1 200"));
    assert!(server.page("/ready").await.starts_with("HTTP/1.1 200"));
    assert!(server.page("/rocketmq/nsaddr").await.ends_with("10.0.0.1:9876;10.0.0.2:9876"));
    server.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_open_streams() {
    let server = Running::start("127.0.0.1:0").await;
    let watch = server.registry().await.watch(SnapshotRequest::default()).await;
    let _watch = watch.expect("an answer").into_inner();
    let mut client = MessagingServiceClient::connect(format!("http://{}", server.address))
        .await
        .expect("it listens");
    let mut request = tonic::Request::new(futures::stream::pending());
    request.metadata_mut().insert("x-mq-client-id", "c".parse().expect("ascii"));
    let _telemetry = client.telemetry(request).await.expect("an answer");
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
