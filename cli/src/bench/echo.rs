//! A server that checks messages as a broker does, stores nothing, and answers at once: what the
//! protocol, the checks and this machine's network allow at most.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use anyhow::{Context, Result};
use futures::{Stream, StreamExt};
use proto::{
    SendMessageRequest, Topic, clock, limits,
    message::{self, Rules},
    produce::{
        Result as SendResult, Results, Send as SendOne, Sends,
        produce_server::{Produce, ProduceServer},
    },
    v2::{
        self,
        messaging_service_server::{MessagingService, MessagingServiceServer},
    },
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::output::Report;

const WINDOW_BYTES: u32 = 8 << 20;

/// Who answers.
#[derive(Clone, Debug, Default)]
struct Echo {
    next_offset: Arc<AtomicI64>,
}

/// Serves until the process is told to stop, or, as the child of another, until its standard input
/// ends.
pub(super) async fn serve_until_interrupted(listen: SocketAddr, as_child: bool) -> Result<Report> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listen on {listen}; choose another address with --listen"))?;
    announce(listener.local_addr()?)?;
    let echo = Echo::default();
    let served = serve(listener, echo.clone(), stopped(as_child)?);
    served.await?;
    let messages = echo.next_offset.load(Ordering::Relaxed);
    Ok(Report::new(json!({ "messages": messages })).line(format!("{messages} messages answered")))
}

/// Says at once where to connect; the report comes at the end.
fn announce(address: SocketAddr) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {address}")?;
    out.flush()?;
    Ok(())
}

fn stopped(as_child: bool) -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let parent_gone =
            async { if as_child { input_ends().await } else { std::future::pending().await } };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = parent_gone => {}
        }
    })
}

/// Waits for the end of standard input on a thread of its own, which ends with the process.
async fn input_ends() {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // However it ends, nobody holds the other end any more.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(ended);
    });
    let _ = end.await;
}

async fn serve(
    listener: TcpListener,
    echo: Echo,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let produce = ProduceServer::new(echo.clone())
        .max_decoding_message_size(limits::GRPC_BYTES)
        .max_encoding_message_size(limits::GRPC_BYTES);
    let service = MessagingServiceServer::new(echo)
        .max_decoding_message_size(limits::GRPC_BYTES)
        .max_encoding_message_size(limits::GRPC_BYTES);
    let incoming = futures::TryStreamExt::inspect_ok(TcpListenerStream::new(listener), |stream| {
        // A connection that refuses is as good without.
        let _ = stream.set_nodelay(true);
    });
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(service)
        .add_service(produce)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
}

impl Echo {
    fn answer(&self, request: &SendMessageRequest) -> v2::SendMessageResponse {
        match self.send(request) {
            Ok(entries) => v2::SendMessageResponse { status: Some(ok()), entries },
            Err(why) => {
                v2::SendMessageResponse { status: Some(bad_request(why)), entries: Vec::new() }
            }
        }
    }

    fn send(&self, request: &SendMessageRequest) -> Result<Vec<v2::SendResultEntry>, String> {
        let messages = message::decode(request).map_err(|error| error.to_string())?;
        message::check_all(&messages, &Rules::default(), clock::wall_now())
            .map_err(|error| error.to_string())?;
        let count = i64::try_from(messages.len()).expect("bounded by the check");
        let first = self.next_offset.fetch_add(count, Ordering::Relaxed);
        let entry = |(offset, message): (i64, v2::Message)| v2::SendResultEntry {
            status: Some(ok()),
            message_id: message.system_properties.map(|s| s.message_id).unwrap_or_default(),
            offset,
            ..v2::SendResultEntry::default()
        };
        Ok((first..).zip(messages).map(entry).collect())
    }
}

#[tonic::async_trait]
impl Produce for Echo {
    type OpenStream = Answers<Results>;

