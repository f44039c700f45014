//! A broker in memory: it keeps what is sent on one shelf and hands it out once, or loses some.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::Stream;
use prost::Message;
use proto::{
    SendMessageRequest,
    v2::{
        self,
        messaging_service_server::{MessagingService, MessagingServiceServer},
    },
};
use tokio::{net::TcpListener, sync::Notify, time};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    messages: Mutex<Messages>,
    new: Notify,
    /// Each so-manieth message is acknowledged and thrown away; 0 keeps all.
    lose_each: u64,
    /// Each so-manieth message is handed out twice.
    repeat_each: u64,
}

#[derive(Debug, Default)]
struct Messages {
    waiting: VecDeque<v2::Message>,
    taken: u64,
    acknowledged: u64,
    by_queue: [u64; 2],
}

/// A shelf that serves for as long as this lives.
pub(crate) struct Served {
    pub(crate) address: String,
    pub(crate) shelf: Shelf,
    _runtime: tokio::runtime::Runtime,
}

impl Shelf {
    pub(crate) fn serve(lose_each: u64, repeat_each: u64) -> Served {
        let shelf = Self(Arc::new(Inner { lose_each, repeat_each, ..Inner::default() }));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Server::builder()
            .add_service(MessagingServiceServer::new(shelf.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(server);
        Served { address, shelf, _runtime: runtime }
    }

    /// Messages that consumers acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.0.messages.lock().unwrap().acknowledged
    }

    /// Messages that came for each of the two queues.
    pub(crate) fn by_queue(&self) -> [u64; 2] {
        self.0.messages.lock().unwrap().by_queue
    }

    fn put(&self, message: v2::Message) {
        let queue = message.system_properties.as_ref().unwrap().queue_id;
        let mut messages = self.0.messages.lock().unwrap();
        messages.by_queue[usize::try_from(queue).unwrap()] += 1;
        messages.taken += 1;
        let is_each = |each: u64| each != 0 && messages.taken.is_multiple_of(each);
        let copies = match (is_each(self.0.lose_each), is_each(self.0.repeat_each)) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        };
        messages.waiting.extend(std::iter::repeat_n(message, copies));
        drop(messages);
        self.0.new.notify_one();
    }

    async fn take(&self, most: usize, wait: Duration) -> Vec<v2::Message> {
        let deadline = time::Instant::now() + wait;
        loop {
            {
                let waiting = &mut self.0.messages.lock().unwrap().waiting;
                if !waiting.is_empty() {
                    let count = most.min(waiting.len());
                    return waiting.drain(..count).collect();
                }
            }
            if time::timeout_at(deadline, self.0.new.notified()).await.is_err() {
                return Vec::new();
            }
        }
    }
}

