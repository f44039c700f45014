//! Administration of this broker group, on this node alone: sending calls to the right leaders is
//! the gateway's part.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    BrokerName, ConsumerGroup, Topic, TransactionId,
    admin::{
        BrokerStatsRequest, BrokerStatsResponse, ChangeMembershipRequest, ChangeMembershipResponse,
        ChangeRequest, ChangeResponse, ClusterStatusRequest, ClusterStatusResponse, Connection,
        DescribeTopicRequest, DescribeTopicResponse, DigestRequest, DigestResponse, DrainRequest,
        DrainResponse, Error as WireError, ExponentialBackoff, GetConfigRequest, GetConfigResponse,
        GroupConfig, GroupProgressRequest, GroupProgressResponse, GroupStatus,
        ListConnectionsRequest, ListConnectionsResponse, ListGroupsRequest, ListGroupsResponse,
        ListInFlightRequest, ListInFlightResponse, ListQuotasRequest, ListQuotasResponse,
        ListTimersRequest, ListTimersResponse, ListTopicsRequest, ListTopicsResponse,
        ListTransactionsRequest, ListTransactionsResponse, MakeSnapshotRequest,
        MakeSnapshotResponse, NodeStatus, Placement, PutGroupRequest, PutGroupResponse,
        PutTopicRequest, PutTopicResponse, QueryMessagesRequest, QueryMessagesResponse, QueueInfo,
        RaftStatusRequest, RaftStatusResponse, RedriveDeadLettersRequest,
        RedriveDeadLettersResponse, ResetOffsetsRequest, ResetOffsetsResponse,
        ResolveTransactionRequest, ResolveTransactionResponse, TopicConfig, TopicInfo,
        TrackMessageRequest, TrackMessageResponse, Transaction, TransferLeaderRequest,
        TransferLeaderResponse, admin_server::Admin, error::Fate as WireFate,
    },
    v2::{Code, MessageType, Permission},
};
use raft::NodeId;
use tonic::{Request, Response, Status};

use super::{admin_node, administration, local::miss, membership, status};
use crate::{
    Error, Fate,
    command::{self, SettingKind, SettingOf},
    metrics::Rpc,
    ops::{Broker, GroupSpec, ListedTransaction, TopicSpec},
    sessions::Client,
};

/// An administrator waits longer than a producer, but not for ever.
const CALL_WAIT: Duration = Duration::from_secs(10);

/// This node's administration.
#[derive(Debug, Clone)]
pub struct LocalAdmin {
    broker: Arc<Broker>,
    cluster: String,
    /// How writes are flushed, for the record.
    flush: &'static str,
}

impl LocalAdmin {
    /// Administers `broker`, a member of `cluster`.
    pub fn new(broker: Arc<Broker>, cluster: String, flush: &'static str) -> Self {
        LocalAdmin { broker, cluster, flush }
    }

    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// How much of a topic is kept, and the version of that.
    fn retention(&self, topic: &Topic) -> (command::Retention, u64) {
        let version = self.version(SettingKind::Retention, topic.as_str());
        (self.broker.view().retention(topic), version)
    }

    fn version(&self, kind: SettingKind, name: &str) -> u64 {
        self.broker.view().setting_version(&SettingOf { kind, name: name.to_owned() })
    }

    /// This node has led until a moment ago.
    fn elsewhere(&self) -> Status {
        match self.leading() {
            Err(status) => status,
            Ok(()) => gateway::status::refusal(&miss(&Error::NotLeader { leader: None })),
        }
    }

    /// Only the leader can answer: others say so to the node that asked.
    fn leading(&self) -> Result<(), Status> {
        self.broker.leading().map_err(|error| gateway::status::refusal(&miss(&error)))
    }
}

/// What the caller is told of a failure. `Err` for what another node may do better.
fn told(error: &Error) -> Result<WireError, Status> {
    if let Err(missed) = status::answer(error) {
        return Err(gateway::status::refusal(&missed));
    }
    let fate = match error.fate() {
        Fate::Rejected => WireFate::Rejected,
        Fate::NotDone => WireFate::NotDone,
        Fate::Unknown => WireFate::Unknown,
    };
    Ok(WireError { fate: fate.into(), message: error.to_string() })
}

pub(super) fn deadline() -> Instant {
    Instant::now() + CALL_WAIT
}

