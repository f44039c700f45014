//! The calls to one leader.

use proto::admin::{
    ChangeMembershipRequest, ChangeMembershipResponse, ChangeRequest, ChangeResponse,
    DescribeTopicRequest, DescribeTopicResponse, GroupProgressRequest, GroupProgressResponse,
    ListConnectionsRequest, ListConnectionsResponse, ListGroupsRequest, ListGroupsResponse,
    ListInFlightRequest, ListInFlightResponse, ListQuotasRequest, ListQuotasResponse,
    ListTimersRequest, ListTimersResponse, ListTopicsRequest, ListTopicsResponse,
    ListTransactionsRequest, ListTransactionsResponse, PutGroupRequest, PutGroupResponse,
    PutTopicRequest, PutTopicResponse, QueryMessagesRequest, QueryMessagesResponse,
    RaftStatusRequest, RaftStatusResponse, RedriveDeadLettersRequest, RedriveDeadLettersResponse,
    ResetOffsetsRequest, ResetOffsetsResponse, ResolveTransactionRequest,
    ResolveTransactionResponse, TrackMessageRequest, TrackMessageResponse, TransferLeaderRequest,
    TransferLeaderResponse, admin_client::AdminClient,
};
use proto::limits::GRPC_BYTES;
use tonic::{Request, Status, transport::Channel};

use crate::{Caller, Local, channels::Lane, operation::Operation, retry::Failure};

macro_rules! call {
    ($name:ident, $rpc:ident, $request:ident, $response:ident) => {
        #[derive(Debug)]
        pub(super) struct $name;

        impl Operation for $name {
            type Request = $request;
            type Response = $response;
            const LANE: Lane = Lane::Unary;

            /// A leader is always called over the network, also when it is this very node: it tells
            /// what it does itself from what it passes on by the mark of the hop.
            async fn local<L: Local>(
                _: &L,
                _: &Caller,
                _: Self::Request,
            ) -> Result<Self::Response, Failure> {
                Err(Failure::NotDone { leader: None })
            }

            async fn remote(
                channel: Channel,
                request: Request<Self::Request>,
            ) -> Result<Self::Response, Status> {
                let mut client = AdminClient::new(channel).max_decoding_message_size(GRPC_BYTES);
                Ok(client.$rpc(request).await?.into_inner())
            }
        }
    };
}

call!(PutTopic, put_topic, PutTopicRequest, PutTopicResponse);
call!(ListTopics, list_topics, ListTopicsRequest, ListTopicsResponse);
call!(DescribeTopicQueues, describe_topic, DescribeTopicRequest, DescribeTopicResponse);
call!(PutGroup, put_group, PutGroupRequest, PutGroupResponse);
call!(ListGroups, list_groups, ListGroupsRequest, ListGroupsResponse);
call!(GroupProgress, group_progress, GroupProgressRequest, GroupProgressResponse);
call!(
    RedriveDeadLetters,
    redrive_dead_letters,
    RedriveDeadLettersRequest,
    RedriveDeadLettersResponse
);
call!(ListConnections, list_connections, ListConnectionsRequest, ListConnectionsResponse);
call!(ListTransactions, list_transactions, ListTransactionsRequest, ListTransactionsResponse);
call!(
    ResolveTransaction,
    resolve_transaction,
    ResolveTransactionRequest,
    ResolveTransactionResponse
);
call!(Change, change, ChangeRequest, ChangeResponse);
call!(ListQuotas, list_quotas, ListQuotasRequest, ListQuotasResponse);
call!(TransferLeader, transfer_leader, TransferLeaderRequest, TransferLeaderResponse);
call!(ChangeMembership, change_membership, ChangeMembershipRequest, ChangeMembershipResponse);
call!(RaftStatus, raft_status, RaftStatusRequest, RaftStatusResponse);
call!(ResetOffsets, reset_offsets, ResetOffsetsRequest, ResetOffsetsResponse);
call!(QueryMessages, query_messages, QueryMessagesRequest, QueryMessagesResponse);
call!(ListTimers, list_timers, ListTimersRequest, ListTimersResponse);
call!(ListInFlight, list_in_flight, ListInFlightRequest, ListInFlightResponse);
call!(TrackMessage, track_message, TrackMessageRequest, TrackMessageResponse);
