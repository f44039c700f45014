//! The calls of an official client, with their shortest spelling.

use std::{net::SocketAddr, time::Duration};

use futures::StreamExt;
use prost::Message as _;
use proto::{
    SendMessageRequest,
    admin::admin_client::AdminClient,
    clock::to_wire,
    v2::{
        AckMessageEntry, AckMessageRequest, AckMessageResponse, ChangeInvisibleDurationRequest,
        ChangeInvisibleDurationResponse, ClientType, FilterExpression, FilterType, Message,
        MessageQueue, MessageType, QueryRouteRequest, ReceiveMessageRequest, Resource,
        SendMessageResponse, Settings, Status, Subscription, SubscriptionEntry, SystemProperties,
        TelemetryCommand, messaging_service_client::MessagingServiceClient,
        receive_message_response::Content, settings::PubSub, telemetry_command::Command,
    },
};
use tonic::{
    Request, Streaming,
    transport::{Channel, Endpoint},
};

pub(crate) const OK: i32 = 20000;
pub(crate) const MESSAGE_NOT_FOUND: i32 = 40401;

/// What a producer or consumer of the application would be.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) rpc: MessagingServiceClient<Channel>,
    pub(crate) channel: Channel,
    pub(crate) id: String,
}

/// Everything that one ReceiveMessage answered.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) status: Status,
    pub(crate) messages: Vec<Message>,
    pub(crate) has_delivery_time: bool,
}

impl Received {
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.messages.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect()
    }
}

pub(crate) fn resource(name: &str) -> Resource {
    Resource { name: name.into(), ..Default::default() }
}