fn placement_of(wire: &[Placement]) -> Result<Vec<(BrokerName, u32)>, Error> {
    wire.iter().map(|part| Ok((part.broker_name.parse()?, part.queues))).collect()
}

fn placement_to(placement: &[(BrokerName, u32)]) -> Vec<Placement> {
    let part = |(name, queues): &(BrokerName, u32)| Placement {
        broker_name: name.to_string(),
        queues: *queues,
    };
    placement.iter().map(part).collect()
}

fn spec_of(request: PutTopicRequest) -> Result<TopicSpec, Error> {
    let config = request.config.unwrap_or_default();
    let bad = |field, why| Error::BadSetting { field, why };
    let kind = |kind: &i32| {
        MessageType::try_from(*kind).map_err(|_| bad("accepts", "holds an unknown message type"))
    };
    Ok(TopicSpec {
        topic: config.topic.parse()?,
        queues: config.queues,
        permission: Permission::try_from(config.permission)
            .map_err(|_| bad("permission", "is unknown"))?,
        accepts: config.accepts.iter().map(kind).collect::<Result<_, _>>()?,
        create_only: request.create_only,
        version: request.version,
        placement: placement_of(&request.placement)?,
    })
}

fn topic_info(
    topic: &Topic,
    config: &command::TopicConfig,
    (retention, retention_version): (command::Retention, u64),
) -> TopicInfo {
    TopicInfo {
        config: Some(TopicConfig {
            topic: topic.to_string(),
            queues: config.queues,
            permission: config.permission.into(),
            accepts: config.accepts.iter().map(|kind| (*kind).into()).collect(),
        }),
        placement: placement_to(&config.placement),
        version: config.version,
        retention_ms: retention.ms,
        retention_bytes: retention.bytes,
        retention_version,
    }
}

fn connection(id: &proto::ClientId, client: &Client, now: Instant) -> Connection {
    let topics = client.topics.iter().map(|(topic, filter)| {
        (topic.to_string(), filter.as_ref().map(ToString::to_string).unwrap_or_default())
    });
    let silent = now.saturating_duration_since(client.last_seen);
    Connection {
        client_id: id.to_string(),
        client_type: client.kind.into(),
        language: client.language.clone(),
        version: client.version.clone(),
        address: client.address.clone(),
        group: client.group.as_ref().map(ToString::to_string).unwrap_or_default(),
        topics: topics.collect(),
        last_seen_ms_ago: proto::clock::millis(silent),
    }
}

fn transaction_to(listed: ListedTransaction) -> Transaction {
    let ListedTransaction { id, transaction, message } = listed;
    let system = message.and_then(|message| message.system_properties);
    Transaction {
        transaction_id: id.to_string(),
        topic: transaction.topic.to_string(),
        message_id: system.map(|system| system.message_id).unwrap_or_default(),
        client_id: transaction.client.to_string(),
        born_ms: transaction.born.0,
        checks: transaction.checks,
        next_check_ms: if transaction.parked { 0 } else { transaction.next_check.0 },
        parked: transaction.parked,
        message_bytes: transaction.len.into(),
    }
}

#[tonic::async_trait]
impl Admin for LocalAdmin {
    async fn put_topic(
        &self,
        request: Request<PutTopicRequest>,
    ) -> Result<Response<PutTopicResponse>, Status> {
        self.leading()?;
        let outcome = async {
            let spec = spec_of(request.into_inner())?;
            self.broker.put_topic(spec, deadline()).await
        };
        Ok(Response::new(match outcome.await {
            Ok(config) => PutTopicResponse {
                error: None,
                version: config.version,
                placement: placement_to(&config.placement),
            },
            Err(error) => PutTopicResponse { error: Some(told(&error)?), ..Default::default() },
        }))
    }

    async fn list_topics(
        &self,
        _: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        self.leading()?;
        Ok(Response::new(match self.broker.list_topics(deadline()).await {
            Ok(topics) => ListTopicsResponse {
                error: None,
                topics: topics
                    .iter()
                    .map(|(topic, config)| topic_info(topic, config, self.retention(topic)))
                    .collect(),
            },
            Err(error) => ListTopicsResponse { error: Some(told(&error)?), ..Default::default() },
        }))
    }