    async fn open(&self, request: Request<Streaming<Sends>>) -> Answer<Self::OpenStream> {
        let echo = self.clone();
        let answers = request.into_inner().map(move |sends| {
            let answer = |one: SendOne| {
                let response = echo.answer(&SendMessageRequest { messages: one.messages });
                SendResult { id: one.id, response: Some(response) }
            };
            Ok(Results { results: sends?.sends.into_iter().map(answer).collect() })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn ok() -> v2::Status {
    v2::Status { code: v2::Code::Ok as i32, message: "OK".into() }
}

fn bad_request(message: String) -> v2::Status {
    v2::Status { code: v2::Code::BadRequest as i32, message }
}

/// What an echo does not do.
fn only_sends<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("an echo only takes sends"))
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MessagingService for Echo {
    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Answer<v2::SendMessageResponse> {
        Ok(Response::new(self.answer(request.get_ref())))
    }

    async fn query_route(
        &self,
        request: Request<v2::QueryRouteRequest>,
    ) -> Answer<v2::QueryRouteResponse> {
        let request = request.into_inner();
        if let Err(error) = Topic::from_resource(request.topic.as_ref()) {
            let status = Some(bad_request(error.to_string()));
            return Ok(Response::new(v2::QueryRouteResponse { status, message_queues: vec![] }));
        }
        let queue = v2::MessageQueue {
            topic: request.topic,
            id: 0,
            permission: v2::Permission::ReadWrite as i32,
            broker: Some(v2::Broker { name: "echo".into(), id: 0, endpoints: request.endpoints }),
            accept_message_types: vec![v2::MessageType::Normal as i32],
        };
        let answer = v2::QueryRouteResponse { status: Some(ok()), message_queues: vec![queue] };
        Ok(Response::new(answer))
    }

    async fn heartbeat(&self, _: Request<v2::HeartbeatRequest>) -> Answer<v2::HeartbeatResponse> {
        only_sends()
    }

    async fn query_assignment(
        &self,
        _: Request<v2::QueryAssignmentRequest>,
    ) -> Answer<v2::QueryAssignmentResponse> {
        only_sends()
    }

    type ReceiveMessageStream = Answers<v2::ReceiveMessageResponse>;

    async fn receive_message(
        &self,
        _: Request<v2::ReceiveMessageRequest>,
    ) -> Answer<Self::ReceiveMessageStream> {
        only_sends()
    }

    async fn ack_message(
        &self,
        _: Request<v2::AckMessageRequest>,
    ) -> Answer<v2::AckMessageResponse> {
        only_sends()
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        _: Request<v2::ForwardMessageToDeadLetterQueueRequest>,
    ) -> Answer<v2::ForwardMessageToDeadLetterQueueResponse> {
        only_sends()
    }

    type PullMessageStream = Answers<v2::PullMessageResponse>;

    async fn pull_message(
        &self,
        _: Request<v2::PullMessageRequest>,
    ) -> Answer<Self::PullMessageStream> {
        only_sends()
    }

    async fn update_offset(
        &self,
        _: Request<v2::UpdateOffsetRequest>,
    ) -> Answer<v2::UpdateOffsetResponse> {
        only_sends()
    }

    async fn get_offset(&self, _: Request<v2::GetOffsetRequest>) -> Answer<v2::GetOffsetResponse> {
        only_sends()
    }

    async fn query_offset(
        &self,
        _: Request<v2::QueryOffsetRequest>,
    ) -> Answer<v2::QueryOffsetResponse> {
        only_sends()
    }

    async fn end_transaction(
        &self,
        _: Request<v2::EndTransactionRequest>,
    ) -> Answer<v2::EndTransactionResponse> {
        only_sends()
    }

    type TelemetryStream = Answers<v2::TelemetryCommand>;

    async fn telemetry(
        &self,
        _: Request<Streaming<v2::TelemetryCommand>>,
    ) -> Answer<Self::TelemetryStream> {
        only_sends()
    }

    async fn notify_client_termination(
        &self,
        _: Request<v2::NotifyClientTerminationRequest>,
    ) -> Answer<v2::NotifyClientTerminationResponse> {
        only_sends()
    }

    async fn change_invisible_duration(
        &self,
        _: Request<v2::ChangeInvisibleDurationRequest>,
    ) -> Answer<v2::ChangeInvisibleDurationResponse> {
        only_sends()
    }

    async fn recall_message(
        &self,
        _: Request<v2::RecallMessageRequest>,
    ) -> Answer<v2::RecallMessageResponse> {
        only_sends()
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<v2::SyncLiteSubscriptionRequest>,
    ) -> Answer<v2::SyncLiteSubscriptionResponse> {
        only_sends()
    }
}
