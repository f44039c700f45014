//! Figures with the conditions under which they were taken, as rows and as JSON.

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    consume::{Ack, ConsumeArgs, Consumed},
    disk::DiskFigure,
    facts::Facts,
    load::LoadArgs,
    produce::Produced,
    recorder::{Percentiles, Summary},
    units::{show_ms, show_size},
};
use crate::output::{Report, Rows};

/// One line of a result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) what: String,
    /// Who was asked.
    pub(super) target: String,
    #[serde(flatten)]
    pub(super) facts: Facts,
    /// Requests under way at once.
    pub(super) in_flight: usize,
    pub(super) connections: usize,
    /// Messages of one request.
    pub(super) batch: usize,
    /// Bytes of one body.
    pub(super) size: usize,
    /// Messages a second that an open loop was to send; `None` for a closed one.
    pub(super) rate: Option<u64>,
    #[serde(flatten)]
    pub(super) summary: Summary,
    /// Sends of an open loop that nobody was free to make.
    pub(super) not_sent: u64,
    /// Whether the latency is all that this says: how often it was taken is not a throughput.
    #[serde(skip)]
    latency_only: bool,
}

impl Figure {
    pub(super) fn of_sends(
        what: &str,
        target: &str,
        facts: &Facts,
        load: &LoadArgs,
        produced: &Produced,
    ) -> Self {
        Self {
            what: what.into(),
            target: target.into(),
            facts: facts.clone(),
            in_flight: load.in_flight,
            connections: load.connections,
            batch: load.batch,
            size: load.size,
            rate: load.rate.map(Into::into),
            summary: produced.sends.clone(),
            not_sent: produced.not_sent,
            latency_only: false,
        }
    }

    /// Receives, and acknowledgements.
    pub(super) fn of_consumption(
        target: &str,
        facts: &Facts,
        load: &LoadArgs,
        args: &ConsumeArgs,
        consumed: &Consumed,
    ) -> [Self; 2] {
        let receive = Self {
            what: "receive".into(),
            target: target.into(),
            facts: facts.clone(),
            in_flight: args.receivers,
            connections: load.connections,
            batch: args.receive_batch,
            size: load.size,
            rate: None,
            summary: consumed.receives.clone(),
            not_sent: 0,
            latency_only: false,
        };
        let (in_flight, batch) = match args.ack {
            Ack::Each => (args.receivers * args.receive_batch, 1),
            Ack::Together => (args.receivers, args.receive_batch),
        };
        let ack = Self {
            what: "ack".into(),
            in_flight,
            batch,
            summary: consumed.acks.clone(),
            ..receive.clone()
        };
        [receive, ack]
    }

    /// A figure that is a latency and nothing else.
    pub(super) fn of_latency(
        what: &str,
        target: &str,
        facts: &Facts,
        load: &LoadArgs,
        latency: Percentiles,
        seconds: f64,
    ) -> Self {
        let summary = Summary {
            seconds,
            requests: latency.samples,
            messages: latency.samples,
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            messages_per_second: latency.samples as f64 / seconds,
            latency: Some(latency),
            failures: [].into(),
            longest_gap_ms: latency.max_ms,
        };
        Self {
            what: what.into(),
            target: target.into(),
            facts: facts.clone(),
            in_flight: 1,
            connections: load.connections,
            batch: 1,
            size: load.size,
            rate: None,
            summary,
            not_sent: 0,
            latency_only: true,
        }
    }

    pub(super) fn per_second(&self) -> f64 {
        self.summary.messages_per_second
    }

    pub(super) fn p50_ms(&self) -> Option<f64> {
        self.summary.latency.map(|latency| latency.p50_ms)
    }
}

/// The figures of one command.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    disk: DiskFigure,
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
    notes: Vec<String>,
}

/// One figure over another, taken in the same run.
#[derive(Clone, Debug, Serialize)]
struct Ratio {
    what: String,
    value: f64,
}

impl Figures {
    pub(super) fn new(disk: DiskFigure) -> Self {
        Self { disk, figures: Vec::new(), ratios: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn push(&mut self, figure: Figure) {
        if figure.not_sent > 0 {
            self.notes.push(format!(
                "{}: {} sends were due that nobody was free to make: the target, or --in-flight {}, \
                 does not carry this rate",
                figure.what, figure.not_sent, figure.in_flight
            ));
        }
        for (failure, count) in &figure.summary.failures {
            self.notes.push(format!("{}: {count} failed with {failure}", figure.what));
        }
        self.figures.push(figure);
    }

    /// Adds a ratio, unless there is nothing to divide by.
    pub(super) fn ratio(&mut self, what: &str, numerator: f64, denominator: f64) {
        if denominator > 0.0 {
            self.ratios.push(Ratio { what: what.into(), value: numerator / denominator });
        }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(super) fn into_report(self) -> Report {
        let mut rows = Rows::new([
            "what",
            "replicas",
            "flush",
            "in flight",
            "batch",
            "size",
            "msg/s",
            "MiB/s",
            "p50 ms",
            "p90",
            "p99",
            "p99.9",
            "max",
            "gap",
            "failed",
        ]);
        self.figures.iter().for_each(|figure| rows.push(row(figure)));
        let mut report = Report::new(self.as_json()).rows(rows);
        for ratio in &self.ratios {
            report = report.line(format!("{}: {:.2}", ratio.what, ratio.value));
        }
        for note in &self.notes {
            report = report.line(note);
        }
        report.line(format!(
            "fdatasync of {} on this machine: p50 {} ms, p99 {} ms",
            show_size(self.disk.write_bytes),
            show_ms(self.disk.p50_ms),
            show_ms(self.disk.p99_ms)
        ))
    }

    fn as_json(&self) -> Value {
        json!({
            "figures": self.figures,
            "ratios": self.ratios,
            "notes": self.notes,
            "fdatasync": self.disk,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn row(figure: &Figure) -> [String; 15] {
    let latency = |of: fn(&Percentiles) -> f64| {
        figure.summary.latency.as_ref().map_or("-".into(), |latency| show_ms(of(latency)))
    };
    let throughput = |text: String| if figure.latency_only { "-".into() } else { text };
    [
        figure.what.clone(),
        figure.facts.replicas.map_or("unknown".into(), |n| n.to_string()),
        figure.facts.flush.clone(),
        figure.in_flight.to_string(),
        figure.batch.to_string(),
        show_size(figure.size),
        throughput(format!("{:.0}", figure.per_second())),
        throughput(format!("{:.1}", figure.per_second() * figure.size as f64 / f64::from(1 << 20))),
        latency(|l| l.p50_ms),
        latency(|l| l.p90_ms),
        latency(|l| l.p99_ms),
        latency(|l| l.p999_ms),
        latency(|l| l.max_ms),
        throughput(format!("{:.0}", figure.summary.longest_gap_ms)),
        figure.summary.failed().to_string(),
    ]
}
