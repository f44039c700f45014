//! `apache.rocketmq.v2.MessagingService`, every RPC of it: a few are answered here, the others go to
//! the leader concerned.
//!
//! A client always gets gRPC OK and a status in the payload. Only a node that forwarded gets a gRPC
//! error, so that it can tell a refusal from an answer.

use futures::{StreamExt, stream};
use proto::{
    BrokerName, SendMessageRequest, hop,
    v2::{
        self, AckMessageRequest, AckMessageResponse, ChangeInvisibleDurationRequest,
        ChangeInvisibleDurationResponse, EndTransactionRequest, EndTransactionResponse,
        ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse,
        GetOffsetRequest, GetOffsetResponse, HeartbeatRequest, HeartbeatResponse,
        NotifyClientTerminationRequest, NotifyClientTerminationResponse, PullMessageRequest,
        PullMessageResponse, QueryAssignmentRequest, QueryAssignmentResponse, QueryOffsetRequest,
        QueryOffsetResponse, QueryRouteRequest, QueryRouteResponse, RecallMessageRequest,
        RecallMessageResponse, ReceiveMessageRequest, ReceiveMessageResponse, SendMessageResponse,
        SyncLiteSubscriptionRequest, SyncLiteSubscriptionResponse, TelemetryCommand,
        UpdateOffsetRequest, UpdateOffsetResponse, messaging_service_server::MessagingService,
        pull_message_response, receive_message_response,
    },
};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use crate::{
    Caller, Directory, Gateway, Local, Miss, PullStream, ReceiveStream,
    status::{self, Refusal},
    telemetry,
};

/// A request taken apart.
struct Asked<T> {
    caller: Caller,
    metadata: MetadataMap,
    dialled: Option<crate::Dialled>,
    message: T,
}

impl<T> Asked<T> {
    fn of(request: Request<T>) -> Self {
        let caller = Caller::of(&request);
        let (metadata, extensions, message) = request.into_parts();
        Self { caller, metadata, dialled: extensions.get().cloned(), message }
    }

    /// Every client names itself, but for the calls that do not need it.
    fn identified(self) -> Result<Self, Refusal> {
        if self.caller.client_id.is_none() { Err(Refusal::ClientIdRequired) } else { Ok(self) }
    }
}

/// Answers a refusal in the payload of a response.
macro_rules! payload {
    ($response:ident { $($field:ident),* }, $answer:expr) => {
        Ok(Response::new($answer.unwrap_or_else(|refusal| $response {
            status: Some(refusal.to_payload()),
            $($field: Default::default(),)*
        })))
    };
}

/// An RPC that this version does not have.
macro_rules! not_implemented {
    ($response:ident { $($field:ident),* }, $rpc:literal) => {
        Ok(Response::new($response {
            status: Some(Refusal::NotImplemented { rpc: $rpc }.to_payload()),
            $($field: Default::default(),)*
        }))
    };
}

impl<L: Local, D: Directory> Gateway<L, D> {
    /// Whether a forwarded request is for this node's group at all.
    fn check_hop(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let asked: Option<BrokerName> =
            hop::asked(metadata).map_err(|error| hop::not_done(&error.to_string(), None))?;
        match (asked, self.local().broker_name()) {
            (Some(asked), Some(own)) if asked == *own => Ok(()),
            (Some(asked), _) => {
                Err(hop::not_done(&format!("broker group {asked} is not here"), None))
            }
            (None, _) => Ok(()),
        }
    }

    fn heard(&self, caller: &Caller) {
        if let Some(id) = caller.client_id.as_ref().filter(|_| !caller.hop) {
            self.inner.registry.heard(id);
        }
    }
}

fn refused(miss: &Miss) -> Status {
    status::refusal(miss)
}

#[tonic::async_trait]
impl<L: Local, D: Directory> MessagingService for Gateway<L, D> {
    async fn query_route(
        &self,
        request: Request<QueryRouteRequest>,
    ) -> Result<Response<QueryRouteResponse>, Status> {
        let asked = Asked::of(request);
        let answer = self.route(&asked.caller, asked.dialled.as_ref(), asked.message).await;
        payload!(QueryRouteResponse { message_queues }, answer)
    }

