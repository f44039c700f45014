//! The node's metrics for an OpenTelemetry collector: the same figures as on `/metrics`, pushed by
//! OTLP over HTTP with protobuf bodies. Off unless `otlp.endpoint` is set.
//!
//! A collector that is away costs nothing but its figures of that time: counters are cumulative, so
//! the next push that arrives has everything.

mod page;
mod push;
mod wire;

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use proto::clock::wall_now;
use tracing::{info, warn};

use crate::http::Pages;

pub use push::{Endpoint, PushError};

/// What tells this node's figures from those of others.
#[derive(Debug, Clone)]
pub struct Node {
    /// The cluster's name.
    pub cluster: String,
    /// The broker group's name.
    pub broker_name: String,
    /// The replica's number.
    pub node_id: u64,
}

/// Pushes until dropped.
pub async fn run(endpoint: Endpoint, interval: Duration, node: Node, pages: Arc<dyn Pages>) {
    let started = nanos();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        // Away from the threads that serve clients, like a page that is asked for.
        let made = tokio::task::spawn_blocking({
            let (pages, node) = (Arc::clone(&pages), node.clone());
            move || request(&pages.metrics(), &node, started, nanos()).encode_to_vec()
        });
        let body = made.await.expect("making a page does not panic");
        // One line when it stops to arrive, and one when it arrives again.
        match (push::push(&endpoint, body).await, failing) {
            (Ok(()), true) => info!(%endpoint, "metrics reach the collector again"),
            (Err(error), false) => warn!(%endpoint, %error, "metrics do not reach the collector"),
            (Ok(()), false) | (Err(_), true) => continue,
        }
        failing = !failing;
    }
}

fn nanos() -> u64 {
    wall_now().0.saturating_mul(1_000_000)
}

/// A page of metrics as OTLP has it.
fn request(page: &str, node: &Node, started: u64, now: u64) -> wire::ExportMetricsServiceRequest {
    let resource = wire::Resource {
        attributes: vec![
            wire::attribute("service.name", "raftmq-broker"),
            wire::attribute("service.namespace", &node.cluster),
            wire::attribute(
                "service.instance.id",
                &format!("{}-{}", node.broker_name, node.node_id),
            ),
            wire::attribute("service.version", env!("CARGO_PKG_VERSION")),
        ],
    };
    let scope = wire::InstrumentationScope {
        name: "raftmq".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let metrics = page::metrics(page, started, now);
    wire::ExportMetricsServiceRequest {
        resource_metrics: vec![wire::ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![wire::ScopeMetrics { scope: Some(scope), metrics }],
        }],
    }
}
