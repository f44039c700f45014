//! What a broker tells machines about itself: log lines as JSON, metrics pushed by OTLP.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tests::cluster::ELECTION;
use tests::{Cluster, eventually};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// The events of a node's life and the lines that tell of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_life_is_told_in_one_json_object_a_line() {
    let cluster = Cluster::of(3).set("tracing.format", "json").start().await;
    cluster.topic("orders", 2).await;
    let (leader, before) = cluster.leader().await;
    leader.stop().await;
    cluster.leader_after(before.term).await;
    let log = leader.process().log();
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    for line in log.lines().filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["timestamp", "level", "target"] {
            assert!(line[key].is_string(), "{key} is missing: {line}");
        }
        let message = line["fields"]["message"].as_str().expect("a message");
        *told.entry(message.to_owned()).or_default() += 1;
        match message {
            "serving" => {
                assert_eq!(line["fields"]["broker"], "broker-a", "{line}");
                assert!(line["fields"]["client_addr"].is_string(), "{line}");
            }
            "topic set" => assert_eq!(line["fields"]["topic"], "orders", "{line}"),
            _ => {}
        }
    }
    for event in
        ["serving", "leading", "topic set", "stopping", "leadership handed over", "stopped"]
    {
        assert_eq!(told.get(event), Some(&1), "{event}: {told:#?}");
    }
    leader.start();
    cluster.finish().await;
}

/// The bodies of the requests that came, and the lines that they began with.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Request>>>);

/// The line that it begins with, and its body.
type Request = (String, Vec<u8>);

impl Collector {
    /// Answers every request with 200.
    async fn listen(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let all = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let (mut head, mut length) = (String::new(), 0);
                    loop {
                        let mut line = String::new();
                        stream.read_line(&mut line).await.expect("a line");
                        if line.trim().is_empty() {
                            break;
                        }
                        let lower = line.to_lowercase();
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().expect("a number");
                        }
                        head.push_str(&lower);
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await.expect("a body");
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.get_mut().write_all(answer).await.expect("it listens");
                    all.0.lock().expect("no holder panics").push((head, body));
                });
            }
        });
        port
    }
}

/// Reads a push with the OpenTelemetry project's own classes.
fn decoded(body: &[u8]) -> Value {
    const PROGRAM: &str = "
import sys
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest as Request)
print(MessageToJson(Request.FromString(sys.stdin.buffer.read())))
";
    let python = std::env::var("MQTEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut python = Command::new(python)
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    use std::io::Write;
    python.stdin.take().expect("a pipe").write_all(body).expect("it reads");
    let output = python.wait_with_output().expect("it ends");
    assert!(output.status.success(), "set MQTEST_PYTHON, see CONTRIBUTING.md");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_reach_a_collector_as_its_own_classes_read_them() {
    let collector = Collector::default();
    let port = collector.listen().await;
    let endpoint = format!("http://127.0.0.1:{port}");
    let cluster = Cluster::of(1).set("otlp.endpoint", &endpoint).set("otlp.interval", "1s");
    let cluster = cluster.start().await;
    cluster.topic("orders", 2).await;
    assert_eq!(cluster.producer("orders").send(7, 1).await, 7);
    let metrics = eventually("seven messages are told", ELECTION, async || {
        let last = collector.0.lock().expect("no holder panics").last().cloned();
        let (head, body) = last.ok_or("nothing came")?;
        assert!(head.starts_with("post /v1/metrics http/1.1"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        let push = decoded(&body);
        let metrics = push["resourceMetrics"][0].clone();
        let of = |name: &str| {
            let all = metrics["scopeMetrics"][0]["metrics"].as_array().expect("metrics").iter();
            all.clone().find(|metric| metric["name"] == name).cloned()
        };
        let sent = of("raftmq_sent_messages").ok_or("raftmq_sent_messages is missing")?;
        match sent["sum"]["dataPoints"][0]["asDouble"].as_f64() {
            Some(7.0) => Ok(metrics),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let attributes = metrics["resource"]["attributes"].to_string();
    for word in ["raftmq-broker", "DefaultCluster", "broker-a-1"] {
        assert!(attributes.contains(word), "{attributes}");
    }
    let all = metrics["scopeMetrics"][0]["metrics"].as_array().expect("metrics");
    let of = |name: &str| all.iter().find(|metric| metric["name"] == name).expect(name);
    let sum = &of("rocketmq_messages_in")["sum"];
    assert_eq!(sum["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    assert_eq!(sum["isMonotonic"], true);
    let calls = &of("raftmq_call_seconds")["histogram"]["dataPoints"][0];
    let counts = calls["bucketCounts"].as_array().expect("buckets");
    assert_eq!(counts.len(), calls["explicitBounds"].as_array().expect("bounds").len() + 1);
    assert_eq!(of("raftmq_raft_term")["gauge"]["dataPoints"].as_array().map(Vec::len), Some(1));
    cluster.finish().await;
}

/// A collector that is away costs one line, not one for each push.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_of_once() {
    let cluster = Cluster::of(1).set("otlp.endpoint", "http://127.0.0.1:1");
    let cluster = cluster.set("otlp.interval", "1s").start().await;
    let (leader, _) = cluster.leader().await;
    let lines = || leader.process().log().matches("metrics do not reach the collector").count();
    eventually("it is told of", ELECTION, async || match lines() {
        0 => Err("no line".to_owned()),
        _ => Ok(()),
    })
    .await;
    tests::throughout("it is told of once", Duration::from_secs(3), async || match lines() {
        1 => Ok(()),
        more => Err(format!("{more} lines")),
    })
    .await;
    cluster.finish().await;
}
