//! From the page that `/metrics` shows to OTLP's metrics: whatever is on the page is pushed, under
//! the same name.

use std::collections::BTreeMap;

use super::wire::{
    AggregationTemporality, Data, Gauge, Histogram, HistogramDataPoint, KeyValue, Metric,
    NumberDataPoint, Sum, attribute,
};

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// One line with a figure.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

/// What the lines of one metric add up to.
enum Kind {
    Counter(Vec<NumberDataPoint>),
    Gauge(Vec<NumberDataPoint>),
    Histogram(BTreeMap<String, Buckets>),
}

/// A histogram with certain labels. Cumulative, as on the page.
#[derive(Default)]
struct Buckets {
    attributes: Vec<KeyValue>,
    counts: Vec<(f64, f64)>,
    sum: f64,
}

/// Everything on a page in the OpenMetrics text format.
pub(super) fn metrics(page: &str, started: u64, now: u64) -> Vec<Metric> {
    let mut found: Vec<(String, String, Kind)> = Vec::new();
    let mut help = BTreeMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            if let Some((name, text)) = rest.split_once(' ') {
                help.insert(name.to_owned(), text.to_owned());
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { continue };
            let kind = match kind {
                "counter" => Kind::Counter(Vec::new()),
                "histogram" => Kind::Histogram(BTreeMap::new()),
                _ => Kind::Gauge(Vec::new()),
            };
            let about = help.get(name).cloned().unwrap_or_default();
            found.push((name.to_owned(), about, kind));
        } else if let (Some(sample), Some((name, _, kind))) = (sample(line), found.last_mut()) {
            take(kind, name, sample, (started, now));
        }
    }
    let metric = |(name, description, kind): (String, String, Kind)| Metric {
        name,
        description,
        data: Some(data(kind, started, now)),
    };
    found.into_iter().map(metric).collect()
}

fn take(kind: &mut Kind, name: &str, sample: Sample<'_>, (started, now): (u64, u64)) {
    let number = |sample: &Sample<'_>, start| NumberDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: now,
        as_double: Some(sample.value),
        attributes: attributes(&sample.labels),
    };
    match kind {
        Kind::Counter(points) => points.push(number(&sample, started)),
        Kind::Gauge(points) => points.push(number(&sample, 0)),
        Kind::Histogram(all) => {
            let part = sample.name.strip_prefix(name).unwrap_or_default();
            let (bound, labels): (Vec<_>, Vec<_>) =
                sample.labels.into_iter().partition(|(label, _)| *label == "le");
            let buckets = all.entry(format!("{labels:?}")).or_insert_with(|| Buckets {
                attributes: attributes(&labels),
                ..Buckets::default()
            });
            match (part, bound.first()) {
                ("_sum", _) => buckets.sum = sample.value,
                ("_bucket", Some((_, bound))) => {
                    let bound = bound.parse().unwrap_or(f64::INFINITY);
                    buckets.counts.push((bound, sample.value));
                }
                _ => {}
            }
        }
    }
}

fn attributes(labels: &[(&str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| attribute(name, value)).collect()
}

fn data(kind: Kind, started: u64, now: u64) -> Data {
    match kind {
        Kind::Gauge(data_points) => Data::Gauge(Gauge { data_points }),
        Kind::Counter(data_points) => {
            Data::Sum(Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true })
        }
        Kind::Histogram(all) => {
            let data_points =
                all.into_values().map(|buckets| histogram(buckets, started, now)).collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality: CUMULATIVE })
        }
    }
}

fn histogram(mut buckets: Buckets, started: u64, now: u64) -> HistogramDataPoint {
    buckets.counts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut before = 0;
    let mut bucket_counts = Vec::with_capacity(buckets.counts.len());
    for (_, upto) in &buckets.counts {
        let upto = whole(*upto);
        bucket_counts.push(upto.saturating_sub(before));
        before = upto;
    }
    let bounds = buckets.counts.iter().map(|(bound, _)| *bound);
    HistogramDataPoint {
        start_time_unix_nano: started,
        time_unix_nano: now,
        count: before,
        sum: Some(buckets.sum),
        bucket_counts,
        explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
        attributes: buckets.attributes,
    }
}

/// A count that was written as text.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole, positive and far below 2^53"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, rest) = match line.find(['{', ' '])? {
        at if line[at..].starts_with('{') => (&line[..at], &line[at + 1..]),
        at => {
            let value = line[at..].split_whitespace().next()?.parse().ok()?;
            return Some(Sample { name: &line[..at], labels: Vec::new(), value });
        }
    };
    let (labels, rest) = labels(rest)?;
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquoted(quoted)?;
        found.push((name, value));
        rest = after;
    }
}

/// A label's value up to the closing quotation mark, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP a_calls Calls.
# TYPE a_calls counter
a_calls_total{rpc=\"send\",topic=\"a \\\"b\\\", {c}\"} 7
# HELP a_level How high.
# TYPE a_level gauge
a_level -3
# HELP a_seconds Time.
# TYPE a_seconds histogram
a_seconds_sum{rpc=\"send\"} 1.5
a_seconds_count{rpc=\"send\"} 6
a_seconds_bucket{le=\"0.5\",rpc=\"send\"} 2
a_seconds_bucket{le=\"1.0\",rpc=\"send\"} 5
a_seconds_bucket{le=\"+Inf\",rpc=\"send\"} 6
# EOF
";

    #[test]
    fn what_is_on_the_page_is_pushed_under_its_name() {
        let all = metrics(PAGE, 5, 9);
        let names: Vec<&str> = all.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["a_calls", "a_level", "a_seconds"]);
        assert_eq!(all[0].description, "Calls.");
        let Some(Data::Sum(sum)) = &all[0].data else { panic!("{all:?}") };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!((point.as_double, point.start_time_unix_nano), (Some(7.0), 5));
        assert_eq!(point.attributes[1], attribute("topic", "a \"b\", {c}"));
        let Some(Data::Gauge(gauge)) = &all[1].data else { panic!("{all:?}") };
        assert_eq!(gauge.data_points[0].as_double, Some(-3.0));
        let Some(Data::Histogram(histogram)) = &all[2].data else { panic!("{all:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (6, Some(1.5)));
        assert_eq!(point.bucket_counts, [2, 3, 1]);
        assert_eq!(point.explicit_bounds, [0.5, 1.0]);
        assert_eq!(point.attributes, [attribute("rpc", "send")]);
    }
}
