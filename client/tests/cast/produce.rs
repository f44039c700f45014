//! Produce streams.

use futures::{StreamExt, stream};
use proto::{
    SendMessageRequest,
    produce::{Result as SendResult, Results, Sends, produce_server::Produce},
    v2,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Parts, Script, Service, status};

#[tonic::async_trait]
impl Produce for Service {
    type OpenStream = Parts<Results>;

    async fn open(
        &self,
        request: Request<Streaming<Sends>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let service = self.clone();
        self.state.lock().expect("no holder panics").called("open");
        let sends = request.into_inner().take_while(|sends| std::future::ready(sends.is_ok()));
        let sends = sends.flat_map(|sends| stream::iter(sends.unwrap_or_default().sends));
        let held = self.clone();
        let sends = sends.then(move |one| {
            let hold = held.state.lock().expect("no holder panics").hold;
            async move {
                tokio::time::sleep(hold).await;
                one
            }
        });
        let results = sends.map(move |one| {
            let mut state = service.state.lock().expect("no holder panics");
            state.streamed += one.messages.len();
            let request = SendMessageRequest { messages: one.messages };
            let response = match state.called("streamed_send") {
                None => state.send(request),
                Some(Script::Code(code)) => {
                    v2::SendMessageResponse { status: Some(status(code)), entries: vec![] }
                }
                // The stream breaks after the message was stored.
                Some(Script::Lost(code)) => {
                    state.send(request);
                    return Err(Status::new(code, "scripted"));
                }
                Some(Script::Silence) => return Err(Status::aborted("scripted")),
            };
            let result = SendResult { id: one.id, response: Some(response) };
            Ok(Results { results: vec![result] })
        });
        Ok(Response::new(Box::pin(results)))
    }
}
