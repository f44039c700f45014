//! The official protocol, as far as clients use it.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use proto::{
    SendMessageRequest, clock,
    v2::{self, messaging_service_server::MessagingService, telemetry_command::Command},
};
use raftmq_client::Code;
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Parts, Script, Service, State, Topic, status};

impl Service {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().expect("no holder panics"))
    }

    /// Acts by the script; `refuse` makes the payload of a refusal.
    async fn by_script<T>(
        &self,
        rpc: &'static str,
        act: impl FnOnce(&mut State) -> T,
        refuse: impl FnOnce(v2::Status) -> T,
    ) -> Result<Response<T>, Status> {
        match self.with(|state| state.called(rpc)) {
            None => Ok(Response::new(self.with(act))),
            Some(Script::Code(code)) => Ok(Response::new(refuse(status(code)))),
            Some(Script::Lost(code)) => {
                self.with(act);
                Err(Status::new(code, "scripted"))
            }
            Some(Script::Silence) => {
                self.with(act);
                std::future::pending().await
            }
        }
    }
}

fn name(resource: Option<&v2::Resource>) -> String {
    resource.map(|resource| resource.name.clone()).unwrap_or_default()
}

fn queues(name: &str, topic: &Topic) -> Vec<v2::MessageQueue> {
    let mut all = Vec::new();
    for (broker, address, count) in &topic.brokers {
        let (host, port) = address.rsplit_once(':').expect("an address");
        let address = v2::Address { host: host.to_owned(), port: port.parse().expect("a port") };
        let endpoints =
            v2::Endpoints { scheme: v2::AddressScheme::IPv4.into(), addresses: vec![address] };
        for id in 0..*count {
            all.push(v2::MessageQueue {
                topic: Some(v2::Resource { name: name.to_owned(), ..Default::default() }),
                id,
                permission: v2::Permission::ReadWrite.into(),
                broker: Some(v2::Broker {
                    name: broker.clone(),
                    id: 0,
                    endpoints: Some(endpoints.clone()),
                }),
                accept_message_types: topic.accepts.iter().map(|kind| (*kind).into()).collect(),
            });
        }
    }
    all
}

impl State {
    fn merged(&self, received: &v2::Settings) -> v2::Settings {
        let mut merged = received.clone();
        let next = self.backoff.iter().copied().map(clock::to_wire).collect();
        let custom = v2::CustomizedBackoff { next };
        let strategy = v2::retry_policy::Strategy::CustomizedBackoff(custom);
        merged.backoff_policy =
            Some(v2::RetryPolicy { max_attempts: self.attempts, strategy: Some(strategy) });
        match &mut merged.pub_sub {
            Some(v2::settings::PubSub::Publishing(publishing)) => {
                publishing.max_body_size = 4 << 20;
                publishing.validate_message_type = true;
            }
            Some(v2::settings::PubSub::Subscription(subscription)) => {
                subscription.fifo = Some(self.fifo);
                subscription.receive_batch_size = Some(32);
                subscription.long_polling_timeout = Some(clock::to_wire(Duration::from_secs(2)));
            }
            None => {}
        }
        merged
    }

    fn take(&mut self, topic: &str, batch: usize) -> Vec<v2::Message> {
        let (mut taken, now, mut held) = (Vec::new(), Instant::now(), Vec::new());
        let commits = self
            .ended
            .iter()
            .filter(|ended| ended.resolution() == v2::TransactionResolution::Commit);
        let committed: Vec<String> = commits.map(|ended| ended.transaction_id.clone()).collect();
        for stored in self.stored.iter_mut().filter(|stored| !stored.done) {
            let system = stored.message.system_properties.as_ref();
            let half = system.is_some_and(|s| s.message_type() == v2::MessageType::Transaction);
            if half && !committed.contains(&format!("tx-{}", stored.offset)) {
                continue;
            }
            if stored.message.topic.as_ref().is_none_or(|t| t.name != topic) {
                continue;
            }
            let system = stored.message.system_properties.get_or_insert_default();
            let group = system.message_group.clone().unwrap_or_default();
            let blocked = self.fifo && held.contains(&group);
            if stored.in_flight || stored.visible > now || blocked {
                held.push(group);
                continue;
            }
            if taken.len() >= batch {
                break;
            }
            stored.in_flight = true;
            stored.attempt += 1;
            system.delivery_attempt = Some(stored.attempt);
            system.queue_offset = Some(stored.offset);
            system.receipt_handle = Some(format!("{}:{}", stored.offset, stored.attempt));
            taken.push(stored.message.clone());
        }
        taken
    }