    async fn describe_topic(
        &self,
        request: Request<DescribeTopicRequest>,
    ) -> Result<Response<DescribeTopicResponse>, Status> {
        self.leading()?;
        let outcome = async {
            let topic: Topic = request.into_inner().topic.parse()?;
            let (config, queues) = self.broker.describe_topic(&topic, deadline()).await?;
            let queue = |range: crate::ops::QueueRange| QueueInfo {
                broker_name: self.broker.name().to_string(),
                queue_id: range.queue.0,
                min_offset: range.min.0,
                max_offset: range.max.0,
            };
            Ok(DescribeTopicResponse {
                error: None,
                topic: Some(topic_info(&topic, &config, self.retention(&topic))),
                queues: queues.into_iter().map(queue).collect(),
            })
        };
        Ok(Response::new(match outcome.await {
            Ok(response) => response,
            Err(error) => {
                DescribeTopicResponse { error: Some(told(&error)?), ..Default::default() }
            }
        }))
    }

    async fn put_group(
        &self,
        request: Request<PutGroupRequest>,
    ) -> Result<Response<PutGroupResponse>, Status> {
        self.leading()?;
        let outcome = async {
            let config = request.into_inner().config.unwrap_or_default();
            let spec = GroupSpec {
                group: config.group.parse()?,
                fifo: config.fifo,
                max_attempts: config.max_attempts,
                backoff: backoff(config.backoff_ms, config.exponential_backoff),
                version: config.version,
            };
            self.broker.put_group(spec, deadline()).await
        };
        let error = match outcome.await {
            Ok(()) => None,
            Err(error) => Some(told(&error)?),
        };
        Ok(Response::new(PutGroupResponse { error }))
    }

    async fn list_groups(
        &self,
        _: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        self.leading()?;
        let group = |(group, config): (ConsumerGroup, command::GroupConfig)| {
            let (backoff_ms, exponential_backoff) = match config.backoff {
                command::Backoff::Customized { steps_ms } => (steps_ms, None),
                command::Backoff::Exponential { initial_ms, max_ms, multiplier } => {
                    (vec![], Some(ExponentialBackoff { initial_ms, max_ms, multiplier }))
                }
            };
            GroupConfig {
                disabled: !self.broker.view().is_enabled(&group),
                version: self.version(SettingKind::Group, group.as_str()),
                switch_version: self.version(SettingKind::Switch, group.as_str()),
                group: group.to_string(),
                fifo: config.fifo,
                max_attempts: config.max_attempts,
                backoff_ms,
                exponential_backoff,
            }
        };
        Ok(Response::new(match self.broker.list_groups(deadline()).await {
            Ok(groups) => {
                ListGroupsResponse { error: None, groups: groups.into_iter().map(group).collect() }
            }
            Err(error) => ListGroupsResponse { error: Some(told(&error)?), ..Default::default() },
        }))
    }

