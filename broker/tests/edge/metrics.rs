//! The page that Prometheus reads, under RocketMQ's names.

use std::{collections::BTreeSet, time::Duration};

use proto::v2::{FilterExpression, FilterType, MessageType};

use crate::{
    client::{Client, message, resource},
    harness::{Node, eventually, metric},
};

/// One of RocketMQ's metrics.
fn value(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    metric(page, &format!("rocketmq_{name}"), labels)
}

const PLACE: [(&str, &str); 2] = [("consumer_group", "g"), ("topic", "t")];

async fn check(node: &Node, name: &str, labels: &[(&str, &str)], expected: f64) {
    let page = node.page("/metrics").await;
    assert_eq!(value(&page, name, labels), Some(expected), "{name} {labels:?} in\n{page}");
}

async fn half(client: &Client) {
    let mut half = message("tx", "half", "half");
    half.system_properties.as_mut().unwrap().message_type = MessageType::Transaction.into();
    client.sent(&[half]).await;
}

#[tokio::test]
async fn what_went_in_and_out_is_counted_by_topic_and_group() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "1", "four"), message("t", "2", "four")]).await;
    let into = [("topic", "t"), ("message_type", "normal"), ("node_id", "broker-a")];
    check(&node, "messages_in_total", &into, 2.0).await;
    check(&node, "message_size_sum", &into, 8.0).await;
    client.receive_all("g", "t", 2).await;
    let out = [PLACE[0], PLACE[1], ("is_retry", "false")];
    check(&node, "messages_out_total", &out, 2.0).await;
    check(&node, "throughput_out_total", &out, 8.0).await;
    check(&node, "rpc_latency_count", &[("request_code", "send")], 1.0).await;
    half(&client).await;
    check(&node, "half_messages", &[("topic", "tx")], 1.0).await;
    check(&node, "topic_number", &[], 2.0).await;
    check(&node, "consumer_group_number", &[], 1.0).await;
    let page = node.page("/metrics").await;
    assert!(value(&page, "storage_size", &[("storage_medium", "disk")]) > Some(0.0), "{page}");
    node.stop().await;
}

#[tokio::test]
async fn a_lag_is_ready_and_in_flight_until_it_is_acknowledged() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "0", "b")]).await;
    let first = client.receive_all("g", "t", 1).await;
    client.sent(&[message("t", "1", "b")]).await;
    client.sent(&[message("t", "2", "b")]).await;
    for (name, expected) in [("lag", 3.0), ("ready", 2.0), ("inflight", 1.0)] {
        check(&node, &format!("consumer_{name}_messages"), &PLACE, expected).await;
    }
    // It gets older.
    eventually("the lag has an age", || async {
        let page = node.page("/metrics").await;
        value(&page, "consumer_lag_latency", &PLACE).filter(|age| *age >= 20.0)
    })
    .await;
    client.ack("g", "t", &first).await;
    check(&node, "consumer_lag_messages", &PLACE, 2.0).await;
    let rest = client.receive_all("g", "t", 2).await;
    client.ack("g", "t", &rest).await;
    check(&node, "consumer_lag_messages", &PLACE, 0.0).await;
    check(&node, "consumer_lag_latency", &PLACE, 0.0).await;
    node.stop().await;
}

#[tokio::test]
async fn connected_consumers_and_delayed_messages_are_shown() {
    let node = Node::start().await;
    let client = node.client("c").await;
    let due = proto::clock::wall_now().plus(Duration::from_secs(3600));
    let mut later = message("later", "1", "b");
    let system = later.system_properties.as_mut().unwrap();
    system.message_type = MessageType::Delay.into();
    system.delivery_timestamp = Some(due.into());
    client.sent(&[later]).await;
    check(&node, "timing_messages", &[("topic", "later")], 1.0).await;
    check(&node, "timer_enqueue_total", &[("topic", "later")], 1.0).await;
    let all = FilterExpression { r#type: FilterType::Tag.into(), expression: "*".into() };
    let group = "g";
    client.announce(group, &resource("later"), all).await.unwrap();
    eventually("the consumer is shown", || async {
        let page = node.page("/metrics").await;
        let labels = [("consumer_group", group), ("consume_mode", "pop")];
        value(&page, "consumer_connections", &labels).filter(|count| *count >= 1.0)
    })
    .await;
    node.stop().await;
}

const METRICS: &str = include_str!("../../../docs/operations/metrics.md");
const ALERTS: &str = include_str!("../../../docs/operations/alerts.yml");
const DASHBOARD: &str = include_str!("../../../docs/operations/dashboard.json");

/// Names of metrics in a text, without what Prometheus adds to those of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_part(c));
    let names = words.filter(|word| word.starts_with("rocketmq_") || word.starts_with("raftmq_"));
    let plain = |name: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    names.map(plain).filter(|name| !name.ends_with('_')).collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_alerts_and_dashboard_name_no_other() {
    let node = Node::start().await;
    let client = node.client("c").await;
    client.sent(&[message("t", "1", "b")]).await;
    client.receive_all("g", "t", 1).await;
    let page = node.page("/metrics").await;
    let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    let shown = samples.iter().filter_map(|line| line.split(['{', ' ']).next());
    let shown: BTreeSet<String> = shown.flat_map(names).collect();
    assert!(shown.len() > 40, "{shown:?}");
    let documented = names(METRICS);
    let missing: Vec<&String> = shown.difference(&documented).collect();
    assert!(missing.is_empty(), "not in metrics.md: {missing:?}");
    for text in [ALERTS, DASHBOARD] {
        let used = names(text);
        let unknown: Vec<&String> = used.difference(&documented).collect();
        assert!(unknown.is_empty(), "not in metrics.md: {unknown:?}");
    }
    node.stop().await;
}
