//! The requests that go to a leader: how each is performed here, and how elsewhere.

pub(crate) mod offsets;

use std::{error::Error, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use proto::{
    BrokerName, ConsumerGroup, SendMessageRequest, Topic, hop,
    limits::{GRPC_BYTES, LONG_POLL_MIN, LONG_POLL_SLACK},
    session::{
        DescribeGroupRequest, DescribeTopicRequest, GroupSettings, sessions_client::SessionsClient,
    },
    v2::{self, messaging_service_client::MessagingServiceClient},
};
use tonic::{Code, ConnectError, Request, Status, transport::Channel};

use crate::{
    Caller, Local, Miss, ReceiveStream, TopicRoute,
    answer::{Answer, Call},
    answers::Answers,
    channels::Lane,
    retry::Failure,
    status::Refusal,
};

/// One kind of request to a leader.
pub(crate) trait Operation: Send + Sync + 'static {
    type Request: Clone + Send + Sync + 'static;
    type Response: Send + 'static;
    const LANE: Lane;

    /// How long before the caller's deadline an answer must be here to be of use.
    const MARGIN: Duration = Duration::from_millis(150);

    /// What to answer instead of another attempt, when there is so little time left that the leader
    /// would take it for the client's fault.
    fn too_late(_left: Duration, _whole: Duration) -> Option<Refusal> {
        None
    }

    /// Performs it on the node at hand.
    fn local<L: Local>(
        local: &L,
        caller: &Caller,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Response, Failure>> + Send;

    /// Performs it on the node at the other end.
    fn remote(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> impl Future<Output = Result<Self::Response, Status>> + Send;
}

fn messaging(channel: Channel) -> MessagingServiceClient<Channel> {
    MessagingServiceClient::new(channel).max_decoding_message_size(GRPC_BYTES)
}

fn sessions(channel: Channel) -> SessionsClient<Channel> {
    SessionsClient::new(channel).max_decoding_message_size(GRPC_BYTES)
}

impl From<Miss> for Failure {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::NotLeader { leader } => Self::NotDone { leader },
            Miss::NotDone => Self::NotDone { leader: None },
            Miss::Unknown => Self::Unknown,
        }
    }
}

/// What a gRPC error says about the fate of the request.
pub(crate) fn classify(status: &Status) -> Failure {
    match hop::fate(status) {
        Some(hop::Fate::NotDone) => {
            return Failure::NotDone { leader: hop::leader(status).map(str::to_owned) };
        }
        Some(hop::Fate::Unknown) => return Failure::Unknown,
        None => {}
    }
    if caused_by_connect(status) {
        return Failure::NotSent;
    }
    let transport = status.source().is_some();
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => {
            Failure::Broken
        }
        _ if transport => Failure::Broken,
        Code::Unauthenticated => Failure::Unauthenticated { message: status.message().to_owned() },
        _ => Failure::Answered { message: format!("{:?}: {}", status.code(), status.message()) },
    }
}

