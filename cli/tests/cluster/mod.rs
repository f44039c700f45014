//! A server that remembers what it was asked, and the program pointed at it.

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
pub(crate) struct State {
    pub(crate) topics: Vec<admin::TopicInfo>,
    pub(crate) groups: Vec<admin::GroupConfig>,
    pub(crate) asked: Vec<admin::PutTopicRequest>,
    pub(crate) resolved: Vec<admin::ResolveTransactionRequest>,
    pub(crate) changed: Vec<admin::ChangeRequest>,
    pub(crate) members_changed: Vec<admin::change_membership_request::Change>,
    pub(crate) drained: Vec<bool>,
    pub(crate) resets: Vec<admin::ResetOffsetsRequest>,
    pub(crate) refuse: Option<admin::Error>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<State>>);

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
        self.0.lock().unwrap().resets.push(request.clone());
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

    async fn broker_stats(
        &self,
        _: Request<admin::BrokerStatsRequest>,
    ) -> Answer<admin::BrokerStatsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_config(
        &self,
        _: Request<admin::GetConfigRequest>,
    ) -> Answer<admin::GetConfigResponse> {
        Err(Status::unimplemented(""))
    }

    async fn make_snapshot(
        &self,
        _: Request<admin::MakeSnapshotRequest>,
    ) -> Answer<admin::MakeSnapshotResponse> {
        Err(Status::unimplemented(""))
    }

    /// One is held, and one waits for its message group.
    async fn list_in_flight(
        &self,
        request: Request<admin::ListInFlightRequest>,
    ) -> Answer<admin::ListInFlightResponse> {
        if request.into_inner().group != "billing" {
            return Ok(Response::new(admin::ListInFlightResponse::default()));
        }
        let held = admin::InFlight {
            topic: "orders".into(),
            client_id: "client-3".into(),
            attempt: 2,
            since_ms: 1000,
            due_ms: 2000,
            ..Default::default()
        };
        let waits = admin::InFlight { offset: 1, attempt: 0, waits: true, ..held.clone() };
        let messages = vec![held, waits];
        Ok(Response::new(admin::ListInFlightResponse { messages, ..Default::default() }))
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
pub(crate) struct Cluster {
    pub(crate) fake: Fake,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Cluster {
    pub(crate) fn start() -> Self {
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

    pub(crate) fn mqadmin(&self, flags: &str) -> Output {
        mqadmin(&format!("{flags} -n {}", self.address))
    }

    pub(crate) fn json(&self, flags: &str) -> Value {
        let output = self.mqadmin(&format!("{flags} --json"));
        assert!(output.status.success(), "{flags}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

pub(crate) fn mqadmin(flags: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqadmin"))
        .args(flags.split_whitespace())
        .env_remove("NAMESRV_ADDR")
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
