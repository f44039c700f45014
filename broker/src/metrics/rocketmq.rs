//! What happens, under the names and labels that it has in RocketMQ 5.

use std::{fmt, sync::Mutex, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use proto::{ConsumerGroup, Timestamp, Topic, v2::MessageType};

use super::{
    Rpc, count,
    label::Name,
    standing::{Standing, Storage},
};
use crate::command::Verdict;

/// Every label that says whether a topic or group is one of the server's own: there are none.
pub(super) const NOT_SYSTEM: &str = "false";
pub(super) const GRPC: &str = "grpc";

/// What tells this node's figures from those of others.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// The cluster's name.
    pub cluster: String,
    /// The broker group's name, as in RocketMQ.
    pub node_id: String,
}

impl Base {
    /// An empty registry for RocketMQ's names.
    pub(super) fn registry(&self) -> Registry {
        self.prefixed("rocketmq")
    }

    /// An empty registry whose figures carry these labels.
    pub(super) fn prefixed(&self, prefix: &str) -> Registry {
        let labels = [
            ("cluster", self.cluster.clone()),
            ("node_type", "broker".to_owned()),
            ("node_id", self.node_id.clone()),
        ];
        let labels = labels.map(|(name, value)| (name.into(), value.into()));
        Registry::with_prefix_and_labels(prefix, labels.into_iter())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Incoming {
    topic: Name<Topic>,
    message_type: &'static str,
    is_system: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outgoing {
    topic: Name<Topic>,
    consumer_group: Name<ConsumerGroup>,
    is_retry: &'static str,
    is_system: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfTopic {
    pub(super) topic: Name<Topic>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    protocol_type: &'static str,
    request_code: &'static str,
    response_code: i32,
    is_long_polling: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Counted as it happens on this node.
pub(super) struct Events {
    base: Base,
    registry: Mutex<Registry>,
    messages_in: Family<Incoming, Counter>,
    bytes_in: Family<Incoming, Counter>,
    sizes: Histograms<Incoming>,
    messages_out: Family<Outgoing, Counter>,
    bytes_out: Family<Outgoing, Counter>,
    commits: Family<OfTopic, Counter>,
    rollbacks: Family<OfTopic, Counter>,
    finish_latency: Histograms<OfTopic>,
    delays: Histograms<OfTopic>,
    timers_in: Family<OfTopic, Counter>,
    latency: Histograms<Call>,
}

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;
const HOUR: f64 = 3600.0;

fn sizes() -> Histogram {
    Histogram::new([KIB, 4.0 * KIB, 512.0 * KIB, MIB, 2.0 * MIB, 4.0 * MIB])
}

/// Seconds.
fn finish_latency() -> Histogram {
    Histogram::new([5.0, 60.0, 600.0, HOUR, 12.0 * HOUR, 24.0 * HOUR])
}

/// Seconds.
fn delays() -> Histogram {
    Histogram::new([60.0, 600.0, HOUR, 12.0 * HOUR, 24.0 * HOUR, 72.0 * HOUR])
}

/// Milliseconds.
fn latency() -> Histogram {
    Histogram::new([1.0, 3.0, 5.0, 7.0, 10.0, 100.0, 1000.0, 2000.0, 3000.0])
}

fn message_type(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Fifo => "fifo",
        MessageType::Delay => "delay",
        MessageType::Transaction => "transaction",
        MessageType::Normal
        | MessageType::Unspecified
        | MessageType::Lite
        | MessageType::Priority => "normal",
    }
}

impl Events {
    pub(super) fn new(base: Base) -> Self {
        let mut registry = base.registry();
        let (messages_in, bytes_in) = (Family::default(), Family::default());
        registry.register("messages_in", "Messages stored", messages_in.clone());
        registry.register("throughput_in", "Their bytes, as received", bytes_in.clone());
        let (messages_out, bytes_out) = (Family::default(), Family::default());
        registry.register("messages_out", "Messages handed out", messages_out.clone());
        registry.register("throughput_out", "Bytes of their bodies", bytes_out.clone());
        let (commits, rollbacks) = (Family::default(), Family::default());
        registry.register("commit_messages", "Transactions committed", commits.clone());
        registry.register("rollback_messages", "Transactions rolled back", rollbacks.clone());
        let timers_in = Family::default();
        registry.register("timer_enqueue", "Delayed messages stored", timers_in.clone());
        let sizes = Histograms::new_with_constructor(sizes as fn() -> Histogram);
        registry.register("message_size", "Bytes of bodies", sizes.clone());
        let finish_latency = Histograms::new_with_constructor(finish_latency as fn() -> Histogram);
        let help = "Seconds from a half message until its transaction was committed";
        registry.register("finish_message_latency", help, finish_latency.clone());
        let delays = Histograms::new_with_constructor(delays as fn() -> Histogram);
        let help = "Seconds that messages were asked to wait";
        registry.register("delay_message_latency", help, delays.clone());
        let latency = Histograms::new_with_constructor(latency as fn() -> Histogram);
        registry.register("rpc_latency", "Milliseconds until the answer", latency.clone());
        Events {
            base,
            registry: Mutex::new(registry),
            messages_in,
            bytes_in,
            sizes,
            messages_out,
            bytes_out,
            commits,
            rollbacks,
            finish_latency,
            delays,
            timers_in,
            latency,
        }
    }

    pub(super) fn answered(&self, rpc: Rpc, code: i32, took: Duration) {
        let waits = matches!(rpc, Rpc::Receive | Rpc::Pull);
        let call = Call {
            protocol_type: GRPC,
            request_code: rpc.name(),
            response_code: code,
            is_long_polling: if waits { "true" } else { "false" },
        };
        self.latency.get_or_create(&call).observe(took.as_secs_f64() * 1000.0);
    }

    pub(super) fn sent(
        &self,
        (topic, kind): (&Topic, MessageType),
        bytes: usize,
        bodies: impl Iterator<Item = usize>,
    ) {
        let incoming = Incoming {
            topic: Name(topic.clone()),
            message_type: message_type(kind),
            is_system: NOT_SYSTEM,
        };
        let mut messages = 0;
        {
            let sizes = self.sizes.get_or_create(&incoming);
            for body in bodies {
                messages += 1;
                sizes.observe(f64::from(u32::try_from(body).unwrap_or(u32::MAX)));
            }
        }
        self.messages_in.get_or_create(&incoming).inc_by(messages);
        self.bytes_in.get_or_create(&incoming).inc_by(count(bytes));
    }

    pub(super) fn delivered(
        &self,
        (group, topic): (&ConsumerGroup, &Topic),
        bytes: usize,
        again: bool,
    ) {
        let outgoing = Outgoing {
            topic: Name(topic.clone()),
            consumer_group: Name(group.clone()),
            is_retry: if again { "true" } else { "false" },
            is_system: NOT_SYSTEM,
        };
        self.messages_out.get_or_create(&outgoing).inc();
        self.bytes_out.get_or_create(&outgoing).inc_by(count(bytes));
    }

    pub(super) fn delayed(&self, topic: &Topic, delay: Duration) {
        let topic = OfTopic { topic: Name(topic.clone()) };
        self.timers_in.get_or_create(&topic).inc();
        self.delays.get_or_create(&topic).observe(delay.as_secs_f64());
    }

    pub(super) fn transaction_ended(
        &self,
        topic: &Topic,
        verdict: Verdict,
        (born, now): (Timestamp, Timestamp),
    ) {
        let topic = OfTopic { topic: Name(topic.clone()) };
        match verdict {
            Verdict::Commit => {
                self.commits.get_or_create(&topic).inc();
                let took = now.since(born).as_secs_f64();
                self.finish_latency.get_or_create(&topic).observe(took);
            }
            Verdict::Rollback => {
                self.rollbacks.get_or_create(&topic).inc();
            }
        }
    }

    /// Adds to a page what happened, and how things stand.
    pub(super) fn write(
        &self,
        page: &mut String,
        storage: Storage,
        standing: Option<&Standing>,
    ) -> fmt::Result {
        let registry = self.registry.lock().expect("no holder panics");
        text::encode_registry(page, &registry)?;
        text::encode_registry(page, &storage.registry(&self.base))?;
        match standing {
            Some(standing) => text::encode_registry(page, &standing.registry(&self.base)),
            None => Ok(()),
        }
    }
}
