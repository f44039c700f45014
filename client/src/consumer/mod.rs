//! Receiving.

mod acker;
mod offsets;
mod push;
mod rpc;
mod simple;
mod start_from;

pub use push::{ConsumeResult, PushConsumer, PushConsumerBuilder};
pub use simple::{SimpleConsumer, SimpleConsumerBuilder};
pub use start_from::StartFrom;