fn caused_by_connect(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A call of the official protocol that is answered with one message, and that a leader performs
/// under the same name.
macro_rules! unary {
    ($name:ident, $rpc:ident, $request:ty, $response:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name;

        impl Operation for $name {
            type Request = $request;
            type Response = $response;
            const LANE: Lane = Lane::Unary;

            async fn local<L: Local>(
                local: &L,
                caller: &Caller,
                request: Self::Request,
            ) -> Result<Self::Response, Failure> {
                Ok(local.$rpc(caller, request).await?)
            }

            async fn remote(
                channel: Channel,
                request: Request<Self::Request>,
            ) -> Result<Self::Response, Status> {
                Ok(messaging(channel).$rpc(request).await?.into_inner())
            }
        }
    };
}
use unary;

unary!(SendMessage, send_message, SendMessageRequest, v2::SendMessageResponse);
unary!(AckMessage, ack_message, v2::AckMessageRequest, v2::AckMessageResponse);
unary!(
    ChangeInvisibleDuration,
    change_invisible_duration,
    v2::ChangeInvisibleDurationRequest,
    v2::ChangeInvisibleDurationResponse
);
unary!(RecallMessage, recall_message, v2::RecallMessageRequest, v2::RecallMessageResponse);
unary!(EndTransaction, end_transaction, v2::EndTransactionRequest, v2::EndTransactionResponse);
unary!(
    ForwardToDeadLetterQueue,
    forward_message_to_dead_letter_queue,
    v2::ForwardMessageToDeadLetterQueueRequest,
    v2::ForwardMessageToDeadLetterQueueResponse
);

/// Done when the first part of the answer is here; until then it may be asked of another node.
#[derive(Debug)]
pub(crate) struct ReceiveMessage;

/// A poll, and whom to tell what became of its answer.
#[derive(Clone)]
pub(crate) struct ReceiveRequest {
    pub(crate) message: v2::ReceiveMessageRequest,
    pub(crate) group: BrokerName,
    pub(crate) answers: Arc<Answers>,
}

impl Operation for ReceiveMessage {
    type Request = ReceiveRequest;
    type Response = ReceiveStream;
    const LANE: Lane = Lane::Streams;
    /// Leaders end an empty poll 100 ms before the deadline; that answer must get through.
    const MARGIN: Duration = Duration::from_millis(30);

    fn too_late(left: Duration, whole: Duration) -> Option<Refusal> {
        // Clients that are told not to wait leave less than a long poll takes from the beginning.
        // For them what counts is how much of it has been used up.
        let least = LONG_POLL_MIN.min(whole);
        (left + LONG_POLL_SLACK < least).then_some(Refusal::PollEnded)
    }

    async fn local<L: Local>(
        local: &L,
        caller: &Caller,
        request: Self::Request,
    ) -> Result<Self::Response, Failure> {
        let call = Call::begin(&request.answers, &request.group);
        let caller = Caller { call: Some(call.id), ..caller.clone() };
        let stream = match local.receive_message(&caller, request.message).await {
            Ok(stream) => begun(stream).await.map_err(|status| classify(&status)),
            Err(miss) => Err(miss.into()),
        };
        answered(call, stream, |failure| matches!(failure, Failure::NotDone { .. }))
    }

    async fn remote(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> Result<Self::Response, Status> {
        let (mut metadata, extensions, request) = request.into_parts();
        let call = Call::begin(&request.answers, &request.group);
        hop::name_call(&mut metadata, call.id);
        let request = Request::from_parts(metadata, extensions, request.message);
        let stream = match messaging(channel).receive_message(request).await {
            Ok(answer) => begun(Box::pin(answer.into_inner())).await,
            Err(status) => Err(status),
        };
        answered(call, stream, |status| {
            matches!(classify(status), Failure::NotDone { .. } | Failure::NotSent)
        })
    }
}

/// The answer on its way to the client, or why there is none.
fn answered<E>(
    call: Call,
    stream: Result<ReceiveStream, E>,
    is_nothing: impl FnOnce(&E) -> bool,
) -> Result<ReceiveStream, E> {
    match stream {
        Ok(stream) => Ok(Box::pin(Answer::new(call, stream))),
        Err(error) => {
            if is_nothing(&error) {
                call.came_to_nothing();
            }
            Err(error)
        }
    }
}

/// Waits for the first part and puts it back in front. An answer without parts is a broken one.
async fn begun<T: Send + 'static>(
    mut stream: Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>,
) -> Result<Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>, Status> {
    match stream.next().await {
        Some(Ok(first)) => Ok(Box::pin(futures::stream::iter([Ok(first)]).chain(stream))),
        Some(Err(status)) => Err(status),
        None => Err(Status::aborted("the answer ended before it began")),
    }
}

/// The topic as the leader has it.
#[derive(Debug)]
pub(crate) struct DescribeTopic;

#[derive(Debug, Clone)]
pub(crate) struct TopicQuestion {
    pub(crate) topic: Topic,
    pub(crate) create: bool,
}

impl Operation for DescribeTopic {
    type Request = TopicQuestion;
    type Response = Option<TopicRoute>;
    const LANE: Lane = Lane::Unary;

    async fn local<L: Local>(
        local: &L,
        _: &Caller,
        request: Self::Request,
    ) -> Result<Self::Response, Failure> {
        Ok(local.describe_topic(&request.topic, request.create).await?)
    }

    async fn remote(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> Result<Self::Response, Status> {
        let (metadata, extensions, TopicQuestion { topic, create }) = request.into_parts();
        let message = DescribeTopicRequest { topic: topic.to_string(), create };
        let request = Request::from_parts(metadata, extensions, message);
        let answer = sessions(channel).describe_topic(request).await?.into_inner();
        if !answer.exists {
            return Ok(None);
        }
        let placement = answer.placement.iter().map(|p| (p.broker_name.as_str(), p.queues));
        let (permission, version) = (answer.permission, answer.version);
        TopicRoute::checked(topic, permission, &answer.accepts, placement, version)
            .map(Some)
            .map_err(|error| Status::data_loss(error.to_string()))
    }
}

/// What the members of a consumer group must be told.
#[derive(Debug)]
pub(crate) struct DescribeGroup;

impl Operation for DescribeGroup {
    type Request = ConsumerGroup;
    type Response = GroupSettings;
    const LANE: Lane = Lane::Unary;

    async fn local<L: Local>(
        local: &L,
        _: &Caller,
        request: Self::Request,
    ) -> Result<Self::Response, Failure> {
        Ok(local.group_settings(&request).await?)
    }

    async fn remote(
        channel: Channel,
        request: Request<Self::Request>,
    ) -> Result<Self::Response, Status> {
        let (metadata, extensions, group) = request.into_parts();
        let message = DescribeGroupRequest { group: group.to_string() };
        let request = Request::from_parts(metadata, extensions, message);
        Ok(sessions(channel).describe_group(request).await?.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fate_in_the_metadata_counts() {
        let refused = crate::status::refusal(&Miss::NotLeader { leader: Some("c2".into()) });
        assert_eq!(classify(&refused), Failure::NotDone { leader: Some("c2".into()) });
        assert_eq!(classify(&crate::status::refusal(&Miss::Unknown)), Failure::Unknown);
    }

    #[test]
    fn without_a_fate_an_unavailable_node_may_have_done_it() {
        assert_eq!(classify(&Status::unavailable("going away")), Failure::Broken);
    }

    #[test]
    fn an_error_of_the_request_itself_is_an_answer() {
        let failure = classify(&Status::invalid_argument("what"));
        assert!(matches!(failure, Failure::Answered { .. }));
    }

    #[test]
    fn only_a_poll_is_too_late_before_its_deadline() {
        let little = LONG_POLL_MIN - LONG_POLL_SLACK - Duration::from_millis(1);
        let whole = 2 * LONG_POLL_MIN;
        assert_eq!(ReceiveMessage::too_late(LONG_POLL_MIN - LONG_POLL_SLACK, whole), None);
        assert_eq!(ReceiveMessage::too_late(little, whole), Some(Refusal::PollEnded));
        assert_eq!(ReceiveMessage::too_late(whole, whole), None);
        assert_eq!(SendMessage::too_late(little, whole), None);
    }

    #[test]
    fn a_poll_that_was_short_from_the_beginning_is_too_late_when_its_time_is_used_up() {
        let whole = Duration::from_secs(3);
        let at_once = whole - Duration::from_millis(1);
        assert_eq!(ReceiveMessage::too_late(at_once, whole), None);
        let used_up = whole - LONG_POLL_SLACK - Duration::from_millis(1);
        assert_eq!(ReceiveMessage::too_late(used_up, whole), Some(Refusal::PollEnded));
    }

    #[tokio::test]
    async fn the_first_part_of_an_answer_is_not_lost() {
        let part = |code| {
            Ok(v2::ReceiveMessageResponse {
                content: Some(v2::receive_message_response::Content::Status(v2::Status {
                    code,
                    message: String::new(),
                })),
            })
        };
        let parts = futures::stream::iter([part(1), part(2)]);
        let stream = begun(Box::pin(parts)).await.expect("has parts");
        assert_eq!(stream.count().await, 2);
        let nothing: ReceiveStream = Box::pin(futures::stream::empty());
        assert!(begun(nothing).await.is_err());
    }
}
