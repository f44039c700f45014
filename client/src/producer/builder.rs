//! How a producer is made.

use std::{future::Future, sync::Arc};

use super::{
    Inner, Producer, QueueSelector,
    batcher::Batcher,
    deliver::Courier,
    streams::Streams,
    transaction::{self, Checker, Resolution},
};
use crate::{
    ClientConfig, ConfigError, Error, MessageView, Propagation, client::Client, settings::Role,
};

/// Three in all: the first attempt and two retries.
const ATTEMPTS: u32 = 3;
const MAX_MESSAGES: usize = 10_000;
const MAX_BYTES: usize = 64 << 20;

/// Makes a [`Producer`].
#[derive(Clone)]
#[must_use = "nothing happens before `build`"]
pub struct ProducerBuilder {
    config: ClientConfig,
    pub(super) options: Options,
    topics: Vec<String>,
    checker: Option<Checker>,
    mind_latency: bool,
    streamed: bool,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) attempts: u32,
    pub(super) fail_fast: bool,
    pub(super) compress_from: Option<usize>,
    pub(super) selector: QueueSelector,
    pub(super) propagation: Option<Propagation>,
}

impl ProducerBuilder {
    pub(super) fn new(config: ClientConfig) -> Self {
        let options = Options {
            attempts: ATTEMPTS,
            fail_fast: false,
            compress_from: None,
            selector: QueueSelector::default(),
            propagation: None,
        };
        Self {
            config,
            options,
            topics: Vec::new(),
            checker: None,
            mind_latency: false,
            streamed: true,
            max_messages: MAX_MESSAGES,
            max_bytes: MAX_BYTES,
        }
    }

    /// A topic that will be sent to. Its route is there from the start, `build` fails if it does not
    /// exist, and questions about its transactions come to this producer.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// How often a send is tried again. Default: 2.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.attempts = retries.saturating_add(1);
        self
    }

    /// Refuses a message at once when too much is under way, instead of waiting for room. Default:
    /// off.
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.options.fail_fast = fail_fast;
        self
    }

    /// Messages that may be under way by [`Producer::submit`]. Default: 10,000.
    pub fn max_in_flight(mut self, messages: usize) -> Self {
        self.max_messages = messages;
        self
    }

    /// Their bytes. Default: 64 MiB.
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Compresses bodies of this size and more by gzip. The official Rust client cannot read such
    /// messages; all others can. Default: off.
    pub fn compress_from(mut self, bytes: usize) -> Self {
        self.options.compress_from = Some(bytes);
        self
    }

    /// Which queue messages go to. Default: one after the other.
    pub fn selector(mut self, selector: QueueSelector) -> Self {
        self.options.selector = selector;
        self
    }

    /// Avoids brokers for a while that answer slowly (RocketMQ's `sendLatencyFaultEnable`); those
    /// that fail are always avoided. Default: off.
    pub fn latency_fault_tolerance(mut self, enable: bool) -> Self {
        self.mind_latency = enable;
        self
    }

    /// Whether submitted messages may use produce streams, where the server has them. Default: on.
    pub fn streamed(mut self, streamed: bool) -> Self {
        self.streamed = streamed;
        self
    }

    /// What messages carry for those who trace them on.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.options.propagation = Some(propagation);
        self
    }

    /// Says how the transaction of a message ended, when the cluster asks because it was left open.
    /// It may be asked about one message several times, and by a process that did not send it.
    pub fn checker<F>(mut self, checker: impl Fn(MessageView) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Resolution> + Send + 'static,
    {
        self.checker = Some(Arc::new(move |message| Box::pin(checker(message))));
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// When a setting makes no sense, a topic does not exist, or no access point answers.
    pub async fn build(self) -> Result<Producer, Error> {
        if self.max_messages == 0 || self.max_bytes == 0 {
            return Err(ConfigError::Zero { setting: "a bound of the producer" }.into());
        }
        let role = Role::Producer { topics: self.topics, attempts: self.options.attempts };
        let (client, orphans) = Client::start(self.config, role, self.mind_latency).await?;
        tokio::spawn(transaction::answer(Arc::clone(&client), self.checker, orphans));
        let courier = Arc::new(Courier { client, streams: Streams::default() });
        let batcher = Batcher::start(
            Arc::clone(&courier),
            self.options.attempts,
            self.streamed,
            self.max_messages,
            self.max_bytes,
        );
        Ok(Producer::of(Inner::new(courier, batcher, self.options)))
    }
}

impl std::fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("config", &self.config)
            .field("options", &self.options)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}
