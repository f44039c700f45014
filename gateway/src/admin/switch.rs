//! Administration on a broker: what another node sent here is done here, everything else goes to
//! the leaders concerned.

use proto::{
    BrokerName,
    admin::{
        BrokerStatsRequest, BrokerStatsResponse, ChangeMembershipRequest, ChangeMembershipResponse,
        ChangeRequest, ChangeResponse, ClusterStatusRequest, ClusterStatusResponse,
        DescribeTopicRequest, DescribeTopicResponse, DigestRequest, DigestResponse, DrainRequest,
        DrainResponse, GetConfigRequest, GetConfigResponse, GroupProgressRequest,
        GroupProgressResponse, ListConnectionsRequest, ListConnectionsResponse, ListGroupsRequest,
        ListGroupsResponse, ListInFlightRequest, ListInFlightResponse, ListQuotasRequest,
        ListQuotasResponse, ListTimersRequest, ListTimersResponse, ListTopicsRequest,
        ListTopicsResponse, ListTransactionsRequest, ListTransactionsResponse, MakeSnapshotRequest,
        MakeSnapshotResponse, PutGroupRequest, PutGroupResponse, PutTopicRequest, PutTopicResponse,
        QueryMessagesRequest, QueryMessagesResponse, RaftStatusRequest, RaftStatusResponse,
        RedriveDeadLettersRequest, RedriveDeadLettersResponse, ResetOffsetsRequest,
        ResetOffsetsResponse, ResolveTransactionRequest, ResolveTransactionResponse,
        TrackMessageRequest, TrackMessageResponse, TransferLeaderRequest, TransferLeaderResponse,
        admin_server::Admin,
    },
    hop,
};
use tonic::{Request, Response, Status};

use super::AdminFanout;
use crate::Directory;

/// `local` for calls that were forwarded to this node, the leaders for the others.
#[derive(Debug)]
pub struct AdminSwitch<A, D> {
    local: A,
    fanout: AdminFanout<D>,
}

impl<A: Admin, D: Directory> AdminSwitch<A, D> {
    /// `local` performs calls on this node alone, and refuses by [`crate::status::refusal`] what
    /// only a leader can do.
    pub fn new(local: A, directory: D) -> Self {
        Self { local, fanout: AdminFanout::new(directory) }
    }
}

impl<A: Admin, D> AdminSwitch<A, D> {
    /// This node's group, and what the node itself finds there. `None` where the leader has to be
    /// asked.
    async fn own_answer(
        &self,
        request: &QueryMessagesRequest,
    ) -> Result<Option<(BrokerName, QueryMessagesResponse)>, Status> {
        let own = self.local.cluster_status(Request::new(ClusterStatusRequest {})).await?;
        let own = own.into_inner().groups.into_iter().find_map(|g| g.broker_name.parse().ok());
        let Some(own): Option<BrokerName> = own else { return Ok(None) };
        if !request.broker_name.is_empty() && request.broker_name != own.as_str() {
            return Ok(None);
        }
        let answer = self.local.query_messages(Request::new(request.clone())).await;
        let answer = answer.ok().map(Response::into_inner).filter(|answer| answer.error.is_none());
        Ok(answer.map(|answer| (own, answer)))
    }
}

fn is_hop<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(hop::HOP)
}

macro_rules! switch {
    ($($rpc:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl<A: Admin, D: Directory> Admin for AdminSwitch<A, D> {
            $(
                async fn $rpc(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    if is_hop(&request) {
                        self.local.$rpc(request).await
                    } else {
                        self.fanout.$rpc(request).await
                    }
                }
            )*

            /// All groups by the directory, but the own one by the node's own word.
            async fn cluster_status(
                &self,
                request: Request<ClusterStatusRequest>,
            ) -> Result<Response<ClusterStatusResponse>, Status> {
                let own = self.local.cluster_status(Request::new(ClusterStatusRequest {})).await?;
                let own = own.into_inner();
                if is_hop(&request) || own.error.is_some() {
                    return Ok(Response::new(own));
                }
                let all = self.fanout.cluster_status(request).await?.into_inner();
                let is_own = |name: &str| own.groups.iter().any(|group| group.broker_name == name);
                let others = all.groups.into_iter().filter(|group| !is_own(&group.broker_name));
                let mut groups: Vec<_> = others.chain(own.groups.iter().cloned()).collect();
                groups.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
                Ok(Response::new(ClusterStatusResponse { error: None, groups }))
            }

            /// What this node may answer of its own group is not asked of the leader.
            async fn query_messages(
                &self,
                request: Request<QueryMessagesRequest>,
            ) -> Result<Response<QueryMessagesResponse>, Status> {
                if is_hop(&request) {
                    return self.local.query_messages(request).await;
                }
                let own = self.own_answer(request.get_ref()).await?;
                Ok(Response::new(self.fanout.query_beside(request, own).await))
            }

            /// Always of this very node.
            async fn drain(
                &self,
                request: Request<DrainRequest>,
            ) -> Result<Response<DrainResponse>, Status> {
                self.local.drain(request).await
            }

            /// Always of this very node.
            async fn broker_stats(
                &self,
                request: Request<BrokerStatsRequest>,
            ) -> Result<Response<BrokerStatsResponse>, Status> {
                self.local.broker_stats(request).await
            }

            /// Always of this very node.
            async fn get_config(
                &self,
                request: Request<GetConfigRequest>,
            ) -> Result<Response<GetConfigResponse>, Status> {
                self.local.get_config(request).await
            }

            /// Always of this very node.
            async fn make_snapshot(
                &self,
                request: Request<MakeSnapshotRequest>,
            ) -> Result<Response<MakeSnapshotResponse>, Status> {
                self.local.make_snapshot(request).await
            }

            /// Always of this very node.
            async fn digest(
                &self,
                request: Request<DigestRequest>,
            ) -> Result<Response<DigestResponse>, Status> {
                self.local.digest(request).await
            }
        }
    };
}

switch! {
    put_topic(PutTopicRequest) -> PutTopicResponse;
    list_topics(ListTopicsRequest) -> ListTopicsResponse;
    describe_topic(DescribeTopicRequest) -> DescribeTopicResponse;
    put_group(PutGroupRequest) -> PutGroupResponse;
    list_groups(ListGroupsRequest) -> ListGroupsResponse;
    group_progress(GroupProgressRequest) -> GroupProgressResponse;
    redrive_dead_letters(RedriveDeadLettersRequest) -> RedriveDeadLettersResponse;
    list_connections(ListConnectionsRequest) -> ListConnectionsResponse;
    change_membership(ChangeMembershipRequest) -> ChangeMembershipResponse;
    raft_status(RaftStatusRequest) -> RaftStatusResponse;
    transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse;
    change(ChangeRequest) -> ChangeResponse;
    list_quotas(ListQuotasRequest) -> ListQuotasResponse;
    list_transactions(ListTransactionsRequest) -> ListTransactionsResponse;
    resolve_transaction(ResolveTransactionRequest) -> ResolveTransactionResponse;
    reset_offsets(ResetOffsetsRequest) -> ResetOffsetsResponse;
    list_timers(ListTimersRequest) -> ListTimersResponse;
    track_message(TrackMessageRequest) -> TrackMessageResponse;
    list_in_flight(ListInFlightRequest) -> ListInFlightResponse;
}
