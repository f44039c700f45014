//! What is counted and timed, one function an event: here under the product's own names, in
//! [`rocketmq`] and [`standing`] under those that it has in RocketMQ.

mod label;
pub mod rates;
mod rocketmq;
mod standing;

use std::{
    fmt,
    ops::Range,
    sync::{Mutex, atomic::AtomicI64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use proto::{ConsumerGroup, Timestamp, Topic, v2::MessageType};
use raft::Upkeep;

use self::{rocketmq::Events, standing::Storage};
use crate::{
    command::{RecallOutcome, Verdict},
    state::{Kept, Unresolved},
};

pub use self::{
    rates::{Flow, Rates, Tally, Windows},
    rocketmq::Base,
    standing::{Lag, Program, Standing},
};

/// RPCs that are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rpc {
    /// SendMessage.
    Send,
    /// ReceiveMessage; the time of a wait for messages is part of it.
    Receive,
    /// AckMessage.
    Ack,
    /// ChangeInvisibleDuration.
    ChangeInvisible,
    /// ForwardMessageToDeadLetterQueue.
    ForwardToDeadLetterQueue,
    /// PullMessage; the time of a wait for messages is part of it.
    Pull,
    /// UpdateOffset.
    UpdateOffset,
    /// EndTransaction.
    EndTransaction,
    /// RecallMessage.
    Recall,
    /// Our own QueryMessages, answered by this node.
    Query,
}

impl Rpc {
    fn name(self) -> &'static str {
        match self {
            Rpc::Send => "send",
            Rpc::Receive => "receive",
            Rpc::Ack => "ack",
            Rpc::ChangeInvisible => "change_invisible",
            Rpc::ForwardToDeadLetterQueue => "forward_to_dead_letter_queue",
            Rpc::Pull => "pull",
            Rpc::UpdateOffset => "update_offset",
            Rpc::EndTransaction => "end_transaction",
            Rpc::Recall => "recall",
            Rpc::Query => "query",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    rpc: &'static str,
    code: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    rpc: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecallLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

/// Where a gauge gets its value from.
type Source = fn(&Sample) -> u64;
/// Where a counter gets its value from that others keep.
type Sum = fn(&Sample) -> u64;
/// A histogram for each RPC.
type Seconds = Family<Labels, Histogram, fn() -> Histogram>;

/// Positions and counts that are read when a page is asked for.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Role's name.
    pub role: &'static str,
    /// Raft term.
    pub term: u64,
    /// Last purged index.
    pub purged: u64,
    /// Last applied index.
    pub applied: u64,
    /// Last committed index.
    pub committed: u64,
    /// Last index.
    pub last: u64,
    /// Receive calls that wait.
    pub long_polls: usize,
    /// Clients registered.
    pub clients: usize,
    /// Bytes of sends in progress.
    pub send_bytes: usize,
    /// Transactions that have not ended.
    pub transactions: Unresolved,
    /// Delayed messages that wait.
    pub timers: u64,
    /// How much of the log is kept.
    pub kept: Kept,
    /// Where the log begins and ends on this node.
    pub log: Range<u64>,
    /// Milliseconds since the oldest segment that is kept began.
    pub oldest_ms: u64,
    /// Of the node's disk, in use.
    pub disk_percent: u64,
    /// Calls of clients that were sent on to other nodes.
    pub forwarded: u64,
    /// What the node did to stay whole.
    pub upkeep: Upkeep,
    /// Of the fullest disk of all replicas, in use.
    pub fullest_disk_percent: u64,
    /// Replicas whose disk is above the bound from which on old messages go.
    pub short_replicas: u64,
    /// The group's feature level.
    pub feature_level: u64,
}

/// The node's metrics. Cheap to update from many threads.
pub struct Metrics {
    registry: Mutex<Registry>,
    rates: Rates,
    rocketmq: Events,
    calls: Family<Call, Counter>,
    seconds: Seconds,
    sent_messages: Counter,
    sent_bytes: Counter,
    delivered_messages: Counter,
    delivered_bytes: Counter,
    redelivered_messages: Counter,
    acked_messages: Counter,
    undeliverable_messages: Counter,
    transaction_checks: Counter,
    transactions_ended: Family<VerdictLabel, Counter>,
    timer_lateness: Histogram,
    recalls: Family<RecallLabel, Counter>,
    role: Family<RoleLabel, Gauge>,
    gauges: Vec<(Source, Gauge<i64, AtomicI64>)>,
    sums: Vec<(Sum, Counter)>,
}

/// 0.25 ms to 16 s in powers of two: finer than a disk's sync, longer than most long polls.
fn latency_buckets() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.000_25, 2.0, 17))
}