fn status(code: v2::Code) -> v2::Status {
    v2::Status { code: code as i32, message: code.as_str_name().into() }
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a shelf cannot do that"))
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MessagingService for Shelf {
    async fn query_route(
        &self,
        request: Request<v2::QueryRouteRequest>,
    ) -> Answer<v2::QueryRouteResponse> {
        let queue = |id| v2::MessageQueue {
            topic: request.get_ref().topic.clone(),
            id,
            permission: v2::Permission::ReadWrite as i32,
            broker: Some(v2::Broker { name: "shelf".into(), id: 0, endpoints: None }),
            accept_message_types: vec![v2::MessageType::Normal as i32],
        };
        Ok(Response::new(v2::QueryRouteResponse {
            status: Some(status(v2::Code::Ok)),
            message_queues: vec![queue(0), queue(1)],
        }))
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Answer<v2::SendMessageResponse> {
        let mut entries = Vec::new();
        for encoded in request.into_inner().messages {
            let message = v2::Message::decode(encoded).unwrap();
            let message_id = message.system_properties.as_ref().unwrap().message_id.clone();
            self.put(message);
            entries.push(v2::SendResultEntry {
                status: Some(status(v2::Code::Ok)),
                message_id,
                ..Default::default()
            });
        }
        let status = Some(status(v2::Code::Ok));
        Ok(Response::new(v2::SendMessageResponse { status, entries }))
    }

    type ReceiveMessageStream = Answers<v2::ReceiveMessageResponse>;

    async fn receive_message(
        &self,
        request: Request<v2::ReceiveMessageRequest>,
    ) -> Answer<Self::ReceiveMessageStream> {
        use v2::receive_message_response::Content;
        let request = request.into_inner();
        let most = usize::try_from(request.batch_size).unwrap();
        let wait = proto::clock::duration(&request.long_polling_timeout.unwrap()).unwrap();
        let messages = self.take(most, wait).await;
        let code = if messages.is_empty() { v2::Code::MessageNotFound } else { v2::Code::Ok };
        let mut parts = vec![Content::Status(status(code))];
        for mut message in messages {
            message.system_properties.as_mut().unwrap().receipt_handle = Some("handle".into());
            parts.push(Content::Message(message));
        }
        let parts = parts
            .into_iter()
            .map(|content| Ok(v2::ReceiveMessageResponse { content: Some(content) }));
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }

    async fn ack_message(
        &self,
        request: Request<v2::AckMessageRequest>,
    ) -> Answer<v2::AckMessageResponse> {
        let entry = |entry: v2::AckMessageEntry| v2::AckMessageResultEntry {
            message_id: entry.message_id,
            receipt_handle: entry.receipt_handle,
            status: Some(status(v2::Code::Ok)),
        };
        let entries: Vec<_> = request.into_inner().entries.into_iter().map(entry).collect();
        self.0.messages.lock().unwrap().acknowledged += entries.len() as u64;
        let status = Some(status(v2::Code::Ok));
        Ok(Response::new(v2::AckMessageResponse { status, entries }))
    }

    async fn heartbeat(&self, _: Request<v2::HeartbeatRequest>) -> Answer<v2::HeartbeatResponse> {
        no()
    }

    async fn query_assignment(
        &self,
        _: Request<v2::QueryAssignmentRequest>,
    ) -> Answer<v2::QueryAssignmentResponse> {
        no()
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        _: Request<v2::ForwardMessageToDeadLetterQueueRequest>,
    ) -> Answer<v2::ForwardMessageToDeadLetterQueueResponse> {
        no()
    }

    type PullMessageStream = Answers<v2::PullMessageResponse>;

    async fn pull_message(
        &self,
        _: Request<v2::PullMessageRequest>,
    ) -> Answer<Self::PullMessageStream> {
        no()
    }

    async fn update_offset(
        &self,
        _: Request<v2::UpdateOffsetRequest>,
    ) -> Answer<v2::UpdateOffsetResponse> {
        no()
    }

    async fn get_offset(&self, _: Request<v2::GetOffsetRequest>) -> Answer<v2::GetOffsetResponse> {
        no()
    }

    async fn query_offset(
        &self,
        _: Request<v2::QueryOffsetRequest>,
    ) -> Answer<v2::QueryOffsetResponse> {
        no()
    }

    async fn end_transaction(
        &self,
        _: Request<v2::EndTransactionRequest>,
    ) -> Answer<v2::EndTransactionResponse> {
        no()
    }

    type TelemetryStream = Answers<v2::TelemetryCommand>;

    async fn telemetry(
        &self,
        _: Request<Streaming<v2::TelemetryCommand>>,
    ) -> Answer<Self::TelemetryStream> {
        no()
    }

    async fn notify_client_termination(
        &self,
        _: Request<v2::NotifyClientTerminationRequest>,
    ) -> Answer<v2::NotifyClientTerminationResponse> {
        no()
    }

    async fn change_invisible_duration(
        &self,
        _: Request<v2::ChangeInvisibleDurationRequest>,
    ) -> Answer<v2::ChangeInvisibleDurationResponse> {
        no()
    }

    async fn recall_message(
        &self,
        _: Request<v2::RecallMessageRequest>,
    ) -> Answer<v2::RecallMessageResponse> {
        no()
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<v2::SyncLiteSubscriptionRequest>,
    ) -> Answer<v2::SyncLiteSubscriptionResponse> {
        no()
    }
}