    /// The message of a handle that is still good.
    fn held(&mut self, handle: &str) -> Option<&mut super::Stored> {
        self.stored.iter_mut().find(|stored| {
            stored.in_flight && handle == format!("{}:{}", stored.offset, stored.attempt)
        })
    }
}

#[tonic::async_trait]
impl MessagingService for Service {
    async fn query_route(
        &self,
        request: Request<v2::QueryRouteRequest>,
    ) -> Result<Response<v2::QueryRouteResponse>, Status> {
        self.with(|state| {
            state.headers.push(request.metadata().clone());
        });
        let topic = name(request.into_inner().topic.as_ref());
        let refuse =
            |status| v2::QueryRouteResponse { status: Some(status), message_queues: vec![] };
        self.by_script(
            "query_route",
            |state| match state.topics.get(&topic) {
                Some(known) => v2::QueryRouteResponse {
                    status: Some(status(Code::Ok)),
                    message_queues: queues(&topic, known),
                },
                None => refuse(status(Code::TopicNotFound)),
            },
            refuse,
        )
        .await
    }

    async fn query_assignment(
        &self,
        request: Request<v2::QueryAssignmentRequest>,
    ) -> Result<Response<v2::QueryAssignmentResponse>, Status> {
        let topic = name(request.into_inner().topic.as_ref());
        let refuse =
            |status| v2::QueryAssignmentResponse { status: Some(status), assignments: vec![] };
        self.by_script(
            "query_assignment",
            |state| {
                let Some(known) = state.topics.get(&topic) else {
                    return refuse(status(Code::TopicNotFound));
                };
                let assignments = queues(&topic, known)
                    .into_iter()
                    .map(|queue| v2::Assignment { message_queue: Some(queue) })
                    .collect();
                v2::QueryAssignmentResponse { status: Some(status(Code::Ok)), assignments }
            },
            refuse,
        )
        .await
    }

    async fn heartbeat(
        &self,
        _: Request<v2::HeartbeatRequest>,
    ) -> Result<Response<v2::HeartbeatResponse>, Status> {
        let answer = |status| v2::HeartbeatResponse { status: Some(status) };
        self.by_script("heartbeat", |_| answer(status(Code::Ok)), answer).await
    }

    async fn notify_client_termination(
        &self,
        _: Request<v2::NotifyClientTerminationRequest>,
    ) -> Result<Response<v2::NotifyClientTerminationResponse>, Status> {
        self.with(|state| {
            state.terminated += 1;
            // As servers do: what was handed out comes again at once.
            state.stored.iter_mut().for_each(|stored| stored.in_flight = false);
        });
        let status = Some(status(Code::Ok));
        Ok(Response::new(v2::NotifyClientTerminationResponse { status }))
    }

    type TelemetryStream = Parts<v2::TelemetryCommand>;

