//! One client of the official protocol, without a mind of its own: no retries, no route cache.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proto::v2::messaging_service_client::MessagingServiceClient;
use proto::{admin, v2};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use crate::client::outcome::Failure;

/// How long a call may take, long polls aside: what the official clients use.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// A connection that takes longer is given up.
const CONNECT: Duration = Duration::from_secs(2);
/// Larger than any message.
const MAX_ANSWER: usize = 64 << 20;

/// A client with an id, at one access point.
#[derive(Debug, Clone)]
pub struct Rpc {
    client_id: String,
    address: SocketAddr,
    messaging: MessagingServiceClient<Channel>,
    admin: admin::admin_client::AdminClient<Channel>,
}

impl Rpc {
    /// Connects when it is first used.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::with_id(address, &format!("test@{}@{count}", std::process::id()))
    }

    /// The same client at another access point, or a client with an id of the test's choice.
    ///
    /// # Panics
    /// Never: an address makes a valid URI.
    #[must_use]
    pub fn with_id(address: SocketAddr, client_id: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("an address makes a valid URI")
            .connect_timeout(CONNECT)
            .connect_lazy();
        let messaging = MessagingServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_ANSWER)
            .max_encoding_message_size(MAX_ANSWER);
        let admin = admin::admin_client::AdminClient::new(channel);
        Self { client_id: client_id.to_owned(), address, messaging, admin }
    }

    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request with the headers that official clients send.
    fn request<T>(&self, message: T, deadline: Duration) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        headers.insert("x-mq-client-id", self.client_id.parse().expect("ids are ASCII"));
        headers.insert("x-mq-language", "RUST".parse().expect("ASCII"));
        headers.insert("x-mq-client-version", "5.0.7".parse().expect("ASCII"));
        request.set_timeout(deadline);
        request
    }

    /// The access point as the route is asked for it.
    fn endpoints(&self) -> v2::Endpoints {
        let (host, port) = (self.address.ip().to_string(), i32::from(self.address.port()));
        let scheme =
            if self.address.is_ipv4() { v2::AddressScheme::IPv4 } else { v2::AddressScheme::IPv6 };
        v2::Endpoints { scheme: scheme.into(), addresses: vec![v2::Address { host, port }] }
    }

    pub async fn query_route(&self, topic: &str) -> Result<Vec<v2::MessageQueue>, Failure> {
        let request = v2::QueryRouteRequest {
            topic: Some(resource(topic)),
            endpoints: Some(self.endpoints()),
        };
        let mut client = self.messaging.clone();
        let answer = client.query_route(self.request(request, DEADLINE)).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        ok(answer.status.as_ref())?;
        Ok(answer.message_queues)
    }

    pub async fn query_assignment(
        &self,
        topic: &str,
        group: &str,
    ) -> Result<Vec<v2::Assignment>, Failure> {
        let request = v2::QueryAssignmentRequest {
            topic: Some(resource(topic)),
            group: Some(resource(group)),
            endpoints: Some(self.endpoints()),
        };
        let mut client = self.messaging.clone();
        let answer = client.query_assignment(self.request(request, DEADLINE)).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        ok(answer.status.as_ref())?;
        Ok(answer.assignments)
    }

    /// Sends already built messages; the entries correspond to them one by one.
    pub async fn send(
        &self,
        messages: &[v2::Message],
        deadline: Duration,
    ) -> Result<Vec<v2::SendResultEntry>, Failure> {
        let request = v2::SendMessageRequest::of(messages);
        let mut client = self.messaging.clone();
        let answer = client.send_message(self.request(request, deadline)).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        ok(answer.status.as_ref())?;
        assert_eq!(answer.entries.len(), messages.len(), "one entry per message");
        for entry in &answer.entries {
            ok(entry.status.as_ref())?;
        }
        Ok(answer.entries)
    }

    /// Commits a transaction or rolls it back; `Unspecified` says that the producer does not know.
    pub async fn end_transaction(
        &self,
        topic: &str,
        transaction: &str,
        resolution: v2::TransactionResolution,
    ) -> Result<(), Failure> {
        let request = v2::EndTransactionRequest {
            topic: Some(resource(topic)),
            transaction_id: transaction.to_owned(),
            resolution: resolution.into(),
            ..Default::default()
        };
        let mut client = self.messaging.clone();
        let answer = client.end_transaction(self.request(request, DEADLINE)).await;
        ok(answer.map_err(|e| Failure::of_error(&e))?.into_inner().status.as_ref())
    }

    /// Says how a transaction ended, because the server asked.
    pub async fn answer_check(
        &self,
        topic: &str,
        message_id: &str,
        transaction: &str,
        resolution: v2::TransactionResolution,
    ) -> Result<(), Failure> {
        let request = v2::EndTransactionRequest {
            topic: Some(resource(topic)),
            message_id: message_id.to_owned(),
            transaction_id: transaction.to_owned(),
            resolution: resolution.into(),
            source: v2::TransactionSource::SourceServerCheck.into(),
            ..Default::default()
        };
        let mut client = self.messaging.clone();
        let answer = client.end_transaction(self.request(request, DEADLINE)).await;
        ok(answer.map_err(|e| Failure::of_error(&e))?.into_inner().status.as_ref())
    }

    /// Takes a delayed message back; its id.
    pub async fn recall(&self, topic: &str, handle: &str) -> Result<String, Failure> {
        let request = v2::RecallMessageRequest {
            topic: Some(resource(topic)),
            recall_handle: handle.to_owned(),
        };
        let mut client = self.messaging.clone();
        let answer = client.recall_message(self.request(request, DEADLINE)).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        ok(answer.status.as_ref())?;
        Ok(answer.message_id)
    }

    /// The stream of one receive; `poll` is how long the server may wait for a message.
    pub async fn receive(
        &self,
        mut request: v2::ReceiveMessageRequest,
        poll: Duration,
    ) -> Result<Streaming<v2::ReceiveMessageResponse>, Failure> {
        request.long_polling_timeout = Some(duration(poll));
        let mut client = self.messaging.clone();
        let answer = client.receive_message(self.request(request, poll + DEADLINE)).await;
        Ok(answer.map_err(|e| Failure::of_error(&e))?.into_inner())
    }

    pub async fn ack(
        &self,
        group: &str,
        topic: &str,
        entries: Vec<v2::AckMessageEntry>,
    ) -> Result<Vec<v2::AckMessageResultEntry>, Failure> {
        let expected = entries.len();
        let request = v2::AckMessageRequest {
            group: Some(resource(group)),
            topic: Some(resource(topic)),
            entries,
        };
        let mut client = self.messaging.clone();
        let answer = client.ack_message(self.request(request, DEADLINE)).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        if answer.entries.len() != expected {
            return Err(Failure::of_status(answer.status.as_ref()));
        }
        Ok(answer.entries)
    }

    /// The new handle.
    pub async fn change_invisible_duration(
        &self,
        group: &str,
        topic: &str,
        entry: v2::AckMessageEntry,
        invisible: Duration,
    ) -> Result<String, Failure> {
        let request = v2::ChangeInvisibleDurationRequest {
            group: Some(resource(group)),
            topic: Some(resource(topic)),
            receipt_handle: entry.receipt_handle,
            message_id: entry.message_id,
            invisible_duration: Some(duration(invisible)),
            ..Default::default()
        };
        let mut client = self.messaging.clone();
        let answer = client.change_invisible_duration(self.request(request, DEADLINE)).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        ok(answer.status.as_ref())?;
        Ok(answer.receipt_handle)
    }

    /// Forwards a message to the dead-letter queue; the code of the answer.
    pub async fn give_up(
        &self,
        group: &str,
        topic: &str,
        entry: v2::AckMessageEntry,
    ) -> Result<i32, Failure> {
        let request = v2::ForwardMessageToDeadLetterQueueRequest {
            group: Some(resource(group)),
            topic: Some(resource(topic)),
            receipt_handle: entry.receipt_handle,
            message_id: entry.message_id,
            ..Default::default()
        };
        let mut client = self.messaging.clone();
        let request = self.request(request, DEADLINE);
        let answer = client.forward_message_to_dead_letter_queue(request).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        ok(answer.status.as_ref())?;
        Ok(v2::Code::Ok.into())
    }

    /// Opens a telemetry stream with `settings` and returns the answered settings and the stream,
    /// which the caller keeps for as long as the client is to live.
    pub async fn telemetry(
        &self,
        settings: v2::Settings,
    ) -> Result<(v2::Settings, Telemetry), Failure> {
        let (up, queue) = tokio::sync::mpsc::channel(4);
        let command = v2::telemetry_command::Command::Settings(settings);
        let command = v2::TelemetryCommand { status: None, command: Some(command) };
        up.send(command).await.expect("the receiver is here");
        let queue = tokio_stream::wrappers::ReceiverStream::new(queue);
        let mut client = self.messaging.clone();
        let year = Duration::from_secs(365 * 24 * 3600);
        let answer = client.telemetry(self.request(queue, year)).await;
        let mut down = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        let first = tokio::time::timeout(DEADLINE, down.message()).await;
        let first = first.map_err(|_| unanswered())?.map_err(|e| Failure::of_error(&e))?;
        match first.and_then(|c| c.command) {
            Some(v2::telemetry_command::Command::Settings(merged)) => {
                Ok((merged, Telemetry { _up: up, down }))
            }
            other => Err(Failure::Unknown { code: 0, message: format!("{other:?} for settings") }),
        }
    }

    pub async fn heartbeat(
        &self,
        group: Option<&str>,
        kind: v2::ClientType,
    ) -> Result<(), Failure> {
        let request = v2::HeartbeatRequest { group: group.map(resource), client_type: kind.into() };
        let mut client = self.messaging.clone();
        let answer = client.heartbeat(self.request(request, DEADLINE)).await;
        ok(answer.map_err(|e| Failure::of_error(&e))?.into_inner().status.as_ref())
    }

    pub async fn notify_client_termination(&self, group: Option<&str>) -> Result<(), Failure> {
        let request = v2::NotifyClientTerminationRequest { group: group.map(resource) };
        let mut client = self.messaging.clone();
        let answer = client.notify_client_termination(self.request(request, DEADLINE)).await;
        ok(answer.map_err(|e| Failure::of_error(&e))?.into_inner().status.as_ref())
    }

    /// Up to 32 messages from an offset on, and where to go on.
    pub async fn pull(
        &self,
        group: &str,
        queue: &v2::MessageQueue,
        offset: i64,
        wait: Duration,
    ) -> Result<(Vec<v2::Message>, i64), Failure> {
        use v2::pull_message_response::Content;
        let request = v2::PullMessageRequest {
            group: Some(resource(group)),
            message_queue: Some(queue.clone()),
            offset,
            batch_size: 32,
            filter_expression: None,
            long_polling_timeout: Some(duration(wait)),
        };
        let mut client = self.messaging.clone();
        let answer = client.pull_message(self.request(request, wait + DEADLINE)).await;
        let mut parts = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        let (mut status, mut messages, mut next) = (None, Vec::new(), offset);
        while let Some(part) = parts.message().await.map_err(|e| Failure::of_error(&e))? {
            match part.content {
                Some(Content::Status(told)) => status = Some(told),
                Some(Content::Message(message)) => messages.push(message),
                Some(Content::NextOffset(told)) => next = told,
                None => {}
            }
        }
        let empty = i32::from(v2::Code::MessageNotFound);
        if status.as_ref().is_none_or(|status| status.code != empty) {
            ok(status.as_ref())?;
        }
        Ok((messages, next))
    }

    pub async fn update_offset(
        &self,
        group: &str,
        queue: &v2::MessageQueue,
        offset: i64,
    ) -> Result<(), Failure> {
        let (group, message_queue) = (Some(resource(group)), Some(queue.clone()));
        let request = v2::UpdateOffsetRequest { group, message_queue, offset };
        let mut client = self.messaging.clone();
        let answer = client.update_offset(self.request(request, DEADLINE)).await;
        ok(answer.map_err(|e| Failure::of_error(&e))?.into_inner().status.as_ref())
    }

    pub async fn get_offset(&self, group: &str, queue: &v2::MessageQueue) -> Result<i64, Failure> {
        let (group, message_queue) = (Some(resource(group)), Some(queue.clone()));
        let request = v2::GetOffsetRequest { group, message_queue };
        let mut client = self.messaging.clone();
        let answer = client.get_offset(self.request(request, DEADLINE)).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        ok(answer.status.as_ref())?;
        Ok(answer.offset)
    }

    /// The offset at one end of a queue.
    pub async fn query_offset(
        &self,
        queue: &v2::MessageQueue,
        policy: v2::QueryOffsetPolicy,
    ) -> Result<i64, Failure> {
        let request = v2::QueryOffsetRequest {
            message_queue: Some(queue.clone()),
            query_offset_policy: policy.into(),
            timestamp: None,
        };
        let mut client = self.messaging.clone();
        let answer = client.query_offset(self.request(request, DEADLINE)).await;
        let answer = answer.map_err(|e| Failure::of_error(&e))?.into_inner();
        ok(answer.status.as_ref())?;
        Ok(answer.offset)
    }

    /// The admin service at the same address.
    #[must_use]
    pub fn admin(&self) -> admin::admin_client::AdminClient<Channel> {
        self.admin.clone()
    }
}

/// An open telemetry stream.
#[derive(Debug)]
pub struct Telemetry {
    _up: tokio::sync::mpsc::Sender<v2::TelemetryCommand>,
    /// What the server sends next.
    pub down: Streaming<v2::TelemetryCommand>,
}

fn unanswered() -> Failure {
    Failure::Unknown { code: 0, message: "no answer within the deadline".into() }
}

fn ok(status: Option<&v2::Status>) -> Result<(), Failure> {
    match status {
        Some(status) if status.code == i32::from(v2::Code::Ok) => Ok(()),
        other => Err(Failure::of_status(other)),
    }
}

/// A name without a namespace.
#[must_use]
pub fn resource(name: &str) -> v2::Resource {
    v2::Resource { resource_namespace: String::new(), name: name.to_owned() }
}

/// # Panics
/// When it is longer than centuries.
#[must_use]
pub fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().expect("durations in tests are short")
}
