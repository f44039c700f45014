//! How things stand when a page is asked for, under the names that RocketMQ 5 has for it.

use std::{collections::BTreeMap, fmt::Debug, hash::Hash, iter::once, sync::atomic::AtomicI64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use proto::{ConsumerGroup, Topic};

use super::{
    label::Name,
    rocketmq::{Base, GRPC, NOT_SYSTEM, OfTopic},
};

/// What a consumer group has before it in a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// In nobody's hands.
    pub ready: u64,
    /// Handed out and neither acknowledged nor due again.
    pub in_flight: u64,
    /// Age in ms of the oldest message that is not consumed.
    pub latency_ms: u64,
    /// Age in ms of the oldest message that was never handed out.
    pub queueing_ms: u64,
}

/// A kind of client, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// The language of its library.
    pub language: String,
    /// The library's version.
    pub version: String,
}

/// How things stand in the broker group. Only the leader tells, so that nothing is counted twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Topics.
    pub topics: u64,
    /// Consumer groups.
    pub consumer_groups: u64,
    /// Where each group stands in each topic.
    pub lags: BTreeMap<(ConsumerGroup, Topic), Lag>,
    /// Messages ever given up, by the dead-letter topic that they are in.
    pub dead_letters: BTreeMap<(ConsumerGroup, Topic), u64>,
    /// Half messages that are neither committed nor rolled back.
    pub half_messages: BTreeMap<Topic, u64>,
    /// Delayed messages that wait.
    pub timing_messages: BTreeMap<Topic, u64>,
    /// Ms by which the next delayed message is late.
    pub timer_late_ms: u64,
    /// Producers.
    pub producers: BTreeMap<Program, u64>,
    /// Consumers: group, how they consume, program.
    pub consumers: BTreeMap<(ConsumerGroup, &'static str, Program), u64>,
}

