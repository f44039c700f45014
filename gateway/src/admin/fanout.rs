//! Sends administration to the leaders concerned.

use std::{fmt, time::Duration};

use proto::{
    BrokerName, TransactionId,
    admin::{
        BrokerStatsRequest, BrokerStatsResponse, ChangeMembershipRequest, ChangeMembershipResponse,
        ChangeRequest, ChangeResponse, ClusterStatusRequest, ClusterStatusResponse,
        DescribeTopicRequest, DescribeTopicResponse, DigestRequest, DigestResponse, DrainRequest,
        DrainResponse, Error, GetConfigRequest, GetConfigResponse, GroupProgressRequest,
        GroupProgressResponse, GroupStatus, ListConnectionsRequest, ListConnectionsResponse,
        ListGroupsRequest, ListGroupsResponse, ListInFlightRequest, ListInFlightResponse,
        ListQuotasRequest, ListQuotasResponse, ListTimersRequest, ListTimersResponse,
        ListTopicsRequest, ListTopicsResponse, ListTransactionsRequest, ListTransactionsResponse,
        MakeSnapshotRequest, MakeSnapshotResponse, NodeStatus, PutGroupRequest, PutGroupResponse,
        PutTopicRequest, PutTopicResponse, QueryMessagesRequest, QueryMessagesResponse,
        RaftStatusRequest, RaftStatusResponse, RedriveDeadLettersRequest,
        RedriveDeadLettersResponse, ResetOffsetsRequest, ResetOffsetsResponse,
        ResolveTransactionRequest, ResolveTransactionResponse, TrackMessageRequest,
        TrackMessageResponse, TransferLeaderRequest, TransferLeaderResponse, admin_server::Admin,
        change_request::Change, error::Fate,
    },
};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{calls, merge, merge::Answers};
use crate::{
    Caller, Directory, GroupView, HOLD, Hops, NoLocal,
    channels::Channels,
    forward::{Forwarder, Passage},
    operation::Operation,
    retry::Repeat,
    status::Refusal,
};

/// An administrator waits longer than a producer, but not for ever.
const CALL_WAIT: Duration = Duration::from_secs(10);

/// `raftmq.admin.v1.Admin` for a node that holds nothing itself.
pub struct AdminFanout<D> {
    forwarder: Forwarder<NoLocal, D>,
}

impl<D: Directory> AdminFanout<D> {
    /// Finds leaders by this directory.
    pub fn new(directory: D) -> Self {
        let channels = Channels::default();
        Self { forwarder: Forwarder { local: NoLocal, directory, channels, hops: Hops::default() } }
    }

    pub(super) async fn groups(&self, caller: &Caller) -> Result<Vec<BrokerName>, Error> {
        self.forwarder.some_groups(caller, HOLD).await.map_err(|refusal| refusal.to_admin())
    }

    pub(super) async fn call<O: Operation>(
        &self,
        caller: &Caller,
        group: &BrokerName,
        repeat: Repeat,
        request: O::Request,
    ) -> Result<O::Response, Error> {
        let metadata = MetadataMap::new();
        let passage =
            Passage { caller, metadata: &metadata, group, repeat, hold: HOLD, elsewhere: false };
        self.forwarder.call::<O>(&passage, request).await.map_err(|refusal| refusal.to_admin())
    }

    /// The same read of every group.
    pub(super) async fn ask_all<O: Operation>(
        &self,
        caller: &Caller,
        request: O::Request,
        error: impl Fn(&mut O::Response) -> Option<Error>,
    ) -> Result<Answers<O::Response>, Error> {
        let groups = self.groups(caller).await?;
        Ok(Answers::of(self.ask::<O>(caller, groups, request).await, error))
    }

    /// Makes a change; what was to be deleted is absent if no group has it.
    async fn make(&self, caller: &Caller, change: Change) -> Result<ChangeResponse, Error> {
        let change = self.versioned(caller, change).await?;
        // What only exists where it was created is only changed there; the rest is the same in all.
        let everywhere = match change {
            Change::RetireTopic(retire) => {
                self.retire(caller, retire).await?;
                return Ok(ChangeResponse::default());
            }
            Change::PutLiveSetting(setting) => {
                self.put_live_setting(caller, setting).await?;
                return Ok(ChangeResponse::default());
            }
            Change::SwitchGroup(_) | Change::PutQuota(_) => true,
            Change::DeleteTopic(_) | Change::DeleteGroup(_) | Change::PutRetention(_) => false,
        };
        let request = ChangeRequest { change: Some(change) };
        let answers = self.ask_all::<calls::Change>(caller, request, |a| a.error.take()).await?;
        let error = if everywhere { answers.error() } else { answers.error_unless_known() };
        let absent = !answers.good.is_empty() && answers.good.iter().all(|answer| answer.absent);
        error.map_or(Ok(ChangeResponse { error: None, absent }), Err)
    }

