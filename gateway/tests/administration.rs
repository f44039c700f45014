//! Administration at an access point reaches the leaders concerned.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::sync::{Arc, Mutex};

use cast::{ScriptedBroker, group, publish};
use gateway::{AdminFanout, AdminSwitch, Gateway, Shared, TlsConfig, listener};
use proto::{
    TransactionId,
    admin::{
        ChangeRequest, ChangeResponse, ClusterStatusRequest, ClusterStatusResponse,
        DescribeTopicRequest, DescribeTopicResponse, DigestRequest, DigestResponse, Error,
        GroupConfig, GroupProgressRequest, GroupProgressResponse, GroupStatus,
        ListConnectionsRequest, ListConnectionsResponse, ListGroupsRequest, ListGroupsResponse,
        ListQuotasRequest, ListQuotasResponse, ListTopicsRequest, ListTopicsResponse,
        ListTransactionsRequest, ListTransactionsResponse, PutGroupRequest, PutGroupResponse,
        PutTopicRequest, PutTopicResponse, QueryMessagesRequest, QueryMessagesResponse, QueueInfo,
        Quota, RedriveDeadLettersRequest, RedriveDeadLettersResponse, ResetOffsetsRequest,
        ResetOffsetsResponse, ResolveTransactionRequest, ResolveTransactionResponse, TopicConfig,
        TrackMessageRequest, TrackMessageResponse, Transaction, TransferLeaderRequest,
        TransferLeaderResponse,
        admin_server::{Admin, AdminServer},
        change_request::Change,
        error::Fate,
    },
    session::sessions_server::SessionsServer,
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// A broker's own administration: notes what it was asked.
#[derive(Debug, Clone)]
struct Noted {
    name: &'static str,
    puts: Arc<Mutex<Vec<PutTopicRequest>>>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Noted {
    async fn put_topic(&self, request: Request<PutTopicRequest>) -> Answer<PutTopicResponse> {
        let request = request.into_inner();
        self.puts.lock().expect("no holder panics").push(request.clone());
        let PutTopicRequest { version, placement, .. } = request;
        Ok(Response::new(PutTopicResponse { error: None, version, placement }))
    }

    async fn list_topics(&self, _: Request<ListTopicsRequest>) -> Answer<ListTopicsResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn describe_topic(
        &self,
        request: Request<DescribeTopicRequest>,
    ) -> Answer<DescribeTopicResponse> {
        // Only broker-b holds it.
        if self.name == "broker-a" {
            let error = Error { fate: Fate::Rejected.into(), message: "unknown topic".into() };
            let response = DescribeTopicResponse { error: Some(error), ..Default::default() };
            return Ok(Response::new(response));
        }
        assert_eq!(request.into_inner().topic, "orders");
        let queue = QueueInfo { broker_name: self.name.into(), ..Default::default() };
        let queues = vec![queue];
        Ok(Response::new(DescribeTopicResponse { queues, ..Default::default() }))
    }

    async fn redrive_dead_letters(
        &self,
        _: Request<RedriveDeadLettersRequest>,
    ) -> Answer<RedriveDeadLettersResponse> {
        Err(Status::unimplemented("not asked"))
    }

    async fn reset_offsets(&self, _: Request<ResetOffsetsRequest>) -> Answer<ResetOffsetsResponse> {
        Err(Status::unimplemented("not asked"))
    }

    async fn query_messages(
        &self,
        _: Request<QueryMessagesRequest>,
    ) -> Answer<QueryMessagesResponse> {
        Err(Status::unimplemented("not asked"))
    }

    async fn track_message(&self, _: Request<TrackMessageRequest>) -> Answer<TrackMessageResponse> {
        Err(Status::unimplemented("not asked"))
    }

    async fn put_group(&self, _: Request<PutGroupRequest>) -> Answer<PutGroupResponse> {
        Ok(Response::new(Default::default()))
    }

    /// Only broker-b knows the topic and the consumer group, and only broker-a can set a quota.
    async fn change(&self, request: Request<ChangeRequest>) -> Answer<ChangeResponse> {
        let quota = matches!(request.into_inner().change, Some(Change::PutQuota(_)));
        let error = ((self.name == "broker-a") != quota)
            .then(|| Error { fate: Fate::Rejected.into(), message: self.name.into() });
        Ok(Response::new(ChangeResponse { error }))
    }

    async fn list_quotas(&self, _: Request<ListQuotasRequest>) -> Answer<ListQuotasResponse> {
        let shared = Quota { name: "orders".into(), ..Default::default() };
        Ok(Response::new(ListQuotasResponse { error: None, quotas: vec![shared] }))
    }

    async fn list_groups(&self, _: Request<ListGroupsRequest>) -> Answer<ListGroupsResponse> {
        let shared = GroupConfig { group: "billing".into(), ..Default::default() };
        let own = GroupConfig { group: format!("of-{}", self.name), ..Default::default() };
        Ok(Response::new(ListGroupsResponse { error: None, groups: vec![shared, own] }))
    }

    async fn group_progress(
        &self,
        _: Request<GroupProgressRequest>,
    ) -> Answer<GroupProgressResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn list_connections(
        &self,
        _: Request<ListConnectionsRequest>,
    ) -> Answer<ListConnectionsResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn cluster_status(
        &self,
        _: Request<ClusterStatusRequest>,
    ) -> Answer<ClusterStatusResponse> {
        let own = GroupStatus {
            broker_name: self.name.into(),
            flush: "sync".into(),
            ..Default::default()
        };
        Ok(Response::new(ClusterStatusResponse { error: None, groups: vec![own] }))
    }

    async fn digest(&self, _: Request<DigestRequest>) -> Answer<DigestResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn list_transactions(
        &self,
        _: Request<ListTransactionsRequest>,
    ) -> Answer<ListTransactionsResponse> {
        let transaction = Transaction { message_id: self.name.into(), ..Default::default() };
        let transactions = vec![transaction];
        Ok(Response::new(ListTransactionsResponse { error: None, transactions }))
    }

    async fn resolve_transaction(
        &self,
        _: Request<ResolveTransactionRequest>,
    ) -> Answer<ResolveTransactionResponse> {
        let message = format!("asked {}", self.name);
        let error = Some(Error { fate: Fate::Rejected.into(), message });
        Ok(Response::new(ResolveTransactionResponse { error }))
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Answer<TransferLeaderResponse> {
        Ok(Response::new(TransferLeaderResponse { error: None, leader_id: 2 }))
    }
}

/// A broker with administration, sharing the directory; its address and what it notes.
async fn broker(name: &'static str, directory: &Arc<Shared>) -> (String, Noted) {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("bound").to_string();
    let scripted = ScriptedBroker::leading(name);
    let noted = Noted { name, puts: Arc::default() };
    let tls = TlsConfig::self_signed(&["localhost".into()]).expect("a certificate");
    let config = gateway::Config::new(name, 1);
    let gateway = Gateway::start(config, scripted.clone(), Arc::clone(directory));
    let admin = AdminSwitch::new(noted.clone(), Arc::clone(directory));
    tokio::spawn(
        gateway::server::builder()
            .add_service(gateway.service())
            .add_service(SessionsServer::new(scripted))
            .add_service(AdminServer::new(admin))
            .serve_with_incoming(listener::incoming(port, tls)),
    );
    (address, noted)
}

async fn two_groups() -> (Arc<Shared>, Noted, Noted) {
    let directory = Arc::new(Shared::default());
    let (a, noted_a) = broker("broker-a", &directory).await;
    let (b, noted_b) = broker("broker-b", &directory).await;
    let groups = vec![group("broker-a", 1, Some(&a), &[&a]), group("broker-b", 1, Some(&b), &[&b])];
    publish(&directory, groups, vec![]);
    (directory, noted_a, noted_b)
}

fn put(names: &[&str]) -> PutTopicRequest {
    PutTopicRequest {
        config: Some(TopicConfig {
            topic: "orders".into(),
            queues: 4,
            permission: 4,
            accepts: vec![1],
        }),
        broker_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_topic_is_put_everywhere_under_one_version() {
    let (directory, a, b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let answer = admin.put_topic(Request::new(put(&[]))).await.expect("an answer").into_inner();
    assert_eq!(answer.error, None);
    let placed: Vec<_> =
        answer.placement.iter().map(|p| (p.broker_name.as_str(), p.queues)).collect();
    assert_eq!(placed, [("broker-a", 4), ("broker-b", 4)]);
    for noted in [a, b] {
        let puts = noted.puts.lock().expect("no holder panics");
        let [put] = &puts[..] else { panic!("each leader is asked once") };
        assert_eq!((put.version, &put.placement), (answer.version, &answer.placement));
        assert!(put.version > 0);
    }
}

#[tokio::test]
async fn a_topic_is_put_on_the_named_groups_only() {
    let (directory, a, b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let answer = admin.put_topic(Request::new(put(&["broker-b"]))).await.expect("an answer");
    assert_eq!(answer.get_ref().error, None);
    assert_eq!(a.puts.lock().expect("no holder panics").len(), 0);
    assert_eq!(b.puts.lock().expect("no holder panics").len(), 1);
    let answer = admin.put_topic(Request::new(put(&["broker-x"]))).await.expect("an answer");
    let error = answer.into_inner().error.expect("there is no broker-x");
    assert_eq!(error.fate(), Fate::Rejected);
    assert!(error.message.contains("broker-x") && error.message.contains("broker-a"));
}

#[tokio::test]
async fn lists_are_merged_and_a_topic_is_found_where_it_is() {
    let (directory, _a, _b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let groups = admin.list_groups(Request::new(ListGroupsRequest {})).await.expect("an answer");
    let names: Vec<_> = groups.get_ref().groups.iter().map(|g| g.group.as_str()).collect();
    assert_eq!(names, ["billing", "of-broker-a", "of-broker-b"]);
    let request = DescribeTopicRequest { topic: "orders".into() };
    let topic = admin.describe_topic(Request::new(request)).await.expect("an answer").into_inner();
    assert_eq!((topic.error, topic.queues.len()), (None, 1));
}

#[tokio::test]
async fn a_change_must_be_made_everywhere_or_wherever_its_object_is() {
    let (directory, _a, _b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let quota = Change::PutQuota(Quota::default());
    let cases = [
        (Change::DeleteTopic("orders".into()), None),
        (Change::DeleteGroup("audit".into()), None),
        (quota, Some("broker-b: broker-b")),
    ];
    for (change, expected) in cases {
        let request = ChangeRequest { change: Some(change) };
        let answer = admin.change(Request::new(request)).await.expect("an answer").into_inner();
        assert_eq!(answer.error.map(|error| error.message).as_deref(), expected);
    }
    let listed = admin.list_quotas(Request::new(ListQuotasRequest {})).await.expect("an answer");
    assert_eq!(listed.into_inner().quotas.len(), 1);
}

#[tokio::test]
async fn transactions_are_listed_everywhere_and_resolved_where_they_are() {
    let (directory, _a, _b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let id = |broker: &str, number| {
        TransactionId { broker: broker.parse().expect("valid"), number }.to_string()
    };
    let listed = |request| admin.list_transactions(Request::new(request));
    let all = listed(ListTransactionsRequest::default()).await.expect("an answer").into_inner();
    let names: Vec<_> = all.transactions.iter().map(|t| t.message_id.as_str()).collect();
    assert_eq!((all.error, names), (None, vec!["broker-a", "broker-b"]));
    let further = ListTransactionsRequest { after: id("broker-b", 7), ..Default::default() };
    let further = listed(further).await.expect("an answer").into_inner();
    assert_eq!(further.transactions.len(), 1);
    assert_eq!(further.transactions[0].message_id, "broker-b");

    for (transaction_id, said) in
        [(id("broker-b", 7), "asked broker-b"), (String::new(), "the transaction id is empty")]
    {
        let request = ResolveTransactionRequest { transaction_id, commit: true };
        let answer = admin.resolve_transaction(Request::new(request)).await.expect("an answer");
        assert_eq!(answer.into_inner().error.expect("refused").message, said);
    }
}

#[tokio::test]
async fn a_broker_tells_of_all_groups_and_of_its_own_by_itself() {
    let (directory, a, _b) = two_groups().await;
    let admin = AdminSwitch::new(a, Arc::clone(&directory));
    let status = admin.cluster_status(Request::new(ClusterStatusRequest {})).await;
    let groups = status.expect("an answer").into_inner().groups;
    let told: Vec<_> = groups.iter().map(|g| (g.broker_name.as_str(), g.flush.as_str())).collect();
    assert_eq!(told, [("broker-a", "sync"), ("broker-b", "")]);
}

#[tokio::test]
async fn a_group_without_a_leader_is_not_done() {
    let directory = Arc::new(Shared::default());
    publish(&directory, vec![group("broker-a", 1, None, &[])], vec![]);
    let admin = AdminFanout::new(directory);
    let mut request = Request::new(put(&[]));
    request.set_timeout(std::time::Duration::from_millis(400));
    let answer = admin.put_topic(request).await.expect("an answer").into_inner();
    assert_eq!(answer.error.expect("nobody leads").fate(), Fate::NotDone);
}