    async fn telemetry(
        &self,
        request: Request<Streaming<v2::TelemetryCommand>>,
    ) -> Result<Response<Self::TelemetryStream>, Status> {
        let (commands, outgoing) = mpsc::channel(16);
        let id = request.metadata().get("x-mq-client-id").and_then(|id| id.to_str().ok());
        let id = id.unwrap_or_default().to_owned();
        self.with(|state| {
            state.client_ids.push(id);
            state.commands.push(commands.clone());
            state.called("telemetry");
        });
        let (service, mut incoming) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(command)) = incoming.message().await {
                let Some(Command::Settings(settings)) = command.command else { continue };
                let merged = service.with(|state| {
                    state.settings.push(settings.clone());
                    state.merged(&settings)
                });
                let answer = v2::TelemetryCommand {
                    status: Some(status(Code::Ok)),
                    command: Some(Command::Settings(merged)),
                };
                let _ = commands.send(Ok(answer)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<v2::SendMessageResponse>, Status> {
        let request = request.into_inner();
        sleep(self.with(|state| state.hold)).await;
        let refuse = |status| v2::SendMessageResponse { status: Some(status), entries: vec![] };
        self.by_script("send_message", |state| state.send(request), refuse).await
    }

    type ReceiveMessageStream = Parts<v2::ReceiveMessageResponse>;

    async fn receive_message(
        &self,
        request: Request<v2::ReceiveMessageRequest>,
    ) -> Result<Response<Self::ReceiveMessageStream>, Status> {
        use v2::receive_message_response::Content;
        let request = request.into_inner();
        let part = |content| Ok(v2::ReceiveMessageResponse { content: Some(content) });
        match self.with(|state| state.called("receive_message")) {
            None => {}
            Some(Script::Code(code)) => {
                let told = part(Content::Status(status(code)));
                return Ok(Response::new(Box::pin(stream::iter([told]))));
            }
            Some(Script::Lost(code)) => return Err(Status::new(code, "scripted")),
            Some(Script::Silence) => return std::future::pending().await,
        }
        let topic = name(request.message_queue.and_then(|queue| queue.topic).as_ref());
        let batch = usize::try_from(request.batch_size).unwrap_or(1);
        let poll = request.long_polling_timeout.as_ref().and_then(clock::duration);
        let until = Instant::now() + poll.unwrap_or_default();
        let service = self.clone();
        let parts = stream::once(async move {
            loop {
                let messages = service.with(|state| state.take(&topic, batch));
                if !messages.is_empty() || Instant::now() >= until {
                    return messages;
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        let parts = parts.flat_map(move |messages| {
            let code = if messages.is_empty() { Code::MessageNotFound } else { Code::Ok };
            let told = stream::iter([part(Content::Status(status(code)))]);
            told.chain(stream::iter(messages.into_iter().map(move |m| part(Content::Message(m)))))
        });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn ack_message(
        &self,
        request: Request<v2::AckMessageRequest>,
    ) -> Result<Response<v2::AckMessageResponse>, Status> {
        let request = request.into_inner();
        let refuse = |status| v2::AckMessageResponse { status: Some(status), entries: vec![] };
        self.by_script(
            "ack_message",
            |state| {
                let mut entries = Vec::new();
                for entry in request.entries {
                    let code = match state.held(&entry.receipt_handle) {
                        Some(stored) => {
                            (stored.done, stored.in_flight) = (true, false);
                            Code::Ok
                        }
                        // Repeating an acknowledgement does no harm.
                        None => {
                            let offset = entry.receipt_handle.split(':').next();
                            let offset = offset.and_then(|offset| offset.parse::<i64>().ok());
                            let known = state.stored.iter().find(|s| Some(s.offset) == offset);
                            match known.is_some_and(|stored| stored.done) {
                                true => Code::Ok,
                                false => Code::InvalidReceiptHandle,
                            }
                        }
                    };
                    entries.push(v2::AckMessageResultEntry {
                        status: Some(status(code)),
                        message_id: entry.message_id,
                        receipt_handle: entry.receipt_handle,
                    });
                }
                v2::AckMessageResponse { status: Some(status(Code::Ok)), entries }
            },
            refuse,
        )
        .await
    }

    async fn change_invisible_duration(
        &self,
        request: Request<v2::ChangeInvisibleDurationRequest>,
    ) -> Result<Response<v2::ChangeInvisibleDurationResponse>, Status> {
        let request = request.into_inner();
        let refuse = |status| v2::ChangeInvisibleDurationResponse {
            status: Some(status),
            receipt_handle: String::new(),
        };
        self.by_script(
            "change_invisible_duration",
            |state| {
                let wait = request.invisible_duration.as_ref().and_then(clock::duration);
                let handle = request.receipt_handle.clone();
                state.given_back.push(request);
                match state.held(&handle) {
                    Some(stored) => {
                        stored.in_flight = false;
                        stored.visible = Instant::now() + wait.unwrap_or_default();
                        v2::ChangeInvisibleDurationResponse {
                            status: Some(status(Code::Ok)),
                            receipt_handle: handle,
                        }
                    }
                    None => refuse(status(Code::InvalidReceiptHandle)),
                }
            },
            refuse,
        )
        .await
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        request: Request<v2::ForwardMessageToDeadLetterQueueRequest>,
    ) -> Result<Response<v2::ForwardMessageToDeadLetterQueueResponse>, Status> {
        let request = request.into_inner();
        let answer = |status| v2::ForwardMessageToDeadLetterQueueResponse { status: Some(status) };
        self.by_script(
            "forward_message_to_dead_letter_queue",
            |state| {
                if let Some(stored) = state.held(&request.receipt_handle) {
                    (stored.done, stored.in_flight) = (true, false);
                }
                state.given_up.push(request);
                answer(status(Code::Ok))
            },
            answer,
        )
        .await
    }

    async fn end_transaction(
        &self,
        request: Request<v2::EndTransactionRequest>,
    ) -> Result<Response<v2::EndTransactionResponse>, Status> {
        let request = request.into_inner();
        let answer = |status| v2::EndTransactionResponse { status: Some(status) };
        self.by_script(
            "end_transaction",
            |state| {
                state.ended.push(request);
                answer(status(Code::Ok))
            },
            answer,
        )
        .await
    }

    async fn recall_message(
        &self,
        request: Request<v2::RecallMessageRequest>,
    ) -> Result<Response<v2::RecallMessageResponse>, Status> {
        let handle = request.into_inner().recall_handle;
        let refuse =
            |status| v2::RecallMessageResponse { status: Some(status), message_id: String::new() };
        let act = |_: &mut State| v2::RecallMessageResponse {
            status: Some(status(Code::Ok)),
            message_id: handle.replace("recall", "id"),
        };
        self.by_script("recall_message", act, refuse).await
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<v2::SyncLiteSubscriptionRequest>,
    ) -> Result<Response<v2::SyncLiteSubscriptionResponse>, Status> {
        Err(Status::unimplemented("not in this play"))
    }

    type PullMessageStream = Parts<v2::PullMessageResponse>;

    async fn pull_message(
        &self,
        request: Request<v2::PullMessageRequest>,
    ) -> Result<Response<Self::PullMessageStream>, Status> {
        use v2::pull_message_response::Content;
        let request = request.into_inner();
        let part = |content| Ok(v2::PullMessageResponse { content: Some(content) });
        let refused = self.with(|state| state.called("pull_message"));
        if let Some(Script::Code(code)) = refused {
            let told = [part(Content::Status(status(code))), part(Content::NextOffset(0))];
            return Ok(Response::new(Box::pin(stream::iter(told))));
        }
        let queue = request.message_queue.unwrap_or_default();
        let topic = name(queue.topic.as_ref());
        let batch = usize::try_from(request.batch_size).unwrap_or(1);
        let found: Vec<_> = self.with(|state| {
            let of_queue = state.stored.iter().filter(|stored| {
                let system = stored.message.system_properties.as_ref();
                stored.message.topic.as_ref().is_some_and(|t| t.name == topic)
                    && system.is_some_and(|system| system.queue_id == queue.id)
                    && stored.offset >= request.offset
            });
            of_queue
                .take(batch)
                .map(|stored| {
                    let mut message = stored.message.clone();
                    message.system_properties.get_or_insert_default().queue_offset =
                        Some(stored.offset);
                    (stored.offset, message)
                })
                .collect()
        });
        if found.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        let next = found.last().map_or(request.offset, |(offset, _)| offset + 1);
        let code = if found.is_empty() { Code::MessageNotFound } else { Code::Ok };
        let mut parts = vec![part(Content::Status(status(code)))];
        parts.extend(found.into_iter().map(|(_, message)| part(Content::Message(message))));
        parts.push(part(Content::NextOffset(next)));
        Ok(Response::new(Box::pin(stream::iter(parts))))
    }

    async fn update_offset(
        &self,
        request: Request<v2::UpdateOffsetRequest>,
    ) -> Result<Response<v2::UpdateOffsetResponse>, Status> {
        let request = request.into_inner();
        let answer = |status| v2::UpdateOffsetResponse { status: Some(status) };
        self.by_script(
            "update_offset",
            |state| {
                let queue = request.message_queue.unwrap_or_default();
                let key = (name(request.group.as_ref()), queue.id);
                let known = state.offsets.entry(key).or_default();
                *known = request.offset.max(*known);
                answer(status(Code::Ok))
            },
            answer,
        )
        .await
    }

    async fn get_offset(
        &self,
        request: Request<v2::GetOffsetRequest>,
    ) -> Result<Response<v2::GetOffsetResponse>, Status> {
        let request = request.into_inner();
        let refuse = |status| v2::GetOffsetResponse { status: Some(status), offset: 0 };
        self.by_script(
            "get_offset",
            |state| {
                let queue = request.message_queue.unwrap_or_default();
                match state.offsets.get(&(name(request.group.as_ref()), queue.id)) {
                    Some(offset) => {
                        v2::GetOffsetResponse { status: Some(status(Code::Ok)), offset: *offset }
                    }
                    None => refuse(status(Code::OffsetNotFound)),
                }
            },
            refuse,
        )
        .await
    }

    async fn query_offset(
        &self,
        request: Request<v2::QueryOffsetRequest>,
    ) -> Result<Response<v2::QueryOffsetResponse>, Status> {
        let policy = request.into_inner().query_offset_policy();
        let refuse = |status| v2::QueryOffsetResponse { status: Some(status), offset: 0 };
        self.by_script(
            "query_offset",
            |state| {
                let end = i64::try_from(state.stored.len()).expect("few");
                let offset = if policy == v2::QueryOffsetPolicy::End { end } else { 0 };
                v2::QueryOffsetResponse { status: Some(status(Code::Ok)), offset }
            },
            refuse,
        )
        .await
    }
}