    /// Of every group, or of the one that is named by the transaction to begin after.
    async fn transactions(
        &self,
        caller: &Caller,
        request: ListTransactionsRequest,
    ) -> Result<ListTransactionsResponse, Error> {
        if !request.after.is_empty() {
            let group = transaction_group(&request.after)?;
            let repeat = Repeat::Safe;
            return self.call::<calls::ListTransactions>(caller, &group, repeat, request).await;
        }
        let answers =
            self.ask_all::<calls::ListTransactions>(caller, request, |a| a.error.take()).await?;
        Ok(ListTransactionsResponse {
            error: answers.error(),
            transactions: answers.good.into_iter().flat_map(|list| list.transactions).collect(),
        })
    }
}

impl<D: Directory> AdminFanout<D> {
    /// Looks messages up, where this node has found `own` in its own group already.
    pub(super) async fn query_beside(
        &self,
        request: Request<QueryMessagesRequest>,
        own: Option<(BrokerName, QueryMessagesResponse)>,
    ) -> QueryMessagesResponse {
        let caller = caller(&request);
        self.query(&caller, request.into_inner(), own).await.unwrap_or_else(|error| {
            QueryMessagesResponse { error: Some(error), ..Default::default() }
        })
    }
}

fn transaction_group(id: &str) -> Result<BrokerName, Error> {
    let id = id.parse::<TransactionId>();
    id.map(|id| id.broker).map_err(|error| Refusal::from(error).to_admin())
}

/// The named groups, or all when none is named.
pub(super) fn chosen(known: &[BrokerName], named: &[String]) -> Result<Vec<BrokerName>, Error> {
    if named.is_empty() {
        return Ok(known.to_vec());
    }
    named
        .iter()
        .map(|name| {
            let group = known.iter().find(|group| group.as_str() == name);
            group.cloned().ok_or_else(|| {
                let known: Vec<_> = known.iter().map(BrokerName::as_str).collect();
                rejected(format!("broker {name:?} is none of {}", known.join(", ")))
            })
        })
        .collect()
}

pub(super) fn rejected(message: String) -> Error {
    Error { fate: Fate::Rejected.into(), message }
}

/// An administrator's own deadline, if it is nearer than ours.
fn caller<T>(request: &Request<T>) -> Caller {
    let mut caller = Caller::of(request);
    caller.deadline = caller.deadline.min(std::time::Instant::now() + CALL_WAIT);
    caller
}

pub(super) fn group_status(group: &GroupView) -> GroupStatus {
    let members = group.members.iter().map(|member| NodeStatus {
        node_id: member.node_id,
        raft_address: member.raft_address.clone(),
        client_address: member.client_address.clone(),
        voter: member.voter,
    });
    GroupStatus {
        cluster: group.cluster.clone(),
        broker_name: group.broker_name.to_string(),
        group_id: group.group_id.clone(),
        term: group.term,
        leader_id: group.leader_id.unwrap_or(0),
        members: members.collect(),
        flush: String::new(),
    }
}

/// Answers an error in the field that every response has for it.
macro_rules! answer {
    ($response:ident, $answer:expr) => {
        Ok(Response::new(
            $answer.unwrap_or_else(|error| $response { error: Some(error), ..Default::default() }),
        ))
    };
}

#[tonic::async_trait]
impl<D: Directory> Admin for AdminFanout<D> {
    async fn put_topic(
        &self,
        request: Request<PutTopicRequest>,
    ) -> Result<Response<PutTopicResponse>, Status> {
        let caller = caller(&request);
        answer!(PutTopicResponse, self.put(&caller, request.into_inner()).await)
    }