    async fn group_progress(
        &self,
        request: Request<GroupProgressRequest>,
    ) -> Result<Response<GroupProgressResponse>, Status> {
        self.leading()?;
        let outcome = async {
            let GroupProgressRequest { group, topic } = request.into_inner();
            let group: ConsumerGroup = group.parse()?;
            let topic = (!topic.is_empty()).then(|| topic.parse::<Topic>()).transpose()?;
            self.broker.backlog(&group, topic.as_ref(), deadline()).await
        };
        let name = self.broker.name();
        let queue = |(topic, backlog): (Topic, crate::state::Backlog)| {
            super::admin_queries::progress(name, &topic, &backlog)
        };
        Ok(Response::new(match outcome.await {
            Ok(queues) => GroupProgressResponse {
                error: None,
                queues: queues.into_iter().map(queue).collect(),
            },
            Err(error) => {
                GroupProgressResponse { error: Some(told(&error)?), ..Default::default() }
            }
        }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> Result<Response<RedriveDeadLettersResponse>, Status> {
        self.leading()?;
        let outcome = async {
            let RedriveDeadLettersRequest { group, max } = request.into_inner();
            self.broker.redrive(&group.parse()?, max, deadline()).await
        };
        Ok(Response::new(match outcome.await {
            Ok(count) => RedriveDeadLettersResponse { error: None, count },
            Err(error) => {
                RedriveDeadLettersResponse { error: Some(told(&error)?), ..Default::default() }
            }
        }))
    }

    async fn change(
        &self,
        request: Request<ChangeRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        self.leading()?;
        let changed = administration::change(&self.broker, request.into_inner(), deadline());
        Ok(Response::new(match changed.await {
            Ok(changed) => ChangeResponse { error: None, absent: !changed },
            Err(error) => ChangeResponse { error: Some(told(&error)?), absent: false },
        }))
    }

    async fn list_quotas(
        &self,
        _: Request<ListQuotasRequest>,
    ) -> Result<Response<ListQuotasResponse>, Status> {
        let versioned = |(of, quota)| {
            let version = self.broker.view().setting_version(&SettingOf::quota(&of));
            administration::quota((of, quota), version)
        };
        Ok(Response::new(match self.broker.list_quotas(deadline()).await {
            Ok(quotas) => ListQuotasResponse {
                error: None,
                quotas: quotas.into_iter().map(versioned).collect(),
            },
            Err(error) => ListQuotasResponse { error: Some(told(&error)?), quotas: vec![] },
        }))
    }

    async fn list_connections(
        &self,
        _: Request<ListConnectionsRequest>,
    ) -> Result<Response<ListConnectionsResponse>, Status> {
        self.leading()?;
        let now = Instant::now();
        let clients = self.broker.clients();
        let mut connections: Vec<Connection> =
            clients.iter().map(|(id, client)| connection(id, client, now)).collect();
        connections.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        let conflicts = clients.conflicts().iter().map(ToString::to_string).collect();
        Ok(Response::new(ListConnectionsResponse { error: None, connections, conflicts }))
    }

    async fn list_transactions(
        &self,
        request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        self.leading()?;
        let outcome = async {
            let ListTransactionsRequest { topic, parked_only, after } = request.into_inner();
            let topic = (!topic.is_empty()).then(|| topic.parse::<Topic>()).transpose()?;
            let after = match after.as_str() {
                "" => 0,
                id => id.parse::<TransactionId>()?.number,
            };
            self.broker.list_transactions(topic.as_ref(), parked_only, after, deadline()).await
        };
        Ok(Response::new(match outcome.await {
            Ok(found) => ListTransactionsResponse {
                error: None,
                transactions: found.into_iter().map(transaction_to).collect(),
            },
            Err(error) => {
                ListTransactionsResponse { error: Some(told(&error)?), ..Default::default() }
            }
        }))
    }

    async fn resolve_transaction(
        &self,
        request: Request<ResolveTransactionRequest>,
    ) -> Result<Response<ResolveTransactionResponse>, Status> {
        self.leading()?;
        let ResolveTransactionRequest { transaction_id, commit } = request.into_inner();
        let verdict = if commit { command::Verdict::Commit } else { command::Verdict::Rollback };
        let outcome = self.broker.resolve_transaction(&transaction_id, verdict, deadline()).await;
        let error = match outcome {
            Ok(()) => None,
            Err(error) => Some(told(&error)?),
        };
        Ok(Response::new(ResolveTransactionResponse { error }))
    }

    async fn cluster_status(
        &self,
        _: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        let status = self.broker.group.status();
        let member = |member: &raft::Member| NodeStatus {
            node_id: member.node_id.0,
            raft_address: member.raft_addr.clone(),
            client_address: member.client_addr.clone(),
            voter: member.voter,
        };
        let group = GroupStatus {
            cluster: self.cluster.clone(),
            broker_name: self.broker.name().to_string(),
            group_id: status.group_id.map(|id| id.to_string()).unwrap_or_default(),
            term: status.term.0,
            leader_id: status.leader.map_or(0, |node| node.0),
            members: status.members.iter().map(member).collect(),
            flush: self.flush.to_owned(),
        };
        Ok(Response::new(ClusterStatusResponse { error: None, groups: vec![group] }))
    }

    async fn digest(&self, _: Request<DigestRequest>) -> Result<Response<DigestResponse>, Status> {
        let (applied_index, digest) = self.broker.view().digest();
        Ok(Response::new(DigestResponse {
            broker_name: self.broker.name().to_string(),
            node_id: self.broker.group.status().node_id.0,
            applied_index,
            digest,
        }))
    }

    async fn reset_offsets(
        &self,
        request: Request<ResetOffsetsRequest>,
    ) -> Result<Response<ResetOffsetsResponse>, Status> {
        self.leading()?;
        Ok(Response::new(match self.reset(request.into_inner()).await {
            Ok(response) => response,
            Err(error) => ResetOffsetsResponse { error: Some(told(&error)?), ..Default::default() },
        }))
    }

    async fn query_messages(
        &self,
        request: Request<QueryMessagesRequest>,
    ) -> Result<Response<QueryMessagesResponse>, Status> {
        let start = Instant::now();
        let (answer, code) = match self.query(request.into_inner()).await {
            Ok(response) => (response, Code::Ok),
            Err(error) => {
                let error = Some(told(&error)?);
                (QueryMessagesResponse { error, ..Default::default() }, Code::BadRequest)
            }
        };
        self.broker.metrics.answered(Rpc::Query, code.into(), start.elapsed());
        Ok(Response::new(answer))
    }

    async fn list_timers(
        &self,
        request: Request<ListTimersRequest>,
    ) -> Result<Response<ListTimersResponse>, Status> {
        self.leading()?;
        Ok(Response::new(match self.timers(request.into_inner()).await {
            Ok(response) => response,
            Err(error) => ListTimersResponse { error: Some(told(&error)?), ..Default::default() },
        }))
    }

    async fn track_message(
        &self,
        request: Request<TrackMessageRequest>,
    ) -> Result<Response<TrackMessageResponse>, Status> {
        self.leading()?;
        Ok(Response::new(match self.track(request.into_inner()).await {
            Ok(response) => response,
            Err(error) => TrackMessageResponse { error: Some(told(&error)?), ..Default::default() },
        }))
    }

    async fn change_membership(
        &self,
        request: Request<ChangeMembershipRequest>,
    ) -> Result<Response<ChangeMembershipResponse>, Status> {
        self.leading()?;
        match membership::change(&self.broker, request.into_inner()).await {
            Ok(response) => Ok(Response::new(response)),
            Err(membership::NotLeading) => Err(self.elsewhere()),
        }
    }

    async fn raft_status(
        &self,
        _: Request<RaftStatusRequest>,
    ) -> Result<Response<RaftStatusResponse>, Status> {
        self.leading()?;
        membership::status(&self.broker).map(Response::new).ok_or_else(|| self.elsewhere())
    }

    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        Ok(Response::new(membership::drain(&self.broker, request.into_inner()).await))
    }

    async fn broker_stats(
        &self,
        _: Request<BrokerStatsRequest>,
    ) -> Result<Response<BrokerStatsResponse>, Status> {
        Ok(Response::new(admin_node::stats(&self.broker)))
    }

    async fn get_config(
        &self,
        _: Request<GetConfigRequest>,
    ) -> Result<Response<GetConfigResponse>, Status> {
        Ok(Response::new(admin_node::config(&self.broker)))
    }

    async fn make_snapshot(
        &self,
        request: Request<MakeSnapshotRequest>,
    ) -> Result<Response<MakeSnapshotResponse>, Status> {
        Ok(Response::new(admin_node::make_snapshot(&self.broker, request.into_inner()).await))
    }

    async fn list_in_flight(
        &self,
        request: Request<ListInFlightRequest>,
    ) -> Result<Response<ListInFlightResponse>, Status> {
        self.leading()?;
        Ok(Response::new(match self.in_flight(request.into_inner()).await {
            Ok(response) => response,
            Err(error) => ListInFlightResponse { error: Some(told(&error)?), ..Default::default() },
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        self.leading()?;
        let wanted = request.into_inner().node_id;
        let to = (wanted > 0).then_some(NodeId(wanted));
        Ok(Response::new(match self.broker.group.transfer_leader(to).await {
            Ok(leader) => TransferLeaderResponse { error: None, leader_id: leader.0 },
            Err(error) => {
                let fate = WireFate::NotDone.into();
                let error = Some(WireError { fate, message: error.to_string() });
                TransferLeaderResponse { error, leader_id: 0 }
            }
        }))
    }
}

/// The policy that a request names, if it names one.
fn backoff(
    steps_ms: Vec<u64>,
    exponential: Option<ExponentialBackoff>,
) -> Option<command::Backoff> {
    match exponential {
        Some(ExponentialBackoff { initial_ms, max_ms, multiplier }) => {
            Some(command::Backoff::Exponential { initial_ms, max_ms, multiplier })
        }
        None if steps_ms.is_empty() => None,
        None => Some(command::Backoff::Customized { steps_ms }),
    }
}
