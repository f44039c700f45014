//! `raftmq.produce.v1`: sends in a stream. Each of them goes the way of a SendMessage of its own;
//! what is saved is the call around it.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt, stream};
use proto::{
    SendMessageRequest,
    produce::{Result as SendResult, Results, Send as SendOne, Sends, produce_server},
    v2::SendMessageResponse,
};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use crate::{Caller, Directory, Gateway, Local, status::Refusal};

/// Sends of one stream that are unanswered at a time. Further ones are not read.
const UNDER_WAY: usize = 4096;
/// Results that share a message when so many are there at once.
const RESULTS_TOGETHER: usize = 256;
/// For a send that does not say how long its client waits, and the most that it may ask for.
const WAIT: Duration = Duration::from_secs(10);

type Answers = Pin<Box<dyn Stream<Item = Result<Results, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl<L: Local, D: Directory> produce_server::Produce for Gateway<L, D> {
    type OpenStream = Answers;

    async fn open(
        &self,
        request: Request<Streaming<Sends>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let caller = Caller::of(&request);
        if caller.client_id.is_none() {
            return Err(Refusal::ClientIdRequired.to_stream_error());
        }
        let (metadata, _, sends) = request.into_parts();
        let mut closing = self.inner.closing();
        let closed = async move {
            // A gateway that is gone is closed as well.
            let _ = closing.wait_for(|closing| *closing).await;
        };
        let gateway = self.clone();
        // A stream that breaks is one that ends: what was read is answered as far as it can be.
        let sends = sends.take_while(|sends| std::future::ready(sends.is_ok()));
        let results = sends
            .flat_map(|sends| stream::iter(sends.unwrap_or_default().sends))
            .take_until(closed)
            .map(move |one| send(gateway.clone(), caller.clone(), metadata.clone(), one))
            .buffer_unordered(UNDER_WAY)
            .ready_chunks(RESULTS_TOGETHER)
            .map(|results| Ok(Results { results }));
        Ok(Response::new(Box::pin(results)))
    }
}

async fn send<L: Local, D: Directory>(
    gateway: Gateway<L, D>,
    mut caller: Caller,
    metadata: MetadataMap,
    one: SendOne,
) -> SendResult {
    let asked = Duration::from_millis(one.timeout_ms.into());
    let wait = if asked.is_zero() { WAIT } else { asked.min(WAIT) };
    caller.deadline = std::time::Instant::now() + wait;
    let request = SendMessageRequest { messages: one.messages };
    let answer = gateway.send(&caller, &metadata, request).await;
    let response = answer.unwrap_or_else(|refusal| SendMessageResponse {
        status: Some(refusal.to_payload()),
        entries: Vec::new(),
    });
    SendResult { id: one.id, response: Some(response) }
}