    async fn list_topics(
        &self,
        request: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        let caller = caller(&request);
        let answers =
            self.ask_all::<calls::ListTopics>(&caller, request.into_inner(), |a| a.error.take());
        answer!(
            ListTopicsResponse,
            answers.await.map(|answers| ListTopicsResponse {
                error: answers.error(),
                topics: merge::topics(answers.good.into_iter().flat_map(|list| list.topics)),
            })
        )
    }

    async fn describe_topic(
        &self,
        request: Request<DescribeTopicRequest>,
    ) -> Result<Response<DescribeTopicResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let answers =
            self.ask_all::<calls::DescribeTopicQueues>(&caller, request, |a| a.error.take());
        answer!(
            DescribeTopicResponse,
            answers.await.map(|answers| {
                let error = answers.error_unless_known();
                let infos = answers.good.iter().filter_map(|answer| answer.topic.clone());
                DescribeTopicResponse {
                    error,
                    topic: merge::topics(infos).into_iter().next(),
                    queues: merge::queues(answers.good.into_iter().flat_map(|a| a.queues)),
                }
            })
        )
    }

    async fn put_group(
        &self,
        request: Request<PutGroupRequest>,
    ) -> Result<Response<PutGroupResponse>, Status> {
        let caller = caller(&request);
        let put = self.put_group_everywhere(&caller, request.into_inner()).await;
        Ok(Response::new(PutGroupResponse { error: put.err() }))
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        let caller = caller(&request);
        let answers =
            self.ask_all::<calls::ListGroups>(&caller, request.into_inner(), |a| a.error.take());
        answer!(
            ListGroupsResponse,
            answers.await.map(|answers| ListGroupsResponse {
                error: answers.error(),
                groups: merge::groups(answers.good.into_iter().flat_map(|list| list.groups)),
            })
        )
    }

    async fn group_progress(
        &self,
        request: Request<GroupProgressRequest>,
    ) -> Result<Response<GroupProgressResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let answers = self.ask_all::<calls::GroupProgress>(&caller, request, |a| a.error.take());
        answer!(
            GroupProgressResponse,
            answers.await.map(|answers| GroupProgressResponse {
                error: answers.error_unless_known(),
                queues: merge::progress(answers.good.into_iter().flat_map(|a| a.queues)),
            })
        )
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> Result<Response<RedriveDeadLettersResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        // Each dead letter is put back once, so that asking twice does no harm.
        let answers =
            self.ask_all::<calls::RedriveDeadLetters>(&caller, request, |a| a.error.take());
        answer!(
            RedriveDeadLettersResponse,
            answers.await.map(|answers| RedriveDeadLettersResponse {
                error: answers.error(),
                count: answers.good.iter().map(|answer| answer.count).sum(),
            })
        )
    }

    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<ListConnectionsResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let answers = self.ask_all::<calls::ListConnections>(&caller, request, |a| a.error.take());
        answer!(
            ListConnectionsResponse,
            answers.await.map(|answers| {
                let error = answers.error();
                let mut conflicts: Vec<_> =
                    answers.good.iter().flat_map(|answer| answer.conflicts.clone()).collect();
                conflicts.sort();
                conflicts.dedup();
                let connections = answers.good.into_iter().flat_map(|a| a.connections);
                let connections = merge::connections(connections);
                ListConnectionsResponse { error, connections, conflicts }
            })
        )
    }

    async fn cluster_status(
        &self,
        _: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        let directory = &self.forwarder.directory;
        let status = |name: BrokerName| match directory.group(&name) {
            Some(group) => group_status(&group),
            // It hosts a topic by another group's word; that is all.
            None => GroupStatus { broker_name: name.to_string(), ..GroupStatus::default() },
        };
        let groups = directory.groups().into_iter().map(status).collect();
        Ok(Response::new(ClusterStatusResponse { error: None, groups }))
    }

    async fn digest(&self, _: Request<DigestRequest>) -> Result<Response<DigestResponse>, Status> {
        Err(Status::failed_precondition("this node holds no state; ask a broker"))
    }

    async fn change(
        &self,
        request: Request<ChangeRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let caller = caller(&request);
        let changed = match request.into_inner().change {
            Some(change) => self.make(&caller, change).await,
            None => Err(rejected("the change is missing".to_owned())),
        };
        answer!(ChangeResponse, changed)
    }

    async fn list_quotas(
        &self,
        request: Request<ListQuotasRequest>,
    ) -> Result<Response<ListQuotasResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let answers = self.ask_all::<calls::ListQuotas>(&caller, request, |a| a.error.take());
        answer!(
            ListQuotasResponse,
            answers.await.map(|answers| ListQuotasResponse {
                error: answers.error(),
                quotas: merge::quotas(answers.good.into_iter().flat_map(|list| list.quotas)),
            })
        )
    }

    async fn list_transactions(
        &self,
        request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        let caller = caller(&request);
        answer!(ListTransactionsResponse, self.transactions(&caller, request.into_inner()).await)
    }

    async fn resolve_transaction(
        &self,
        request: Request<ResolveTransactionRequest>,
    ) -> Result<Response<ResolveTransactionResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let answer = async {
            let group = transaction_group(&request.transaction_id)?;
            // The same verdict twice is one verdict.
            self.call::<calls::ResolveTransaction>(&caller, &group, Repeat::Safe, request).await
        };
        Ok(Response::new(
            answer.await.unwrap_or_else(|error| ResolveTransactionResponse { error: Some(error) }),
        ))
    }

    async fn reset_offsets(
        &self,
        request: Request<ResetOffsetsRequest>,
    ) -> Result<Response<ResetOffsetsResponse>, Status> {
        let caller = caller(&request);
        answer!(ResetOffsetsResponse, self.reset(&caller, request.into_inner()).await)
    }

    async fn query_messages(
        &self,
        request: Request<QueryMessagesRequest>,
    ) -> Result<Response<QueryMessagesResponse>, Status> {
        Ok(Response::new(self.query_beside(request, None).await))
    }

    async fn list_timers(
        &self,
        request: Request<ListTimersRequest>,
    ) -> Result<Response<ListTimersResponse>, Status> {
        let caller = caller(&request);
        answer!(ListTimersResponse, self.timers(&caller, request.into_inner()).await)
    }

    async fn track_message(
        &self,
        request: Request<TrackMessageRequest>,
    ) -> Result<Response<TrackMessageResponse>, Status> {
        let caller = caller(&request);
        answer!(TrackMessageResponse, self.track(&caller, request.into_inner()).await)
    }

    async fn change_membership(
        &self,
        request: Request<ChangeMembershipRequest>,
    ) -> Result<Response<ChangeMembershipResponse>, Status> {
        let caller = caller(&request);
        let changed = self.change_members(&caller, request.into_inner()).await;
        answer!(ChangeMembershipResponse, changed)
    }

    async fn raft_status(
        &self,
        request: Request<RaftStatusRequest>,
    ) -> Result<Response<RaftStatusResponse>, Status> {
        let caller = caller(&request);
        answer!(RaftStatusResponse, self.raft_status_of(&caller, request.into_inner()).await)
    }

    async fn broker_stats(
        &self,
        _: Request<BrokerStatsRequest>,
    ) -> Result<Response<BrokerStatsResponse>, Status> {
        Err(Status::failed_precondition("this node is no broker; ask the broker itself"))
    }

    async fn get_config(
        &self,
        _: Request<GetConfigRequest>,
    ) -> Result<Response<GetConfigResponse>, Status> {
        Err(Status::failed_precondition("this node is no broker; ask the broker itself"))
    }

    async fn make_snapshot(
        &self,
        _: Request<MakeSnapshotRequest>,
    ) -> Result<Response<MakeSnapshotResponse>, Status> {
        Err(Status::failed_precondition("this node holds no state; ask the broker itself"))
    }

    async fn list_in_flight(
        &self,
        request: Request<ListInFlightRequest>,
    ) -> Result<Response<ListInFlightResponse>, Status> {
        let caller = caller(&request);
        answer!(ListInFlightResponse, self.in_flight(&caller, request.into_inner()).await)
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        Err(Status::failed_precondition("this node leads nothing; ask the broker itself"))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let answer = async {
            let groups = self.groups(&caller).await?;
            let named = [request.broker_name.clone()];
            let [group] = &chosen(&groups, &named)?[..] else {
                unreachable!("one name gives one group");
            };
            // Once only: a repetition would depose the new leader.
            let once = Repeat::NotDoneOnly;
            self.call::<calls::TransferLeader>(&caller, group, once, request.clone()).await
        };
        answer!(TransferLeaderResponse, answer.await)
    }
}

impl<D> fmt::Debug for AdminFanout<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminFanout").finish_non_exhaustive()
    }
}
