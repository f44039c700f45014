//! Pulling and offsets, and who shares a topic's queues.

use std::time::Duration;

use proto::{
    ClientId, ConsumerGroup, Topic,
    session::ListMembersRequest,
    v2::{
        GetOffsetRequest, GetOffsetResponse, PullMessageRequest, QueryOffsetRequest,
        QueryOffsetResponse, UpdateOffsetRequest, UpdateOffsetResponse,
    },
};
use tonic::{Request, Status, transport::Channel};

use super::{Operation, begun, classify, messaging, sessions, unary};
use crate::{Caller, Local, PullStream, channels::Lane, retry::Failure};

/// Done when the first part of the answer is here; until then it may be asked of another node.
#[derive(Debug)]
pub(crate) struct PullMessage;

impl Operation for PullMessage {
    type Request = PullMessageRequest;
    type Response = PullStream;
    const LANE: Lane = Lane::Streams;
    /// Leaders end an empty pull 100 ms before the deadline; that answer must get through.
    const MARGIN: Duration = Duration::from_millis(30);

    async fn local<L: Local>(
        local: &L,
        caller: &Caller,
        request: Self::Request,
    ) -> Result<Self::Response, Failure> {
        let stream = local.pull_message(caller, request).await?;
        begun(stream).await.map_err(|status| classify(&status))
    }

    async fn remote(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> Result<Self::Response, Status> {
        let stream = messaging(channel).pull_message(request).await?.into_inner();
        begun(Box::pin(stream)).await
    }
}

unary!(UpdateOffset, update_offset, UpdateOffsetRequest, UpdateOffsetResponse);
unary!(GetOffset, get_offset, GetOffsetRequest, GetOffsetResponse);
unary!(QueryOffset, query_offset, QueryOffsetRequest, QueryOffsetResponse);

/// The living members of a consumer group that share a topic's queues, ascending.
#[derive(Debug)]
pub(crate) struct ListMembers;

impl Operation for ListMembers {
    type Request = (ConsumerGroup, Topic);
    type Response = Vec<ClientId>;
    const LANE: Lane = Lane::Unary;

    async fn local<L: Local>(
        local: &L,
        _: &Caller,
        (group, topic): Self::Request,
    ) -> Result<Self::Response, Failure> {
        Ok(local.group_members(&group, &topic).await?)
    }

    async fn remote(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> Result<Self::Response, Status> {
        let (metadata, extensions, (group, topic)) = request.into_parts();
        let message = ListMembersRequest { group: group.to_string(), topic: topic.to_string() };
        let request = Request::from_parts(metadata, extensions, message);
        let answer = sessions(channel).list_members(request).await?.into_inner();
        let members = answer.client_ids.iter().map(|id| id.parse::<ClientId>());
        members.collect::<Result<_, _>>().map_err(|error| Status::data_loss(error.to_string()))
    }
}