/// 1 ms to 65 s in powers of two; what is on time counts as 1 ms.
fn lateness_buckets() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 17))
}

const ROLES: [&str; 4] = ["leader", "follower", "learner", "candidate"];

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Name, help and source of each plain gauge.
const GAUGES: [(&str, &str, Source); 24] = [
    ("raft_term", "Raft term", |s| s.term),
    ("raft_purged_index", "Last index purged from the log", |s| s.purged),
    ("raft_applied_index", "Last index applied to the state", |s| s.applied),
    ("raft_committed_index", "Last index known to be committed", |s| s.committed),
    ("raft_last_index", "Last index in the log", |s| s.last),
    ("long_polls", "Receive calls that wait for messages", |s| count(s.long_polls)),
    ("clients", "Clients registered with this node", |s| count(s.clients)),
    ("transactions_pending", "Transactions that producers may still end", |s| {
        count(s.transactions.pending)
    }),
    ("timers_pending", "Delayed messages that wait for their time", |s| s.timers),
    ("transactions_parked", "Transactions given up, left to an administrator", |s| {
        count(s.transactions.parked)
    }),
    ("log_start_offset", "Where the log begins on this node", |s| s.log.start),
    ("log_end_offset", "Where it ends", |s| s.log.end),
    ("log_floor_offset", "Nothing that is kept lies below", |s| s.kept.floor.0),
    ("log_retained_bytes", "Bytes of the log on this node", |s| s.log.end - s.log.start),
    ("log_live_bytes", "Bytes of messages that are kept", |s| s.kept.bytes),
    ("log_carried_bytes", "Bytes of messages stored again so that old files can go", |s| {
        s.kept.carried_bytes
    }),
    ("log_oldest_seconds", "Since the oldest file that is needed was begun", |s| {
        s.oldest_ms / 1000
    }),
    ("disk_used_percent", "Of the fullest file system that the node uses", |s| s.disk_percent),
    ("snapshot_made_milliseconds", "What the last snapshot of this node's took", |s| {
        s.upkeep.snapshot_made_ms
    }),
    ("snapshot_installed_milliseconds", "What installing the last one took", |s| {
        s.upkeep.snapshot_installed_ms
    }),
    ("replica_disk_used_percent", "Of the fullest disk of all replicas", |s| {
        s.fullest_disk_percent
    }),
    ("replicas_short_of_disk", "Replicas whose disk is above log.disk_high", |s| s.short_replicas),
    ("feature_level", "Commands that the group may use", |s| s.feature_level),
    ("send_bytes_in_progress", "Bytes of sends in progress", |s| count(s.send_bytes)),
];

/// Name, help and source of each counter that others keep.
const SUMS: [(&str, &str, Sum); 10] = [
    ("snapshots_made", "Snapshots of this node's state", |s| s.upkeep.snapshots_made),
    ("snapshots_sent", "Snapshots that other replicas got from here", |s| s.upkeep.snapshots_sent),
    ("snapshot_sent_bytes", "Bytes that went to them", |s| s.upkeep.snapshot_sent_bytes),
    ("snapshot_spared_bytes", "Bytes that they had already", |s| s.upkeep.snapshot_spared_bytes),
    ("snapshots_installed", "Snapshots of other replicas that were installed here", |s| {
        s.upkeep.snapshots_installed
    }),
    ("scrubbed_bytes", "Bytes that were read again in search of damage", |s| {
        s.upkeep.scrubbed_bytes
    }),
    ("scrub_rounds", "How often everything was read again", |s| s.upkeep.scrub_rounds),
    ("damage_found", "Places on the disk that were not what had been written", |s| {
        s.upkeep.damage_found
    }),
    ("damage_repaired", "What is whole again", |s| s.upkeep.damage_repaired),
    ("forwarded_calls", "Calls of clients that were sent on to other nodes", |s| s.forwarded),
];

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new(Base::default())
    }
}

