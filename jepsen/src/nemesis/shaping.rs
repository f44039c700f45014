//! Links that carry little: a token bucket at each node's port of the switch.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;

use super::Tools;
use crate::net::run;

/// What a link carries, in kbit/s.
const RATE: std::ops::Range<u32> = 500..4_000;

/// Whatever these nodes get comes at a low rate from now on.
pub(super) async fn narrow(
    tools: &Arc<Tools>,
    places: &BTreeSet<usize>,
    random: &mut StdRng,
) -> Result<()> {
    let rate = random.random_range(RATE);
    let how = format!("root tbf rate {rate}kbit burst 16kb latency 300ms");
    on_ports(tools, places, move |port| run("tc", &format!("qdisc add dev {port} {how}"))).await
}

pub(super) async fn widen(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<()> {
    on_ports(tools, places, |port| run("tc", &format!("qdisc del dev {port} root"))).await
}

async fn on_ports(
    tools: &Arc<Tools>,
    places: &BTreeSet<usize>,
    what: impl Fn(&str) -> Result<()> + Send + 'static,
) -> Result<()> {
    let ports = places.iter().map(|place| tools.cluster.switch.port(tools.cluster.machine(*place)));
    let ports: Vec<String> = ports.collect();
    tokio::task::spawn_blocking(move || ports.iter().try_for_each(|port| what(port))).await?
}
