//! What a NameServer measures.

use std::sync::Mutex;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Values that are looked up when the page is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) groups: usize,
    pub(crate) leaders: usize,
    pub(crate) nodes: usize,
    pub(crate) topics: usize,
    pub(crate) clients: usize,
    pub(crate) forwarded: u64,
}

/// All metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    taken: Counter,
    refused: Counter,
    groups: Gauge,
    leaders: Gauge,
    nodes: Gauge,
    topics: Gauge,
    clients: Gauge,
    forwarded: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("raftmq_namesrv");
        let (taken, refused) = (Counter::default(), Counter::default());
        let forwarded = Counter::default();
        let help = "Calls of clients that were sent on to brokers";
        registry.register("forwarded_calls", help, forwarded.clone());
        registry.register("reports", "Reports of brokers taken in", taken.clone());
        registry.register("reports_refused", "Reports of brokers refused", refused.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let groups = gauge("groups", "Broker groups with a living node");
        let leaders = gauge("leaders", "Broker groups with a known leader");
        let nodes = gauge("nodes", "Living broker nodes");
        let topics = gauge("topics", "Topics with a route");
        let clients = gauge("clients", "Clients of this access point");
        Self {
            registry: Mutex::new(registry),
            taken,
            refused,
            groups,
            leaders,
            nodes,
            topics,
            clients,
            forwarded,
        }
    }
}

impl Metrics {
    /// A broker reported.
    pub(crate) fn reported(&self, taken: bool) {
        let counter = if taken { &self.taken } else { &self.refused };
        counter.inc();
    }

    /// The page, in the OpenMetrics text format.
    pub(crate) fn page(&self, sample: Sample) -> String {
        let gauges = [
            (&self.groups, sample.groups),
            (&self.leaders, sample.leaders),
            (&self.nodes, sample.nodes),
            (&self.topics, sample.topics),
            (&self.clients, sample.clients),
        ];
        for (gauge, value) in gauges {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let mut page = String::new();
        let registry = self.registry.lock().expect("no holder panics");
        // One page after the other, or it would grow twice.
        self.forwarded.inc_by(sample.forwarded.saturating_sub(self.forwarded.get()));
        encode(&mut page, &registry).expect("a String takes any text");
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_counts_and_samples() {
        let metrics = Metrics::default();
        metrics.reported(true);
        metrics.reported(false);
        let page = metrics.page(Sample { groups: 2, nodes: 5, forwarded: 7, ..Sample::default() });
        for line in [
            "raftmq_namesrv_reports_total 1",
            "raftmq_namesrv_reports_refused_total 1",
            "raftmq_namesrv_groups 2",
            "raftmq_namesrv_nodes 5",
            "raftmq_namesrv_forwarded_calls_total 7",
        ] {
            assert!(page.contains(line), "{line} is missing in {page}");
        }
    }
}
