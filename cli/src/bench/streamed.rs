//! Sends through a produce stream: many share a gRPC message, and none is a call of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use proto::{
    SendMessageRequest, limits,
    produce::{Results, Send as SendOne, Sends, produce_client::ProduceClient},
    v2::SendMessageResponse,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Streaming;

use super::connection::Client;

/// Sends that wait for the writer.
const WAITING: usize = 1024;
/// Sends in one gRPC message.
const TOGETHER: usize = 64;
/// gRPC messages that wait for the connection.
const MESSAGES: usize = 4;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<SendMessageResponse>>>>;
type Submitted = (SendMessageRequest, oneshot::Sender<SendMessageResponse>);

/// One produce stream; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    submit: mpsc::Sender<Submitted>,
}

impl Pipe {
    /// Opens a stream over the client's connection. It ends with the last clone.
    pub(super) async fn open(client: &Client) -> Result<Self> {
        let (outgoing, messages) = mpsc::channel(MESSAGES);
        let mut rpc = ProduceClient::new(client.channel())
            .max_decoding_message_size(limits::GRPC_BYTES)
            .max_encoding_message_size(limits::GRPC_BYTES);
        let request = client.request_without_end(ReceiverStream::new(messages));
        let answer = rpc.open(request).await;
        let results = answer.context("open a produce stream (RaftMQ has them)")?.into_inner();
        let (submit, submitted) = mpsc::channel(WAITING);
        let waiting = Waiting::default();
        let timeout = u32::try_from(client.timeout().as_millis()).unwrap_or(u32::MAX);
        tokio::spawn(write(submitted, outgoing, Arc::clone(&waiting), timeout));
        tokio::spawn(read(results, waiting));
        Ok(Self { submit })
    }

    /// `None` when the stream has broken.
    pub(super) async fn send(&self, request: SendMessageRequest) -> Option<SendMessageResponse> {
        let (answer, answered) = oneshot::channel();
        self.submit.send((request, answer)).await.ok()?;
        answered.await.ok()
    }
}

async fn write(
    mut submitted: mpsc::Receiver<Submitted>,
    outgoing: mpsc::Sender<Sends>,
    waiting: Waiting,
    timeout_ms: u32,
) {
    let (mut next, mut together) = (0, Vec::with_capacity(TOGETHER));
    while submitted.recv_many(&mut together, TOGETHER).await > 0 {
        let mut sends = Vec::with_capacity(together.len());
        {
            let mut waiting = waiting.lock().expect("no holder panics");
            for (request, answer) in together.drain(..) {
                waiting.insert(next, answer);
                sends.push(SendOne { id: next, messages: request.messages, timeout_ms });
                next += 1;
            }
        }
        if outgoing.send(Sends { sends }).await.is_err() {
            return;
        }
    }
}

async fn read(mut results: Streaming<Results>, waiting: Waiting) {
    while let Some(Ok(Results { results })) = results.next().await {
        let mut waiting = waiting.lock().expect("no holder panics");
        for result in results {
            if let Some(answer) = waiting.remove(&result.id) {
                // Whoever waited has given up.
                let _ = answer.send(result.response.unwrap_or_default());
            }
        }
    }
    // Everybody who still waits is told by the drop of what they wait for.
    waiting.lock().expect("no holder panics").clear();
}
