//! Receiving.

/// What the builders of all consumers have alike: it adds a subscription.
macro_rules! subscribe {
    ($doc:literal) => {
        #[doc = $doc]
        pub fn subscribe(
            mut self,
            topic: impl Into<String>,
            filter: impl Into<FilterExpression>,
        ) -> Self {
            self.subscriptions.push((topic.into(), filter.into()));
            self
        }
    };
}

mod acker;
mod idempotent;
mod offset_store;
mod offsets;
mod positions;
mod pull;
mod push;
mod rpc;
mod simple;
mod start_from;

pub use idempotent::{DoneStore, Idempotent, MemoryDone, Standing};
pub use offset_store::{FileOffsets, MemoryOffsets, OffsetStore};
pub use pull::{Begin, PullConsumer, PullConsumerBuilder};
pub use push::{ConsumeResult, PushConsumer, PushConsumerBuilder};
pub use simple::{SimpleConsumer, SimpleConsumerBuilder};
pub use start_from::StartFrom;