/// What this node holds on its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Storage {
    /// Bytes of the log.
    pub(super) bytes: u64,
    /// Ms since the oldest segment that is kept began.
    pub(super) reserve_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Consuming {
    consumer_group: Name<ConsumerGroup>,
    topic: Name<Topic>,
    is_retry: &'static str,
    is_system: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GivenUp {
    consumer_group: Name<ConsumerGroup>,
    topic: Name<Topic>,
    is_system: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Producer {
    language: String,
    version: String,
    protocol_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Consumer {
    consumer_group: Name<ConsumerGroup>,
    language: String,
    version: String,
    consume_mode: &'static str,
    protocol_type: &'static str,
    is_system: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Medium {
    storage_type: &'static str,
    storage_medium: &'static str,
}

/// One gauge with its rows.
fn gauge<L>(registry: &mut Registry, name: &str, help: &str, rows: impl Iterator<Item = (L, u64)>)
where
    L: EncodeLabelSet + Clone + Hash + Eq + Send + Sync + Debug + 'static,
{
    let family = Family::<L, Gauge<i64, AtomicI64>>::default();
    for (labels, value) in rows {
        family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    registry.register(name, help, family);
}

/// A gauge of one value.
fn plain(registry: &mut Registry, name: &str, help: &str, value: u64) {
    gauge(registry, name, help, once(([("", ""); 0], value)));
}

fn by_topic(counts: &BTreeMap<Topic, u64>) -> impl Iterator<Item = (OfTopic, u64)> {
    counts.iter().map(|(topic, count)| (OfTopic { topic: Name(topic.clone()) }, *count))
}

impl Standing {
    pub(super) fn registry(&self, base: &Base) -> Registry {
        let mut registry = base.registry();
        self.consuming(&mut registry);
        self.connected(&mut registry);
        plain(&mut registry, "topic_number", "Topics", self.topics);
        plain(&mut registry, "consumer_group_number", "Consumer groups", self.consumer_groups);
        let help = "Transactions that have not ended";
        gauge(&mut registry, "half_messages", help, by_topic(&self.half_messages));
        let help = "Delayed messages that wait";
        gauge(&mut registry, "timing_messages", help, by_topic(&self.timing_messages));
        let help = "Ms by which the next delayed message is late";
        plain(&mut registry, "timer_dequeue_latency", help, self.timer_late_ms);
        registry
    }

    fn consuming(&self, registry: &mut Registry) {
        let rows = |value: fn(&Lag) -> u64| {
            self.lags.iter().map(move |((group, topic), lag)| {
                let labels = Consuming {
                    consumer_group: Name(group.clone()),
                    topic: Name(topic.clone()),
                    is_retry: "false",
                    is_system: NOT_SYSTEM,
                };
                (labels, value(lag))
            })
        };
        let help = "Messages that are not consumed";
        gauge(registry, "consumer_lag_messages", help, rows(|lag| lag.ready + lag.in_flight));
        let help = "Age in ms of the oldest message that is not consumed";
        gauge(registry, "consumer_lag_latency", help, rows(|lag| lag.latency_ms));
        let help = "Messages handed out and not acknowledged";
        gauge(registry, "consumer_inflight_messages", help, rows(|lag| lag.in_flight));
        let help = "Messages in nobody's hands";
        gauge(registry, "consumer_ready_messages", help, rows(|lag| lag.ready));
        let help = "Age in ms of the oldest message that was never handed out";
        gauge(registry, "consumer_queueing_latency", help, rows(|lag| lag.queueing_ms));
        let given_up = Family::<GivenUp, Counter>::default();
        for ((group, topic), messages) in &self.dead_letters {
            let labels = GivenUp {
                consumer_group: Name(group.clone()),
                topic: Name(topic.clone()),
                is_system: NOT_SYSTEM,
            };
            given_up.get_or_create(&labels).inc_by(*messages);
        }
        registry.register("send_to_dlq_messages", "Messages given up", given_up);
    }

    fn connected(&self, registry: &mut Registry) {
        let producers = self.producers.iter().map(|(program, count)| {
            let Program { language, version } = program.clone();
            (Producer { language, version, protocol_type: GRPC }, *count)
        });
        gauge(registry, "producer_connections", "Connected producers", producers);
        let consumers = self.consumers.iter().map(|((group, mode, program), count)| {
            let Program { language, version } = program.clone();
            let labels = Consumer {
                consumer_group: Name(group.clone()),
                language,
                version,
                consume_mode: mode,
                protocol_type: GRPC,
                is_system: NOT_SYSTEM,
            };
            (labels, *count)
        });
        gauge(registry, "consumer_connections", "Connected consumers", consumers);
    }
}

impl Storage {
    pub(super) fn registry(self, base: &Base) -> Registry {
        let mut registry = base.registry();
        let medium = Medium { storage_type: "local", storage_medium: "disk" };
        let one = |value| once((medium.clone(), value));
        gauge(&mut registry, "storage_size", "Bytes of the log on this node", one(self.bytes));
        let help = "Ms since the oldest file that is kept was begun";
        gauge(&mut registry, "storage_message_reserve_time", help, one(self.reserve_ms));
        registry
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    fn page(standing: &Standing) -> String {
        let base = Base { cluster: "c".into(), node_id: "broker-a".into() };
        let mut page = String::new();
        text::encode_registry(&mut page, &standing.registry(&base)).unwrap();
        page
    }

    #[test]
    fn a_lag_is_what_is_ready_and_what_is_in_flight() {
        let place = ("g".parse().unwrap(), "t".parse().unwrap());
        let lag = Lag { ready: 3, in_flight: 2, latency_ms: 900, queueing_ms: 400 };
        let page = page(&Standing { lags: [(place, lag)].into(), ..Standing::default() });
        let labels = "cluster=\"c\",node_type=\"broker\",node_id=\"broker-a\",\
                      consumer_group=\"g\",topic=\"t\",is_retry=\"false\",is_system=\"false\"";
        for (name, value) in [
            ("consumer_lag_messages", 5),
            ("consumer_ready_messages", 3),
            ("consumer_inflight_messages", 2),
            ("consumer_lag_latency", 900),
            ("consumer_queueing_latency", 400),
        ] {
            let line = format!("rocketmq_{name}{{{labels}}} {value}");
            assert!(page.contains(&line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn dead_letters_are_a_counter() {
        let place = ("g".parse().unwrap(), "%DLQ%g".parse().unwrap());
        let page = page(&Standing { dead_letters: [(place, 7)].into(), ..Standing::default() });
        assert!(page.contains("rocketmq_send_to_dlq_messages_total{"), "{page}");
        assert!(page.contains("topic=\"%DLQ%g\",is_system=\"false\"} 7"), "{page}");
    }
}