    async fn query_assignment(
        &self,
        request: Request<QueryAssignmentRequest>,
    ) -> Result<Response<QueryAssignmentResponse>, Status> {
        let asked = Asked::of(request);
        let answer = self.assignments(&asked.caller, asked.dialled.as_ref(), asked.message).await;
        payload!(QueryAssignmentResponse { assignments }, answer)
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let asked = Asked::of(request);
        self.heard(&asked.caller);
        // One client's recovery sends a heartbeat without any metadata and waits for an OK.
        Ok(Response::new(HeartbeatResponse { status: Some(self.heartbeat_status(&asked.message)) }))
    }

    async fn notify_client_termination(
        &self,
        request: Request<NotifyClientTerminationRequest>,
    ) -> Result<Response<NotifyClientTerminationResponse>, Status> {
        let Asked { caller, message, .. } = Asked::of(request);
        if let Some(id) = &caller.client_id {
            let group = message.group.as_ref();
            let group = proto::ConsumerGroup::from_resource(group).ok();
            self.inner.registry.terminate(id, group.as_ref().map_or("", |group| group.as_str()));
        }
        Ok(Response::new(NotifyClientTerminationResponse { status: Some(status::ok()) }))
    }

    type TelemetryStream = telemetry::Commands;

    async fn telemetry(
        &self,
        request: Request<Streaming<TelemetryCommand>>,
    ) -> Result<Response<Self::TelemetryStream>, Status> {
        let caller = Caller::of(&request);
        let commands = telemetry::open(&self.inner, caller, request.into_inner())?;
        Ok(Response::new(commands))
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().send_message(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let answer = self.send(&caller, &metadata, message).await;
        payload!(SendMessageResponse { entries }, answer)
    }

    type ReceiveMessageStream = ReceiveStream;

    async fn receive_message(
        &self,
        request: Request<ReceiveMessageRequest>,
    ) -> Result<Response<Self::ReceiveMessageStream>, Status> {
        let asked = Asked::of(request);
        if asked.caller.hop {
            self.check_hop(&asked.metadata)?;
            let answer = self.local().receive_message(&asked.caller, asked.message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        self.heard(&asked.caller);
        let asked = match asked.identified() {
            Ok(asked) => asked,
            Err(refusal) => return Ok(Response::new(only(&refusal))),
        };
        // The headers go out at once; some clients wait for them. Dropping the stream drops the
        // request wherever it is.
        let gateway = self.clone();
        let answer = stream::once(async move {
            let Asked { caller, metadata, message, .. } = asked;
            let answer = gateway.receive(&caller, &metadata, message).await;
            answer.unwrap_or_else(|refusal| only(&refusal))
        });
        Ok(Response::new(Box::pin(answer.flatten())))
    }

    async fn ack_message(
        &self,
        request: Request<AckMessageRequest>,
    ) -> Result<Response<AckMessageResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().ack_message(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let answer = self.ack(&caller, &metadata, message).await;
        payload!(AckMessageResponse { entries }, answer)
    }

    async fn change_invisible_duration(
        &self,
        request: Request<ChangeInvisibleDurationRequest>,
    ) -> Result<Response<ChangeInvisibleDurationResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().change_invisible_duration(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let handle = message.receipt_handle.clone();
        let answer = self.change_invisible(&caller, &metadata, message).await;
        // A client that replaces its handle by the one in the answer must not lose it.
        Ok(Response::new(answer.unwrap_or_else(|refusal| ChangeInvisibleDurationResponse {
            status: Some(refusal.to_payload()),
            receipt_handle: handle,
        })))
    }

    async fn end_transaction(
        &self,
        request: Request<EndTransactionRequest>,
    ) -> Result<Response<EndTransactionResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().end_transaction(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let answer = self.end(&caller, &metadata, message).await;
        payload!(EndTransactionResponse {}, answer)
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        request: Request<ForwardMessageToDeadLetterQueueRequest>,
    ) -> Result<Response<ForwardMessageToDeadLetterQueueResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().forward_message_to_dead_letter_queue(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let answer = self.give_up(&caller, &metadata, message).await;
        payload!(ForwardMessageToDeadLetterQueueResponse {}, answer)
    }

    async fn recall_message(
        &self,
        request: Request<RecallMessageRequest>,
    ) -> Result<Response<RecallMessageResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().recall_message(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let answer = self.recall(&caller, &metadata, message).await;
        payload!(RecallMessageResponse { message_id }, answer)
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<SyncLiteSubscriptionRequest>,
    ) -> Result<Response<SyncLiteSubscriptionResponse>, Status> {
        not_implemented!(SyncLiteSubscriptionResponse {}, "SyncLiteSubscription")
    }

    async fn update_offset(
        &self,
        request: Request<UpdateOffsetRequest>,
    ) -> Result<Response<UpdateOffsetResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().update_offset(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let answer = self.update_offset(&caller, &metadata, message).await;
        payload!(UpdateOffsetResponse {}, answer)
    }

    async fn get_offset(
        &self,
        request: Request<GetOffsetRequest>,
    ) -> Result<Response<GetOffsetResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().get_offset(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let answer = self.get_offset(&caller, &metadata, message).await;
        payload!(GetOffsetResponse { offset }, answer)
    }

    async fn query_offset(
        &self,
        request: Request<QueryOffsetRequest>,
    ) -> Result<Response<QueryOffsetResponse>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().query_offset(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        let answer = self.query_offset(&caller, &metadata, message).await;
        payload!(QueryOffsetResponse { offset }, answer)
    }

    type PullMessageStream = PullStream;

    async fn pull_message(
        &self,
        request: Request<PullMessageRequest>,
    ) -> Result<Response<Self::PullMessageStream>, Status> {
        let Asked { caller, metadata, message, .. } = Asked::of(request);
        if caller.hop {
            self.check_hop(&metadata)?;
            let answer = self.local().pull_message(&caller, message).await;
            return answer.map(Response::new).map_err(|miss| refused(&miss));
        }
        self.heard(&caller);
        // The headers go out at once. Dropping the stream drops the request wherever it is.
        let gateway = self.clone();
        let answer = stream::once(async move {
            let asked = message.offset;
            let answer = gateway.pull(&caller, &metadata, message).await;
            answer.unwrap_or_else(|refusal| pulled_nothing(&refusal, asked))
        });
        Ok(Response::new(Box::pin(answer.flatten())))
    }
}

/// An answer to PullMessage without messages; the client goes on where it is.
fn pulled_nothing(refusal: &Refusal, asked: i64) -> PullStream {
    use pull_message_response::Content;
    let parts = [Content::Status(refusal.to_payload()), Content::NextOffset(asked)];
    let parts = parts.map(|content| Ok(PullMessageResponse { content: Some(content) }));
    Box::pin(stream::iter(parts))
}

/// An answer to ReceiveMessage that holds nothing but a status, and the time that some clients
/// insist on.
fn only(refusal: &Refusal) -> ReceiveStream {
    use receive_message_response::Content;
    let now = proto::clock::wall_now();
    let parts = [Content::Status(refusal.to_payload()), Content::DeliveryTimestamp(now.into())];
    let parts = parts.map(|content| Ok(ReceiveMessageResponse { content: Some(content) }));
    Box::pin(stream::iter(parts))
}

impl<L: Local, D: Directory> Gateway<L, D> {
    fn heartbeat_status(&self, message: &HeartbeatRequest) -> v2::Status {
        let named = message.group.as_ref().filter(|group| !group.name.is_empty());
        match named.map(|group| proto::ConsumerGroup::from_resource(Some(group))) {
            Some(Err(error)) => Refusal::from(error).to_payload(),
            Some(Ok(_)) | None => status::ok(),
        }
    }
}
