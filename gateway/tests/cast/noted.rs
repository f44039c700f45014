//! The administration of scripted broker groups.

use std::sync::{Arc, Mutex};

use gateway::{AdminSwitch, Gateway, Shared, TlsConfig, listener};
use proto::{
    admin::{
        BrokerStatsRequest, BrokerStatsResponse, ChangeMembershipRequest, ChangeMembershipResponse,
        ChangeRequest, ChangeResponse, ClusterStatusRequest, ClusterStatusResponse,
        DescribeTopicRequest, DescribeTopicResponse, DigestRequest, DigestResponse, DrainRequest,
        DrainResponse, Error, GetConfigRequest, GetConfigResponse, GroupConfig,
        GroupProgressRequest, GroupProgressResponse, GroupStatus, InFlight, ListConnectionsRequest,
        ListConnectionsResponse, ListGroupsRequest, ListGroupsResponse, ListInFlightRequest,
        ListInFlightResponse, ListQuotasRequest, ListQuotasResponse, ListTimersRequest,
        ListTimersResponse, ListTopicsRequest, ListTopicsResponse, ListTransactionsRequest,
        ListTransactionsResponse, MakeSnapshotRequest, MakeSnapshotResponse, PutGroupRequest,
        PutGroupResponse, PutTopicRequest, PutTopicResponse, QueryMessagesRequest,
        QueryMessagesResponse, QueueInfo, Quota, RaftStatusRequest, RaftStatusResponse,
        RedriveDeadLettersRequest, RedriveDeadLettersResponse, ResetOffsetsRequest,
        ResetOffsetsResponse, ResolveTransactionRequest, ResolveTransactionResponse, TimerStretch,
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

use super::{ScriptedBroker, group, publish};

/// A broker's own administration: notes what it was asked.
#[derive(Debug, Clone)]
pub struct Noted {
    pub name: &'static str,
    /// Says which topics the group has.
    pub scripted: ScriptedBroker,
    pub notes: Arc<Mutex<Notes>>,
}

/// What a group was asked, and what it lists.
#[derive(Debug, Default)]
pub struct Notes {
    pub puts: Vec<PutTopicRequest>,
    pub group_puts: Vec<GroupConfig>,
    pub changes: Vec<Change>,
    /// Consumer groups with settings under a version.
    pub groups: Vec<GroupConfig>,
}

impl Noted {
    pub fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().expect("no holder panics")
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Noted {
    async fn put_topic(&self, request: Request<PutTopicRequest>) -> Answer<PutTopicResponse> {
        let request = request.into_inner();
        self.notes().puts.push(request.clone());
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
        Ok(Response::new(Default::default()))
    }

    async fn reset_offsets(&self, _: Request<ResetOffsetsRequest>) -> Answer<ResetOffsetsResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn query_messages(
        &self,
        _: Request<QueryMessagesRequest>,
    ) -> Answer<QueryMessagesResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn track_message(&self, _: Request<TrackMessageRequest>) -> Answer<TrackMessageResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn put_group(&self, request: Request<PutGroupRequest>) -> Answer<PutGroupResponse> {
        self.notes().group_puts.extend(request.into_inner().config);
        Ok(Response::new(Default::default()))
    }

    /// Only broker-b knows the topic and the consumer group, and only broker-a can set a quota.
    async fn change(&self, request: Request<ChangeRequest>) -> Answer<ChangeResponse> {
        let change = request.into_inner().change.expect("it is checked before");
        let quota = matches!(change, Change::PutQuota(_));
        // Who deletes again finds it gone in one group and not yet in the other.
        let again = matches!(&change, Change::DeleteTopic(name) if name == "again");
        let gone = matches!(&change, Change::DeleteTopic(name) if name == "gone");
        self.notes().changes.push(change);
        if again || gone {
            let absent = gone || self.name == "broker-a";
            return Ok(Response::new(ChangeResponse { error: None, absent }));
        }
        let error = ((self.name == "broker-a") != quota)
            .then(|| Error { fate: Fate::Rejected.into(), message: self.name.into() });
        Ok(Response::new(ChangeResponse { error, absent: false }))
    }

    async fn list_quotas(&self, _: Request<ListQuotasRequest>) -> Answer<ListQuotasResponse> {
        let shared = Quota { name: "orders".into(), ..Default::default() };
        Ok(Response::new(ListQuotasResponse { error: None, quotas: vec![shared] }))
    }

    async fn list_groups(&self, _: Request<ListGroupsRequest>) -> Answer<ListGroupsResponse> {
        let shared = GroupConfig { group: "billing".into(), ..Default::default() };
        let own = GroupConfig { group: format!("of-{}", self.name), ..Default::default() };
        let mut groups = vec![shared, own];
        groups.extend(self.notes().groups.clone());
        Ok(Response::new(ListGroupsResponse { error: None, groups }))
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

    async fn list_timers(&self, _: Request<ListTimersRequest>) -> Answer<ListTimersResponse> {
        let stretch = TimerStretch { broker_name: self.name.into(), ..Default::default() };
        Ok(Response::new(ListTimersResponse { error: None, stretches: vec![stretch] }))
    }

    async fn resolve_transaction(
        &self,
        _: Request<ResolveTransactionRequest>,
    ) -> Answer<ResolveTransactionResponse> {
        let message = format!("asked {}", self.name);
        let error = Some(Error { fate: Fate::Rejected.into(), message });
        Ok(Response::new(ResolveTransactionResponse { error }))
    }

    async fn change_membership(
        &self,
        _: Request<ChangeMembershipRequest>,
    ) -> Answer<ChangeMembershipResponse> {
        Ok(Response::new(ChangeMembershipResponse {
            survives: "much".into(),
            ..Default::default()
        }))
    }

    async fn raft_status(&self, _: Request<RaftStatusRequest>) -> Answer<RaftStatusResponse> {
        Ok(Response::new(RaftStatusResponse { leader_id: 2, ..Default::default() }))
    }

    async fn broker_stats(&self, _: Request<BrokerStatsRequest>) -> Answer<BrokerStatsResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn get_config(&self, _: Request<GetConfigRequest>) -> Answer<GetConfigResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn make_snapshot(&self, _: Request<MakeSnapshotRequest>) -> Answer<MakeSnapshotResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn list_in_flight(
        &self,
        _: Request<ListInFlightRequest>,
    ) -> Answer<ListInFlightResponse> {
        let (broker_name, topic) = (self.name.to_owned(), "orders".to_owned());
        let messages = vec![InFlight { broker_name, topic, ..Default::default() }];
        Ok(Response::new(ListInFlightResponse { messages, ..Default::default() }))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Answer<DrainResponse> {
        Ok(Response::new(DrainResponse { error: None }))
    }

    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Answer<TransferLeaderResponse> {
        Ok(Response::new(TransferLeaderResponse { error: None, leader_id: 2 }))
    }
}

/// A broker with administration, sharing the directory; its address and what it notes.
pub async fn broker(name: &'static str, directory: &Arc<Shared>) -> (String, Noted) {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("bound").to_string();
    let scripted = ScriptedBroker::leading(name);
    let noted = Noted { name, scripted: scripted.clone(), notes: Arc::default() };
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

pub async fn two_groups() -> (Arc<Shared>, Noted, Noted) {
    let directory = Arc::new(Shared::default());
    let (a, noted_a) = broker("broker-a", &directory).await;
    let (b, noted_b) = broker("broker-b", &directory).await;
    let groups = vec![group("broker-a", 1, Some(&a), &[&a]), group("broker-b", 1, Some(&b), &[&b])];
    publish(&directory, groups, vec![]);
    (directory, noted_a, noted_b)
}
