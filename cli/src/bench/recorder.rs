//! Counts what happened within the measured time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// From when to when things count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Window {
    fn holds(&self, time: Instant) -> bool {
        self.from <= time && time < self.to
    }

    pub(super) fn length(&self) -> Duration {
        self.to - self.from
    }
}

/// Latencies with three significant figures. Longer ones than a minute count as a minute.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

const LONGEST: Duration = Duration::from_secs(60);

impl Latencies {
    pub(super) fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).expect("a minute fits");
        Self(Histogram::new_with_bounds(1000, longest, 3).expect("constant bounds are valid"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// `None` when nothing was recorded.
    pub(super) fn summary(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| milliseconds(self.0.value_at_quantile(quantile));
        Some(Percentiles {
            samples: self.0.len(),
            mean_ms: self.0.mean() / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(self.0.max()),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a minute of nanoseconds is exact in a double")]
fn milliseconds(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// What a set of latencies looks like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) samples: u64,
    pub(super) mean_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

/// One kind of request: sends, receives or acknowledgements.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    window: Window,
    latencies: Latencies,
    requests: u64,
    messages: u64,
    failures: BTreeMap<String, u64>,
    last_success: Option<Instant>,
    longest_gap: Duration,
    /// Messages of all successes, counted or not.
    total: u64,
}

impl Recorder {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            latencies: Latencies::new(),
            requests: 0,
            messages: 0,
            failures: BTreeMap::new(),
            last_success: None,
            longest_gap: Duration::ZERO,
            total: 0,
        }
    }

    /// A request that was due at one time and ended well at another.
    ///
    /// Latencies belong to what was due within the window, even if it ended after it: else the
    /// slowest would be missing. Throughput belongs to what ended within it.
    pub(super) fn success(&mut self, due: Instant, ended: Instant, messages: u64) {
        self.total += messages;
        if self.window.holds(due) {
            self.latencies.record(ended.saturating_duration_since(due));
        }
        if self.window.holds(ended) {
            self.requests += 1;
            self.messages += messages;
            self.close_gap(ended);
        }
    }

    /// A request that was due at some time and failed, with the name of its failure.
    pub(super) fn failure(&mut self, due: Instant, what: &str) {
        if self.window.holds(due) {
            *self.failures.entry(what.to_owned()).or_default() += 1;
        }
    }

    fn close_gap(&mut self, ended: Instant) {
        let since = self.last_success.unwrap_or(self.window.from);
        self.longest_gap = self.longest_gap.max(ended.saturating_duration_since(since));
        self.last_success = Some(ended.max(since));
    }

    /// Messages of all successes, those outside the window too.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn summary(&self) -> Summary {
        let seconds = self.window.length().as_secs_f64();
        let tail =
            self.window.to.saturating_duration_since(self.last_success.unwrap_or(self.window.from));
        Summary {
            seconds,
            requests: self.requests,
            messages: self.messages,
            messages_per_second: per_second(self.messages, seconds),
            latency: self.latencies.summary(),
            failures: self.failures.clone(),
            longest_gap_ms: self.longest_gap.max(tail).as_secs_f64() * 1e3,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// What one kind of request came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) seconds: f64,
    pub(super) requests: u64,
    pub(super) messages: u64,
    pub(super) messages_per_second: f64,
    pub(super) latency: Option<Percentiles>,
    /// Failed requests by the name of their failure.
    pub(super) failures: BTreeMap<String, u64>,
    /// The longest time without a success.
    pub(super) longest_gap_ms: f64,
}

impl Summary {
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn window() -> (Instant, Recorder) {
        let start = Instant::now();
        (start, Recorder::new(Window { from: start + ms(1000), to: start + ms(3000) }))
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let (start, mut recorder) = window();
        recorder.success(start, start + ms(10), 1);
        recorder.failure(start, "X");
        let summary = recorder.summary();
        assert_eq!((summary.messages, summary.latency, summary.failed()), (0, None, 0));
        assert_eq!(recorder.total(), 1);
    }

    #[test]
    fn throughput_is_what_ended_within_the_window() {
        let (start, mut recorder) = window();
        // Due before, ended within; then due within, ended after.
        recorder.success(start + ms(990), start + ms(1010), 5);
        recorder.success(start + ms(2990), start + ms(3010), 7);
        recorder.success(start + ms(2000), start + ms(2010), 3);
        let summary = recorder.summary();
        assert_eq!((summary.messages, summary.requests), (8, 2));
        assert!((summary.messages_per_second - 4.0).abs() < 1e-9);
    }

    #[test]
    fn the_latency_of_what_ended_too_late_still_counts() {
        let (start, mut recorder) = window();
        recorder.success(start + ms(2990), start + ms(4990), 1);
        let latency = recorder.summary().latency.unwrap();
        assert_eq!(latency.samples, 1);
        assert!((latency.max_ms - 2000.0).abs() < 2.0, "{latency:?}");
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.summary(), None);
        (1..=1000).for_each(|n| latencies.record(ms(n)));
        let found = latencies.summary().unwrap();
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected * 0.001;
        assert!(near(found.p50_ms, 500.0) && near(found.p90_ms, 900.0), "{found:?}");
        assert!(near(found.p99_ms, 990.0) && near(found.p999_ms, 999.0), "{found:?}");
        assert!(near(found.max_ms, 1000.0) && near(found.mean_ms, 500.5), "{found:?}");
        latencies.record(Duration::from_secs(3600));
        assert!(near(latencies.summary().unwrap().max_ms, 60_000.0));
    }

    #[test]
    fn the_longest_gap_reaches_from_edge_to_edge() {
        let (start, mut recorder) = window();
        assert!((recorder.summary().longest_gap_ms - 2000.0).abs() < 1e-6);
        for at in [1100, 1200, 1900, 2500] {
            recorder.success(start + ms(at), start + ms(at), 1);
        }
        assert!((recorder.summary().longest_gap_ms - 700.0).abs() < 1e-6);
    }

    #[test]
    fn failures_are_counted_by_name() {
        let (start, mut recorder) = window();
        for name in ["A", "B", "A"] {
            recorder.failure(start + ms(1500), name);
        }
        let failures = recorder.summary().failures;
        assert_eq!(failures, BTreeMap::from([("A".into(), 2), ("B".into(), 1)]));
    }
}