impl Metrics {
    /// All zero.
    pub fn new(base: Base) -> Self {
        let mut registry = base.prefixed("raftmq");
        let calls = Family::default();
        registry.register("calls", "RPCs answered, by RocketMQ status code", calls.clone());
        let seconds: Seconds = Family::new_with_constructor(latency_buckets);
        registry.register("call_seconds", "Time until the answer", seconds.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let sent_messages = counter("sent_messages", "Messages stored");
        let sent_bytes = counter("sent_bytes", "Bytes of messages stored, as received");
        let delivered_messages = counter("delivered_messages", "Messages handed to consumers");
        let delivered_bytes = counter("delivered_bytes", "Bytes of messages handed to consumers");
        let redelivered_messages = counter("redelivered_messages", "Deliveries after the first");
        let acked_messages = counter("acked_messages", "Deliveries acknowledged");
        let undeliverable_messages =
            counter("undelivered_messages", "Deliveries given back: the consumer was gone");
        let transaction_checks =
            counter("transaction_checks", "Questions about transactions handed to producers");
        let timer_lateness = lateness_buckets();
        let help = "Seconds of log time from when a delayed message was due until it was visible";
        registry.register("timer_lateness_seconds", help, timer_lateness.clone());
        let recalls = Family::default();
        registry.register("recalls", "Recalls of delayed messages, by outcome", recalls.clone());
        let transactions_ended = Family::default();
        let help = "Transactions ended, by verdict";
        registry.register("transactions_ended", help, transactions_ended.clone());
        let role = Family::<RoleLabel, Gauge>::default();
        registry.register("raft_role", "1 for the role of this node", role.clone());
        let gauges = GAUGES
            .iter()
            .map(|(name, help, source)| {
                let gauge = Gauge::<i64, AtomicI64>::default();
                registry.register(*name, *help, gauge.clone());
                (*source, gauge)
            })
            .collect();
        let sums = SUMS
            .iter()
            .map(|(name, help, source)| {
                let counter = Counter::default();
                registry.register(*name, *help, counter.clone());
                (*source, counter)
            })
            .collect();
        Metrics {
            registry: Mutex::new(registry),
            rates: Rates::default(),
            rocketmq: Events::new(base),
            calls,
            seconds,
            sent_messages,
            sent_bytes,
            delivered_messages,
            delivered_bytes,
            redelivered_messages,
            acked_messages,
            undeliverable_messages,
            transaction_checks,
            transactions_ended,
            timer_lateness,
            recalls,
            role,
            gauges,
            sums,
        }
    }

    /// An RPC was answered with this payload status code (0: handed back to the gateway).
    pub fn answered(&self, rpc: Rpc, code: i32, took: Duration) {
        self.calls.get_or_create(&Call { rpc: rpc.name(), code }).inc();
        self.seconds.get_or_create(&Labels { rpc: rpc.name() }).observe(took.as_secs_f64());
        self.rocketmq.answered(rpc, code, took);
    }

    /// Messages of one call were stored: bytes of all as received, and of each body.
    pub fn sent(
        &self,
        (topic, kind): (&Topic, MessageType),
        bytes: usize,
        bodies: impl ExactSizeIterator<Item = usize>,
    ) {
        self.sent_messages.inc_by(count(bodies.len()));
        self.sent_bytes.inc_by(count(bytes));
        self.rates.sent(topic, Tally { messages: count(bodies.len()), bytes: count(bytes) });
        self.rocketmq.sent((topic, kind), bytes, bodies);
    }

    /// A message with a body of so many bytes was handed to a consumer for the `attempt`th time.
    pub fn delivered(&self, place: (&ConsumerGroup, &Topic), bytes: usize, attempt: u32) {
        self.delivered_messages.inc();
        self.delivered_bytes.inc_by(count(bytes));
        if attempt > 1 {
            self.redelivered_messages.inc();
        }
        self.rates.delivered(place, Tally { messages: 1, bytes: count(bytes) });
        self.rocketmq.delivered(place, bytes, attempt > 1);
    }

    /// How much passes.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// A message was stored that is to wait for so long.
    pub fn delayed(&self, topic: &Topic, delay: Duration) {
        self.rocketmq.delayed(topic, delay);
    }

    /// Deliveries were acknowledged.
    pub fn acked(&self, deliveries: usize) {
        self.acked_messages.inc_by(count(deliveries));
    }

    /// Deliveries could not be written to the consumer.
    pub fn undelivered(&self, deliveries: usize) {
        self.undeliverable_messages.inc_by(count(deliveries));
    }

    /// A delayed message entered its queue so long after its time.
    pub fn fired(&self, late: Duration) {
        self.timer_lateness.observe(late.as_secs_f64());
    }

    /// A recall ended.
    pub fn recalled(&self, outcome: RecallOutcome) {
        let outcome = match outcome {
            RecallOutcome::Done => "done",
            RecallOutcome::Delivered => "delivered",
            RecallOutcome::Unknown => "unknown",
        };
        self.recalls.get_or_create(&RecallLabel { outcome }).inc();
    }

    /// Producers were asked about so many transactions.
    pub fn transactions_checked(&self, transactions: usize) {
        self.transaction_checks.inc_by(count(transactions));
    }

    /// A transaction of this topic that began at `born` ended `now`.
    pub fn transaction_ended(
        &self,
        topic: &Topic,
        verdict: Verdict,
        (born, now): (Timestamp, Timestamp),
    ) {
        let label = match verdict {
            Verdict::Commit => "commit",
            Verdict::Rollback => "rollback",
        };
        self.transactions_ended.get_or_create(&VerdictLabel { verdict: label }).inc();
        self.rocketmq.transaction_ended(topic, verdict, (born, now));
    }

    /// Prometheus text with `sample` as of now, and how things stand where this node leads.
    pub fn text(&self, sample: &Sample, standing: Option<&Standing>) -> String {
        for role in ROLES {
            let gauge = self.role.get_or_create(&RoleLabel { role });
            gauge.set(i64::from(role == sample.role));
        }
        for (source, gauge) in &self.gauges {
            gauge.set(i64::try_from(source(sample)).unwrap_or(i64::MAX));
        }
        for (source, counter) in &self.sums {
            // They grow, and pages are asked for one after the other.
            let more = source(sample).saturating_sub(counter.get());
            counter.inc_by(more);
        }
        let mut page = String::new();
        let registry = self.registry.lock().expect("no holder panics");
        let storage =
            Storage { bytes: sample.log.end - sample.log.start, reserve_ms: sample.oldest_ms };
        text::encode_registry(&mut page, &registry)
            .and_then(|()| self.rocketmq.write(&mut page, storage, standing))
            .and_then(|()| text::encode_eof(&mut page))
            .expect("a String takes any text");
        page
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_was_counted() {
        let base = Base { cluster: "c".into(), node_id: "broker-a".into() };
        let (metrics, topic) = (Metrics::new(base), "t".parse().unwrap());
        metrics.answered(Rpc::Send, 20_000, Duration::from_millis(3));
        metrics.sent((&topic, MessageType::Fifo), 2048, [1000, 24].into_iter());
        metrics.delivered((&"g".parse().unwrap(), &topic), 1024, 2);
        let sample = Sample { role: "leader", term: 7, ..Sample::default() };
        let page = metrics.text(&sample, None);
        let node = "cluster=\"c\",node_type=\"broker\",node_id=\"broker-a\"";
        let base = format!("{node},topic=\"t\"");
        let into = format!("{base},message_type=\"fifo\",is_system=\"false\"");
        let out = "consumer_group=\"g\",is_retry=\"true\",is_system=\"false\"";
        for line in [
            format!("rocketmq_messages_in_total{{{into}}} 2"),
            format!("rocketmq_throughput_in_total{{{into}}} 2048"),
            format!("rocketmq_messages_out_total{{{base},{out}}} 1"),
            format!("rocketmq_throughput_out_total{{{base},{out}}} 1024"),
        ] {
            assert!(page.contains(&line), "{line} is missing in\n{page}");
        }
        assert_eq!(page.matches("# EOF").count(), 1, "{page}");
        for line in [
            "raftmq_calls_total{BASE,rpc=\"send\",code=\"20000\"} 1",
            "raftmq_sent_messages_total{BASE} 2",
            "raftmq_sent_bytes_total{BASE} 2048",
            "raftmq_redelivered_messages_total{BASE} 1",
            "raftmq_raft_role{BASE,role=\"leader\"} 1",
            "raftmq_raft_role{BASE,role=\"follower\"} 0",
            "raftmq_raft_term{BASE} 7",
        ] {
            let line = line.replace("BASE", node);
            assert!(page.contains(&line), "{line} is missing in\n{page}");
        }
    }
}
