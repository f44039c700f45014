//! The application's part.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures::FutureExt;

use crate::MessageView;

/// What a listener says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeResult {
    /// It is done with.
    Success,
    /// It is to come again: after a pause that grows with its attempts, and to the dead-letter queue
    /// when it came too often. Of ordered messages, the later ones of its group wait for it.
    Failure,
}

type Consumed = Pin<Box<dyn Future<Output = ConsumeResult> + Send>>;

#[derive(Clone)]
pub(super) struct Listener(Arc<dyn Fn(MessageView) -> Consumed + Send + Sync>);

impl Listener {
    pub(super) fn new<F>(listener: impl Fn(MessageView) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ConsumeResult> + Send + 'static,
    {
        Self(Arc::new(move |message| Box::pin(listener(message))))
    }

    /// A listener that panics has failed.
    pub(super) async fn consume(&self, message: MessageView) -> ConsumeResult {
        let consumed = AssertUnwindSafe(async { (self.0)(message).await }).catch_unwind().await;
        consumed.unwrap_or_else(|_| {
            tracing::error!("a listener panicked");
            ConsumeResult::Failure
        })
    }
}
