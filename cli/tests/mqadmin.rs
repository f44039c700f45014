//! The `mqadmin` program against a server that remembers what it was asked.

use std::{
    net::SocketAddr,
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use proto::admin::{
    self,
    admin_server::{Admin, AdminServer},
    error::Fate,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// What the server holds, and how it is to refuse.
#[derive(Debug, Default)]
struct State {
    topics: Vec<admin::TopicInfo>,
    groups: Vec<admin::GroupConfig>,
    asked: Vec<admin::PutTopicRequest>,
    resolved: Vec<admin::ResolveTransactionRequest>,
    changed: Vec<admin::ChangeRequest>,
    members_changed: Vec<admin::change_membership_request::Change>,
    drained: Vec<bool>,
    refuse: Option<admin::Error>,
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<State>>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Fake {
    async fn put_topic(
        &self,
        request: Request<admin::PutTopicRequest>,
    ) -> Answer<admin::PutTopicResponse> {
        let mut state = self.0.lock().unwrap();
        if let Some(error) = state.refuse.clone() {
            let refusal = admin::PutTopicResponse { error: Some(error), ..Default::default() };
            return Ok(Response::new(refusal));
        }
        let request = request.into_inner();
        state.asked.push(request.clone());
        let config = request.config.unwrap();
        let place =
            |name: &String| admin::Placement { broker_name: name.clone(), queues: config.queues };
        let placement: Vec<_> = request.broker_names.iter().map(place).collect();
        state.topics.push(admin::TopicInfo {
            config: Some(config),
            placement: placement.clone(),
            version: 1,
            ..Default::default()
        });
        let answer = admin::PutTopicResponse { error: None, version: 1, placement };
        Ok(Response::new(answer))
    }

    async fn list_topics(
        &self,
        _: Request<admin::ListTopicsRequest>,
    ) -> Answer<admin::ListTopicsResponse> {
        let topics = self.0.lock().unwrap().topics.clone();
        Ok(Response::new(admin::ListTopicsResponse { error: None, topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<admin::DescribeTopicRequest>,
    ) -> Answer<admin::DescribeTopicResponse> {
        let name = request.into_inner().topic;
        let queue = |queue_id| admin::QueueInfo {
            broker_name: "broker-a".into(),
            queue_id,
            min_offset: 5,
            max_offset: 12,
        };
        let known = topics_of(&self.0).into_iter().find(|(known, _)| *known == name);
        let known = known.map(|(_, topic)| topic);
        let error = known.is_none().then(|| admin::Error {
            fate: Fate::Rejected as i32,
            message: format!("topic {name} does not exist"),
        });
        let queues = vec![queue(1), queue(0)];
        Ok(Response::new(admin::DescribeTopicResponse { error, topic: known, queues }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<admin::RedriveDeadLettersRequest>,
    ) -> Answer<admin::RedriveDeadLettersResponse> {
        let count = request.into_inner().max;
        Ok(Response::new(admin::RedriveDeadLettersResponse { error: None, count }))
    }

    async fn put_group(
        &self,
        request: Request<admin::PutGroupRequest>,
    ) -> Answer<admin::PutGroupResponse> {
        self.0.lock().unwrap().groups.push(request.into_inner().config.unwrap());
        Ok(Response::new(admin::PutGroupResponse { error: None }))
    }

    async fn list_groups(
        &self,
        _: Request<admin::ListGroupsRequest>,
    ) -> Answer<admin::ListGroupsResponse> {
        let groups = self.0.lock().unwrap().groups.clone();
        Ok(Response::new(admin::ListGroupsResponse { error: None, groups }))
    }

    async fn change(
        &self,
        request: Request<admin::ChangeRequest>,
    ) -> Answer<admin::ChangeResponse> {
        use admin::change_request::Change;
        let request = request.into_inner();
        let absent = match &request.change {
            Some(Change::DeleteTopic(name) | Change::DeleteGroup(name)) => name == "absent",
            _ => false,
        };
        self.0.lock().unwrap().changed.push(request);
        Ok(Response::new(admin::ChangeResponse { error: None, absent }))
    }

    async fn list_quotas(
        &self,
        _: Request<admin::ListQuotasRequest>,
    ) -> Answer<admin::ListQuotasResponse> {
        let quota = admin::Quota {
            kind: admin::LimitedKind::Topic.into(),
            name: "orders".into(),
            messages_per_second: 5,
            ..Default::default()
        };
        Ok(Response::new(admin::ListQuotasResponse { error: None, quotas: vec![quota] }))
    }

    async fn group_progress(
        &self,
        request: Request<admin::GroupProgressRequest>,
    ) -> Answer<admin::GroupProgressResponse> {
        assert!(!request.into_inner().group.is_empty());
        let queue = admin::QueueProgress {
            topic: "orders".into(),
            broker_name: "broker-a".into(),
            queue_id: 0,
            max_offset: 12,
            next_offset: 10,
            committed_offset: 7,
            in_flight: 3,
            waiting: 0,
            ready: 2,
            lasting: 3,
            last_consumed_ms: 0,
        };
        Ok(Response::new(admin::GroupProgressResponse { error: None, queues: vec![queue] }))
    }

    async fn reset_offsets(
        &self,
        request: Request<admin::ResetOffsetsRequest>,
    ) -> Answer<admin::ResetOffsetsResponse> {
        use admin::reset_offsets_request::To;
        let request = request.into_inner();
        let to_offset = match request.to {
            Some(To::End(true)) => 12,
            Some(To::TimeMs(ms)) => ms,
            Some(To::Offset(offset)) => offset,
            Some(To::End(false) | To::Begin(_)) | None => panic!("{request:?}"),
        };
        let queue_id = request.queue_id.unwrap_or(0);
        let queue = admin::QueueReset {
            broker_name: "broker-a".into(),
            queue_id,
            from_offset: 7,
            to_offset,
            ended: 3,
        };
        Ok(Response::new(admin::ResetOffsetsResponse { error: None, queues: vec![queue] }))
    }

    async fn query_messages(
        &self,
        request: Request<admin::QueryMessagesRequest>,
    ) -> Answer<admin::QueryMessagesResponse> {
        use admin::query_messages_request::By;
        let (tag, keys) = match request.into_inner().by.unwrap() {
            By::MessageId(id) if id == "absent" => {
                return Ok(Response::new(admin::QueryMessagesResponse::default()));
            }
            By::MessageId(_) | By::Place(_) => ("red", vec![]),
            By::Key(key) => ("blue", vec![key]),
            By::Any(_) => ("green", vec![]),
        };
        let system = proto::v2::SystemProperties {
            message_id: "id-1".into(),
            tag: Some(tag.into()),
            keys,
            ..Default::default()
        };
        let message = proto::v2::Message {
            system_properties: Some(system),
            body: "body".into(),
            ..Default::default()
        };
        let stored = admin::StoredMessage {
            broker_name: "broker-a".into(),
            offset: 9,
            stored_ms: 1_700_000_000_123,
            message: Some(message),
            ..Default::default()
        };
        let messages = vec![stored];
        Ok(Response::new(admin::QueryMessagesResponse { messages, ..Default::default() }))
    }

    async fn track_message(
        &self,
        request: Request<admin::TrackMessageRequest>,
    ) -> Answer<admin::TrackMessageResponse> {
        assert_eq!(request.into_inner().offset, 9);
        let state = admin::message_track::State::NotConsumed.into();
        let track = admin::MessageTrack { group: "billing".into(), state, ..Default::default() };
        Ok(Response::new(admin::TrackMessageResponse { error: None, tracks: vec![track] }))
    }

    async fn list_connections(
        &self,
        _: Request<admin::ListConnectionsRequest>,
    ) -> Answer<admin::ListConnectionsResponse> {
        let client = |client_type, group: &str, topics: &[(&str, &str)]| admin::Connection {
            client_id: format!("client-{client_type}"),
            client_type,
            group: group.into(),
            topics: topics.iter().map(|&(t, f)| (t.to_owned(), f.to_owned())).collect(),
            ..Default::default()
        };
        Ok(Response::new(admin::ListConnectionsResponse {
            error: None,
            connections: vec![
                client(1, "", &[("orders", "")]),
                client(3, "billing", &[("orders", "a || b")]),
            ],
            conflicts: vec!["billing: two filters".into()],
        }))
    }

    async fn cluster_status(
        &self,
        _: Request<admin::ClusterStatusRequest>,
    ) -> Answer<admin::ClusterStatusResponse> {
        let node = |node_id| admin::NodeStatus {
            node_id,
            raft_address: format!("127.0.0.1:4091{node_id}"),
            client_address: format!("127.0.0.1:808{node_id}"),
            voter: true,
        };
        let group = admin::GroupStatus {
            cluster: "DefaultCluster".into(),
            broker_name: "broker-a".into(),
            term: 4,
            leader_id: 2,
            members: vec![node(1), node(2), node(3)],
            flush: "sync".into(),
            ..Default::default()
        };
        Ok(Response::new(admin::ClusterStatusResponse { error: None, groups: vec![group] }))
    }

    async fn digest(&self, _: Request<admin::DigestRequest>) -> Answer<admin::DigestResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_transactions(
        &self,
        request: Request<admin::ListTransactionsRequest>,
    ) -> Answer<admin::ListTransactionsResponse> {
        let asked = request.into_inner();
        let transaction = |number, parked| admin::Transaction {
            transaction_id: transaction_id(number),
            topic: asked.topic.clone(),
            message_id: format!("m{number}"),
            checks: 15,
            parked,
            ..Default::default()
        };
        let mut transactions = vec![transaction(1, false), transaction(2, true)];
        transactions.retain(|transaction| transaction.parked || !asked.parked_only);
        Ok(Response::new(admin::ListTransactionsResponse { error: None, transactions }))
    }

    /// Three wait at each of two brokers; an answer holds two.
    async fn list_timers(
        &self,
        request: Request<admin::ListTimersRequest>,
    ) -> Answer<admin::ListTimersResponse> {
        let asked = request.into_inner();
        let stretch = |(broker, first): (&str, u64)| {
            let due = |n: u64| 1_700_000_000_000 + first + 10 * n;
            let timers = (0..3).map(|n| admin::Timer {
                due_ms: due(n),
                number: n,
                message_id: format!("{broker}-{n}"),
                recall_handle: format!("handle-{broker}-{n}"),
                ..Default::default()
            });
            let from = (asked.from_ms, asked.from_number);
            let until = if asked.until_ms == 0 { u64::MAX } else { asked.until_ms };
            let mut wanted: Vec<_> = timers
                .filter(|timer| (timer.due_ms, timer.number) >= from && timer.due_ms < until)
                .collect();
            let rest = wanted.split_off(wanted.len().min(2));
            admin::TimerStretch {
                broker_name: broker.into(),
                waiting: 3,
                timers: wanted,
                next: rest
                    .first()
                    .map(|t| admin::TimerPlace { due_ms: t.due_ms, number: t.number }),
            }
        };
        let brokers = [("broker-a", 0), ("broker-b", 5)];
        let named = |name: &str| asked.broker_name.is_empty() || asked.broker_name == name;
        let stretches = brokers.into_iter().filter(|(name, _)| named(name)).map(stretch).collect();
        Ok(Response::new(admin::ListTimersResponse { error: None, stretches }))
    }

    async fn resolve_transaction(
        &self,
        request: Request<admin::ResolveTransactionRequest>,
    ) -> Answer<admin::ResolveTransactionResponse> {
        self.0.lock().unwrap().resolved.push(request.into_inner());
        Ok(Response::new(admin::ResolveTransactionResponse { error: None }))
    }

    async fn change_membership(
        &self,
        request: Request<admin::ChangeMembershipRequest>,
    ) -> Answer<admin::ChangeMembershipResponse> {
        let change = request.into_inner().change.unwrap();
        let mut state = self.0.lock().unwrap();
        // It has caught up when it is asked for the second time.
        let asked_before = state.members_changed.contains(&change);
        state.members_changed.push(change.clone());
        let waits = matches!(change, admin::change_membership_request::Change::Replace(_));
        let (fate, message) = (Fate::NotDone.into(), "lags".into());
        let error = (waits && !asked_before).then_some(admin::Error { fate, message });
        Ok(Response::new(admin::ChangeMembershipResponse {
            error,
            survives: "2 voters".into(),
            ..Default::default()
        }))
    }

    async fn raft_status(
        &self,
        _: Request<admin::RaftStatusRequest>,
    ) -> Answer<admin::RaftStatusResponse> {
        let peer = |node_id, lag_bytes| admin::PeerStatus {
            node: Some(admin::NodeStatus { node_id, voter: true, ..Default::default() }),
            matched_index: Some(7),
            lag_entries: Some(0),
            lag_bytes: Some(lag_bytes),
            eta_ms: Some(0),
            connected: true,
            ..Default::default()
        };
        let added = self.0.lock().unwrap().members_changed.iter().any(|change| {
            matches!(change, admin::change_membership_request::Change::AddLearner(_))
        });
        let members = [(1, 0), (2, 5_000), (4, 0)].into_iter().take(if added { 3 } else { 2 });
        Ok(Response::new(admin::RaftStatusResponse {
            term: 3,
            leader_id: 1,
            members: members.map(|(node, lag)| peer(node, lag)).collect(),
            waiting: vec![admin::WaitingNode { node_id: 4, ..Default::default() }],
            survives: "2 voters".into(),
            ..Default::default()
        }))
    }

    async fn drain(&self, request: Request<admin::DrainRequest>) -> Answer<admin::DrainResponse> {
        self.0.lock().unwrap().drained.push(request.into_inner().on);
        Ok(Response::new(admin::DrainResponse { error: None }))
    }

    async fn transfer_leader(
        &self,
        request: Request<admin::TransferLeaderRequest>,
    ) -> Answer<admin::TransferLeaderResponse> {
        let leader_id = request.into_inner().node_id;
        Ok(Response::new(admin::TransferLeaderResponse { error: None, leader_id }))
    }
}

fn transaction_id(number: u64) -> String {
    proto::TransactionId { broker: "broker-a".parse().unwrap(), number }.to_string()
}

fn topics_of(state: &Mutex<State>) -> Vec<(String, admin::TopicInfo)> {
    let topics = state.lock().unwrap().topics.clone();
    topics.into_iter().map(|topic| (topic.config.clone().unwrap().topic, topic)).collect()
}

/// A running server, and the program pointed at it.
struct Cluster {
    fake: Fake,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let fake = Fake::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .add_service(AdminServer::new(fake.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(server);
        Self { fake, address, _runtime: runtime }
    }

    fn mqadmin(&self, flags: &str) -> Output {
        mqadmin(&format!("{flags} -n {}", self.address))
    }

    fn json(&self, flags: &str) -> Value {
        let output = self.mqadmin(&format!("{flags} --json"));
        assert!(output.status.success(), "{flags}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn mqadmin(flags: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqadmin"))
        .args(flags.split_whitespace())
        .env_remove("NAMESRV_ADDR")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_topic_is_created_and_listed() {
    let cluster = Cluster::start();
    let made =
        cluster.mqadmin("updateTopic -t orders -c DefaultCluster -r 4 -w 4 -a +message.type=FIFO");
    assert!(made.status.success(), "{}", stderr(&made));
    assert!(stdout(&made).contains("topic orders created"), "{}", stdout(&made));
    let asked = cluster.fake.0.lock().unwrap().asked[0].clone();
    assert_eq!(asked.broker_names, ["broker-a"]);
    assert_eq!(asked.config.unwrap().queues, 4);

    let list = cluster.json("topicList");
    assert_eq!(list["topics"][0]["name"], "orders");
    assert_eq!(list["topics"][0]["message_type"], "FIFO");
    assert!(stdout(&cluster.mqadmin("topicList")).contains("broker-a:4"));
}

#[test]
fn topics_and_groups_are_deleted_and_quotas_set() {
    use admin::change_request::Change;
    let cluster = Cluster::start();
    let commands = [
        "deleteTopic -t orders -c DefaultCluster",
        "deleteSubGroup -g audit -c DefaultCluster -r true",
        "updateQuota -t orders --messages 5",
        "updateTopic -t orders --retentionMs 9",
        "updateSubGroup -g audit -s false",
        "deleteTopic -t orders -b broker-b",
        "deleteTopic -t orders -b broker-b --force",
    ];
    for command in commands {
        let made = cluster.mqadmin(command);
        assert!(made.status.success(), "{command}: {}", stderr(&made));
    }
    let asked = cluster.fake.0.lock().unwrap().changed.clone();
    let quota = admin::Quota {
        kind: admin::LimitedKind::Topic.into(),
        name: "orders".into(),
        messages_per_second: 5,
        ..Default::default()
    };
    let retire = |force| {
        let (topic, broker_name) = ("orders".into(), "broker-b".into());
        Change::RetireTopic(admin::RetireTopic { topic, broker_name, force })
    };
    let expected = [
        Change::DeleteTopic("orders".into()),
        Change::DeleteGroup("audit".into()),
        Change::PutQuota(quota),
        Change::PutRetention(admin::Retention {
            topic: "orders".into(),
            ms: 9,
            bytes: 0,
            version: 0,
        }),
        Change::SwitchGroup(admin::SwitchGroup {
            group: "audit".into(),
            enabled: false,
            version: 0,
        }),
        retire(false),
        retire(true),
    ];
    let asked: Vec<_> = asked.into_iter().map(|request| request.change.unwrap()).collect();
    assert_eq!(asked, expected);
    assert_eq!(cluster.json("quotaList")["quotas"][0]["messages_per_second"], 5);
    let elsewhere = cluster.mqadmin("deleteTopic -t orders -c Nowhere");
    assert_eq!(elsewhere.status.code(), Some(1));

    for (command, text) in [
        ("deleteTopic -t absent", "topic absent does not exist"),
        ("deleteSubGroup -g absent", "consumer group absent does not exist"),
        ("deleteTopic -t orders", "topic orders deleted"),
    ] {
        let again = cluster.mqadmin(command);
        assert!(again.status.success(), "{command}: {}", stderr(&again));
        assert_eq!(stdout(&again).trim(), text);
    }
    assert_eq!(cluster.json("deleteTopic -t absent")["done"], "absent");
}

#[test]
fn a_broker_may_be_named_by_the_address_of_a_replica() {
    let cluster = Cluster::start();
    assert!(cluster.mqadmin("updateTopic -t orders -b 127.0.0.1:8083").status.success());
    assert_eq!(cluster.fake.0.lock().unwrap().asked[0].broker_names, ["broker-a"]);
    let unknown = cluster.mqadmin("updateTopic -t orders -b broker-z");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("broker-a"), "{}", stderr(&unknown));
}

#[test]
fn a_topics_queues_are_listed_in_order() {
    let cluster = Cluster::start();
    assert!(cluster.mqadmin("updateTopic -t orders").status.success());
    let status = cluster.json("topicStatus -t orders");
    assert_eq!(status["queues"][0]["queue"], 0);
    assert_eq!(status["queues"][1]["max_offset"], 12);
    let missing = cluster.mqadmin("topicStatus -t audit");
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("topic audit does not exist"), "{}", stderr(&missing));
}

#[test]
fn the_cluster_and_its_leaders_are_listed() {
    let cluster = Cluster::start();
    let list = cluster.json("clusterList");
    assert_eq!(list["brokers"][0]["leader_id"], 2);
    assert_eq!(list["brokers"][0]["members"][1]["role"], "leader");
    let moved = cluster.json("transferLeader -b broker-a -i 3");
    assert_eq!(moved["leader_id"], 3);
}

#[test]
fn members_are_shown_and_changed() {
    use admin::change_membership_request::Change;
    let cluster = Cluster::start();
    let status = cluster.json("raftStatus -b broker-a");
    assert_eq!(status["members"][1]["lag_bytes"], 5_000);
    assert_eq!(status["members"][0]["role"], "leader");
    assert_eq!(status["waiting"][0]["node_id"], 4);
    let text = String::from_utf8(cluster.mqadmin("raftStatus -b broker-a").stdout).unwrap();
    assert!(text.contains("2 voters") && text.contains("node 4"), "{text}");
    // Nobody is there to be asked.
    let output = cluster.mqadmin("removePeer -b broker-a -i 2");
    assert!(!output.status.success() && stderr(&output).contains("--yes"), "{output:?}");
    assert!(cluster.fake.0.lock().unwrap().members_changed.is_empty());
    assert_eq!(cluster.json("removePeer -b broker-a -i 2 --yes")["survives"], "2 voters");
    assert_eq!(cluster.json("promote -b broker-a -i 2")["done"], "promoted");
    let changed = std::mem::take(&mut cluster.fake.0.lock().unwrap().members_changed);
    assert_eq!(changed, [Change::Remove(2), Change::Promote(2)]);
}

#[test]
fn a_dead_node_is_replaced_by_one_command() {
    use admin::change_membership_request::Change;
    let cluster = Cluster::start();
    let done = cluster.json("replacePeer -b broker-a -i 2 --with 4 --yes");
    assert_eq!(done["done"], "replaced");
    let changed = std::mem::take(&mut cluster.fake.0.lock().unwrap().members_changed);
    let swap = Change::Replace(admin::ReplacePeer { old: 2, with: 4 });
    let add = admin::AddLearner { node_id: 4, raft_address: String::new() };
    assert_eq!(changed, [Change::AddLearner(add), swap.clone(), swap], "as often as it takes");
}

#[test]
fn a_consumer_group_is_put_and_its_progress_shown() {
    let cluster = Cluster::start();
    let put = "updateSubGroup -g billing -c DefaultCluster -s true -o true -m false -d false";
    assert!(cluster.json(put)["fifo"].as_bool().unwrap());
    assert_eq!(cluster.json("consumerProgress -g billing")["lag"], 5);
    assert_eq!(cluster.json("consumerProgress")["groups"][0]["group"], "billing");
}

#[test]
fn offsets_are_reset_by_time_and_by_offset() {
    let cluster = Cluster::start();
    let to = |flags: &str| {
        let report = cluster.json(&format!("resetOffsetByTime -g billing -t orders {flags}"));
        (
            report["queues"][0]["queue"].as_u64().unwrap(),
            report["queues"][0]["to"].as_u64().unwrap(),
        )
    };
    assert_eq!(to("-s now"), (0, 12));
    assert_eq!(to("-s -1"), (0, 12));
    assert_eq!(to("-s 1000 -f true"), (0, 1000));
    assert_eq!(to("-s 2023-11-14#22:13:20:123"), (0, 1_700_000_000_123));
    assert_eq!(to("-b broker-a -q 3 -o 5"), (3, 5));
    let skipped = cluster.json("skipAccumulatedMessage -g billing -t orders");
    assert_eq!(skipped["queues"][0]["ended"], 3);
    for wrong in ["", "-s tomorrow", "-o 5", "-s now -q 1 -o 5"] {
        let refused = cluster.mqadmin(&format!("resetOffsetByTime -g billing -t orders {wrong}"));
        assert_eq!(refused.status.code(), Some(2), "{wrong}: {}", stderr(&refused));
    }
}

#[test]
fn messages_are_shown_with_what_became_of_them() {
    let cluster = Cluster::start();
    for found in ["queryMsgById -i id-1", "queryMsgByOffset -b broker-a -i 0 -o 9"] {
        let message = &cluster.json(&format!("{found} -t orders"))["messages"][0];
        assert_eq!((&message["tag"], &message["offset"]), (&"red".into(), &9.into()));
        assert_eq!(message["tracks"][0]["state"], "NOT_CONSUME_YET");
        let text = stdout(&cluster.mqadmin(&format!("{found} -t orders")));
        assert!(text.contains("2023-11-14 22:13:20.123") && text.contains("billing"), "{text}");
    }
    let absent = cluster.mqadmin("queryMsgById -i absent -t orders");
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("no message with the id absent"), "{}", stderr(&absent));
    assert_eq!(cluster.json("queryMsgByKey -t orders -k k")["messages"][0]["keys"][0], "k");
    assert_eq!(cluster.json("printMsg -t orders")["messages"][0]["body"], "body");
    assert_eq!(cluster.json("printMsg -t orders -s red")["messages"], Value::Array(vec![]));
}

#[test]
fn connections_are_listed_with_their_conflicts() {
    let cluster = Cluster::start();
    let consumers = cluster.json("consumerConnection -g billing");
    assert_eq!(consumers["connections"][0]["topics"]["orders"], "a || b");
    assert_eq!(consumers["conflicts"][0], "billing: two filters");
    let producers = cluster.json("producerConnection -t orders");
    assert_eq!(producers["connections"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.json("producerConnection -t other")["connections"], Value::Array(vec![]));
}

#[test]
fn transactions_are_listed_and_resolved() {
    let cluster = Cluster::start();
    let all = cluster.json("txList -t orders");
    assert_eq!(all["transactions"][0]["state"], "pending");
    let parked = cluster.json("txList -t orders --parked");
    let parked = &parked["transactions"];
    assert_eq!((&parked[0]["state"], &parked[0]["broker"]), (&"parked".into(), &"broker-a".into()));
    let id = parked[0]["transaction_id"].as_str().unwrap();

    assert!(cluster.mqadmin(&format!("txResolve -i {id} --commit")).status.success());
    assert!(cluster.mqadmin(&format!("txResolve -i {id} --rollback")).status.success());
    assert!(!cluster.mqadmin(&format!("txResolve -i {id}")).status.success());
    let asked = cluster.fake.0.lock().unwrap().resolved.clone();
    let asked: Vec<_> = asked.iter().map(|r| (r.transaction_id.as_str(), r.commit)).collect();
    assert_eq!(asked, [(id, true), (id, false)]);
}

#[test]
fn delayed_messages_are_listed_in_the_order_of_their_delivery() {
    let cluster = Cluster::start();
    let ids = |flags: &str| {
        let listed = cluster.json(&format!("timerList -t later {flags}"));
        assert_eq!(listed["waiting"], 6);
        let ids: Vec<String> = listed["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["message_id"].as_str().unwrap().replace("broker-", ""))
            .collect();
        (ids.join(" "), listed["truncated"].as_bool().unwrap())
    };
    assert_eq!(ids(""), ("a-0 b-0 a-1 b-1 a-2 b-2".to_owned(), false), "page by page");
    assert_eq!(ids("-m 3"), ("a-0 b-0 a-1".to_owned(), true));
    let between = "-b 1700000000005 -e 2023-11-14#22:13:20:015";
    assert_eq!(ids(between), ("b-0 a-1".to_owned(), false));
    let text = stdout(&cluster.mqadmin("timerList -t later -m 1"));
    for part in ["6 delayed messages wait", "2023-11-14 22:13:20.000", "handle-broker-a-0", "more"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(cluster.mqadmin("timerList -t later -m 0").status.code(), Some(2));
}

#[test]
fn the_exit_code_tells_how_it_ended() {
    let cluster = Cluster::start();
    for (fate, code) in [(Fate::Rejected, 1), (Fate::NotDone, 3), (Fate::Unknown, 4)] {
        let error = admin::Error { fate: fate as i32, message: "because".into() };
        cluster.fake.0.lock().unwrap().refuse = Some(error);
        let refused = cluster.mqadmin("updateTopic -t orders");
        assert_eq!(refused.status.code(), Some(code));
        assert!(stderr(&refused).contains("because"), "{}", stderr(&refused));
    }
}

#[test]
fn mistakes_are_said_in_words() {
    let nobody = mqadmin("topicList -n 127.0.0.1:1");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        stderr(&nobody).contains("is a NameServer or a broker listening"),
        "{}",
        stderr(&nobody)
    );
    let bad_name = mqadmin("updateTopic -t a.b");
    assert_eq!(bad_name.status.code(), Some(2));
    assert!(stderr(&bad_name).contains("which is not allowed"), "{}", stderr(&bad_name));
    let cluster = Cluster::start();
    let unknown = cluster.mqadmin("updateTopic -t a -c NoSuchCluster");
    assert!(stderr(&unknown).contains("DefaultCluster"), "{}", stderr(&unknown));
}
