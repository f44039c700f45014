//! An answer to a receive call on its last way, to the client.
//!
//! The leader takes messages for delivered once it has written them. Whether the client got them
//! only its access point can see: a call that ends before its answer does is reported, so that the
//! leader does not go on renewing what nobody has.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;
use proto::{
    ClientId,
    clock::wall_now,
    v2::{ReceiveMessageResponse, receive_message_response::Content},
};
use tonic::Status;
use tracing::debug;

use crate::{ReceiveStream, gateway::Inner};

/// The answer as the client reads it.
pub(crate) struct Answer<L, D> {
    inner: Arc<Inner<L, D>>,
    client: ClientId,
    parts: ReceiveStream,
    begun: bool,
    ended: bool,
}

impl<L, D> Answer<L, D> {
    pub(crate) fn new(inner: Arc<Inner<L, D>>, client: ClientId, parts: ReceiveStream) -> Self {
        Self { inner, client, parts, begun: false, ended: false }
    }

    /// A leader that dies in the middle of its answer does not spoil what came before: clients
    /// would throw it away. The rest comes again.
    fn cut_short(&mut self, status: &Status) -> ReceiveMessageResponse {
        debug!(client_id = %self.client, %status, "an answer broke off");
        self.inner.registry.lost(&self.client);
        self.parts = Box::pin(futures::stream::empty());
        ReceiveMessageResponse { content: Some(Content::DeliveryTimestamp(wall_now().into())) }
    }
}

impl<L, D> Stream for Answer<L, D> {
    type Item = Result<ReceiveMessageResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = std::task::ready!(self.parts.as_mut().poll_next(context));
        Poll::Ready(match part {
            Some(Err(status)) if self.begun => Some(Ok(self.cut_short(&status))),
            Some(part) => {
                self.begun = true;
                Some(part)
            }
            None => {
                self.ended = true;
                None
            }
        })
    }
}

impl<L, D> Drop for Answer<L, D> {
    fn drop(&mut self) {
        if !self.ended {
            self.inner.registry.lost(&self.client);
        }
    }
}