pub(crate) fn message(topic: &str, id: &str, body: &str) -> Message {
    Message {
        topic: Some(resource(topic)),
        system_properties: Some(SystemProperties {
            message_id: id.into(),
            message_type: MessageType::Normal.into(),
            born_timestamp: Some(proto::clock::wall_now().into()),
            born_host: "test".into(),
            ..Default::default()
        }),
        body: body.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn tagged(topic: &str, id: &str, tag: &str) -> Message {
    let mut message = message(topic, id, id);
    message.system_properties.as_mut().unwrap().tag = Some(tag.into());
    message
}

pub(crate) fn handle(message: &Message) -> String {
    message.system_properties.as_ref().unwrap().receipt_handle.clone().unwrap()
}

pub(crate) fn poll(group: &str, topic: &str) -> ReceiveMessageRequest {
    ReceiveMessageRequest {
        group: Some(resource(group)),
        message_queue: Some(MessageQueue {
            topic: Some(resource(topic)),
            id: -1,
            broker: Some(proto::v2::Broker { name: "broker-a".into(), ..Default::default() }),
            ..Default::default()
        }),
        filter_expression: Some(FilterExpression {
            r#type: FilterType::Tag.into(),
            expression: "*".into(),
        }),
        batch_size: 32,
        invisible_duration: Some(to_wire(Duration::from_secs(10))),
        auto_renew: false,
        long_polling_timeout: Some(to_wire(Duration::from_secs(5))),
        attempt_id: None,
    }
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, id: &str) -> Client {
        Self::over(Endpoint::from_shared(format!("http://{addr}")).unwrap(), id).await
    }

    /// The same with so many bytes on their way at most.
    pub(crate) async fn connect_with_window(addr: SocketAddr, id: &str, bytes: u32) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
        Self::over(endpoint.initial_stream_window_size(bytes), id).await
    }

    async fn over(endpoint: Endpoint, id: &str) -> Client {
        let channel = endpoint.connect().await.unwrap();
        let rpc = MessagingServiceClient::new(channel.clone())
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20);
        Client { rpc, channel, id: id.into() }
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-mq-client-id", self.id.parse().unwrap());
        request.set_timeout(Duration::from_secs(15));
        request
    }

    /// Every official client asks for the route before it uses a topic; that creates it.
    async fn ask_route(&self, topic: Option<Resource>) {
        let request = QueryRouteRequest { topic, endpoints: None };
        self.rpc.clone().query_route(self.request(request)).await.unwrap();
    }

    pub(crate) async fn send(&self, messages: &[Message]) -> SendMessageResponse {
        self.ask_route(messages.first().and_then(|message| message.topic.clone())).await;
        let messages = messages.iter().map(|m| m.encode_to_vec().into()).collect();
        let request = self.request(SendMessageRequest { messages });
        self.rpc.clone().send_message(request).await.unwrap().into_inner()
    }

    /// Sends what must be taken in.
    pub(crate) async fn sent(&self, messages: &[Message]) -> SendMessageResponse {
        let response = self.send(messages).await;
        assert_eq!(response.status.as_ref().unwrap().code, OK, "{response:?}");
        response
    }

    /// Introduces itself as a consumer of one topic; what it is told.
    pub(crate) async fn announce(
        &self,
        group: &str,
        topic: &Resource,
        filter: FilterExpression,
    ) -> Result<TelemetryCommand, tonic::Status> {
        let entry = SubscriptionEntry { topic: Some(topic.clone()), expression: Some(filter) };
        let subscription = Subscription {
            group: Some(resource(group)),
            subscriptions: vec![entry],
            ..Default::default()
        };
        let settings = Settings {
            client_type: Some(ClientType::SimpleConsumer.into()),
            pub_sub: Some(PubSub::Subscription(subscription)),
            ..Default::default()
        };
        let command = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
        let commands = futures::stream::iter([command]).chain(futures::stream::pending());
        let mut answers = self.rpc.clone().telemetry(self.request(commands)).await?.into_inner();
        Ok(answers.message().await?.expect("an answer before the end"))
    }

    pub(crate) async fn begin(&self, poll: ReceiveMessageRequest) -> Streaming<ReceiveItem> {
        self.ask_route(poll.message_queue.as_ref().unwrap().topic.clone()).await;
        self.rpc.clone().receive_message(self.request(poll)).await.unwrap().into_inner()
    }

    pub(crate) async fn receive(&self, poll: ReceiveMessageRequest) -> Received {
        finish(self.begin(poll).await).await
    }

    /// Receives until there are so many messages, in the order of arrival.
    pub(crate) async fn receive_all(&self, group: &str, topic: &str, count: usize) -> Vec<Message> {
        let mut all = Vec::new();
        while all.len() < count {
            let received = self.receive(poll(group, topic)).await;
            assert_eq!(received.status.code, OK, "after {} of {count} messages", all.len());
            all.extend(received.messages);
        }
        assert_eq!(all.len(), count);
        all
    }

    pub(crate) async fn ack(
        &self,
        group: &str,
        topic: &str,
        messages: &[Message],
    ) -> AckMessageResponse {
        let entry = |m: &Message| AckMessageEntry {
            message_id: m.system_properties.as_ref().unwrap().message_id.clone(),
            receipt_handle: handle(m),
            ..Default::default()
        };
        self.ack_entries(group, topic, messages.iter().map(entry).collect()).await
    }

    pub(crate) async fn ack_entries(
        &self,
        group: &str,
        topic: &str,
        entries: Vec<AckMessageEntry>,
    ) -> AckMessageResponse {
        let (group, topic) = (Some(resource(group)), Some(resource(topic)));
        let request = self.request(AckMessageRequest { group, topic, entries });
        self.rpc.clone().ack_message(request).await.unwrap().into_inner()
    }

    pub(crate) async fn change_invisible(
        &self,
        group: &str,
        message: &Message,
        invisible: Duration,
    ) -> ChangeInvisibleDurationResponse {
        let request = self.request(ChangeInvisibleDurationRequest {
            group: Some(resource(group)),
            topic: message.topic.clone(),
            receipt_handle: handle(message),
            invisible_duration: Some(to_wire(invisible)),
            ..Default::default()
        });
        self.rpc.clone().change_invisible_duration(request).await.unwrap().into_inner()
    }
}

pub(crate) type ReceiveItem = proto::v2::ReceiveMessageResponse;

/// Reads an answer to its end: status, messages, time of delivery, in this order.
pub(crate) async fn finish(mut stream: Streaming<ReceiveItem>) -> Received {
    let mut status = None;
    let mut messages = Vec::new();
    let mut has_delivery_time = false;
    while let Some(item) = stream.message().await.unwrap() {
        match item.content.unwrap() {
            Content::Status(told) => {
                assert!(messages.is_empty() && status.is_none(), "the status comes first");
                status = Some(told);
            }
            Content::Message(message) => {
                assert!(!has_delivery_time, "the time of delivery comes last");
                messages.push(message);
            }
            Content::DeliveryTimestamp(_) => has_delivery_time = true,
        }
    }
    Received { status: status.expect("an answer has a status"), messages, has_delivery_time }
}
