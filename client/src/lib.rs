//! A client of RocketMQ 5's gRPC protocol, for RaftMQ and any RocketMQ 5 proxy.
//!
//! - [`Producer`]: awaited sends, batches, submitted sends with back-pressure, ordered, delayed and
//!   transactional messages.
//! - [`PushConsumer`]: a listener is called with each message.
//! - [`SimpleConsumer`]: messages when they are asked for.
//! - [`PullConsumer`]: queues from offsets of one's own choice; also broadcast, where every client
//!   reads everything.
//! - [`Idempotent`]: each message once in effect.
//!
//! Every call that fails says what became of it: [`Error::fate`].
//!
//! What only RaftMQ has is asked for and done without where it is not there: produce streams for
//! submitted messages, and the topology, by which clients talk to leaders directly.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![warn(missing_docs)]

mod address;
mod client;
mod compression;
mod config;
mod consumer;
mod credentials;
mod discovery;
mod error;
mod filter;
mod health;
mod ids;
mod keep;
mod message;
mod message_view;
mod pool;
mod producer;
mod propagation;
mod retry;
mod route;
mod session;
mod settings;
mod tls;
mod topology;

pub use config::ClientConfig;
pub use consumer::{
    Begin, ConsumeResult, DoneStore, FileOffsets, Idempotent, MemoryDone, MemoryOffsets,
    OffsetStore, PullConsumer, PullConsumerBuilder, PushConsumer, PushConsumerBuilder,
    SimpleConsumer, SimpleConsumerBuilder, Standing, StartFrom,
};
pub use credentials::Credentials;
pub use discovery::Discovery;
pub use error::{Code, ConfigError, Error, Fate};
pub use filter::FilterExpression;
pub use message::Message;
pub use message_view::MessageView;
pub use producer::{
    Producer, ProducerBuilder, QueueSelector, Resolution, SendReceipt, Sending, Transaction,
};
pub use propagation::Propagation;
pub use route::MessageQueue;
pub use tls::Tls;
