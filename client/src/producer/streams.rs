//! Produce streams: sends without a call for each of them, where the server has them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use proto::{
    SendMessageRequest, limits,
    produce::{Results, Send as SendOne, Sends, produce_client::ProduceClient},
    v2::SendMessageResponse,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{Error, address::Address, client::Client};

/// Sends that wait for the writer.
const WAITING: usize = 1024;
/// Sends in one gRPC message.
const TOGETHER: usize = 64;
/// gRPC messages that wait for the connection.
const MESSAGES: usize = 4;
/// A server that had no streams is asked again after this long: it may be a newer one by then.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long a stream lives at most; then another is opened. The protocol wants a figure.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The answer has to travel.
const TRAVEL: Duration = Duration::from_millis(500);

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<SendMessageResponse>>>>;

/// The streams of one producer, by address.
#[derive(Debug, Default)]
pub(super) struct Streams(tokio::sync::Mutex<HashMap<Address, State>>);

#[derive(Debug)]
enum State {
    Open(Stream),
    Without(Instant),
}

#[derive(Clone, Debug)]
struct Stream {
    submit: mpsc::Sender<SendOne>,
    answers: Answers,
    next: Arc<AtomicU64>,
}

impl Streams {
    /// One send and its answer.
    pub(super) async fn send(
        &self,
        client: &Client,
        address: &Address,
        request: SendMessageRequest,
        wait: Duration,
    ) -> Result<SendMessageResponse, Error> {
        let start = Instant::now();
        let result = match self.stream(client, address).await {
            Ok(stream) => stream.send(address, request, wait).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(_) => client.answered(address, start.elapsed()),
            Err(Error::NoStreams { .. }) => {}
            Err(_) => {
                client.failed(address);
                self.0.lock().await.remove(address);
            }
        }
        result
    }

    /// The stream to an address, opened if there is none. Others wait meanwhile: each would open
    /// one otherwise.
    async fn stream(&self, client: &Client, address: &Address) -> Result<Stream, Error> {
        let mut streams = self.0.lock().await;
        match streams.get(address) {
            Some(State::Open(stream)) if !stream.submit.is_closed() => return Ok(stream.clone()),
            Some(State::Without(since)) if since.elapsed() < ASK_AGAIN => {
                return Err(Error::NoStreams { address: address.to_string() });
            }
            Some(_) | None => {}
        }
        match open(client, address).await {
            Ok(stream) => {
                streams.insert(address.clone(), State::Open(stream.clone()));
                Ok(stream)
            }
            Err(Error::Transport { status, .. }) if status.code() == Code::Unimplemented => {
                streams.insert(address.clone(), State::Without(Instant::now()));
                Err(Error::NoStreams { address: address.to_string() })
            }
            Err(error) => Err(error),
        }
    }
}

async fn open(client: &Client, address: &Address) -> Result<Stream, Error> {
    let (outgoing, messages) = mpsc::channel(MESSAGES);
    let mut rpc = ProduceClient::new(client.pool.channel(address)?)
        .max_decoding_message_size(limits::GRPC_BYTES)
        .max_encoding_message_size(limits::GRPC_BYTES);
    let wait = client.config.request_timeout;
    let opened = rpc.open(client.request(ReceiverStream::new(messages), LIFE));
    let opened = timeout(wait, opened).await;
    let opened = opened
        // Nothing has been sent over it yet.
        .map_err(|_| Status::unavailable("a produce stream was not opened in time"))
        .and_then(|opened| opened)
        .map_err(|status| Error::transport(address.as_str(), status))?;
    let (submit, submitted) = mpsc::channel(WAITING);
    let answers = Answers::default();
    let (writer, reader) = (write(submitted, outgoing), read(opened.into_inner(), answers.clone()));
    tokio::spawn(async move {
        // Either end is the end of both: then everybody who waits is told by the drop of what they
        // wait for.
        tokio::select! {
            answers = reader => clear(&answers),
            () = writer => {}
        }
    });
    Ok(Stream { submit, answers, next: Arc::default() })
}

fn clear(answers: &Answers) {
    answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

impl Stream {
    async fn send(
        &self,
        address: &Address,
        request: SendMessageRequest,
        wait: Duration,
    ) -> Result<SendMessageResponse, Error> {
        let broken = || {
            let status = Status::unavailable("the produce stream broke");
            Error::Transport { address: address.to_string(), status: Box::new(status) }
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
        let forget = Forget { answers: &self.answers, id };
        let timeout_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let one = SendOne { id, messages: request.messages, timeout_ms };
        let exchange = async {
            self.submit.send(one).await.map_err(|_| broken())?;
            // The reader is gone, and forgot everybody before this one came.
            if self.submit.is_closed() {
                return Err(broken());
            }
            answered.await.map_err(|_| broken())
        };
        let result = timeout(wait + TRAVEL, exchange).await;
        drop(forget);
        result
            .unwrap_or_else(|_| Err(Error::Timeout { address: address.to_string(), waited: wait }))
    }
}

/// Takes an answer that nobody waits for any more out of the table.
struct Forget<'a> {
    answers: &'a Answers,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

async fn write(mut submitted: mpsc::Receiver<SendOne>, outgoing: mpsc::Sender<Sends>) {
    let mut together = Vec::with_capacity(TOGETHER);
    while submitted.recv_many(&mut together, TOGETHER).await > 0 {
        let sends = std::mem::replace(&mut together, Vec::with_capacity(TOGETHER));
        if outgoing.send(Sends { sends }).await.is_err() {
            return;
        }
    }
}

async fn read(mut results: Streaming<Results>, answers: Answers) -> Answers {
    while let Ok(Some(Results { results })) = results.message().await {
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        for result in results {
            if let Some(answer) = answers.remove(&result.id) {
                // Whoever waited has given up.
                let _ = answer.send(result.response.unwrap_or_default());
            }
        }
    }
    answers
}
