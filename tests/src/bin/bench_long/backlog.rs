//! A backlog that nobody consumes, and its end: producers must not notice either.

use anyhow::Result;
use tests::Cluster;

use crate::Plan;
use crate::load::{self, STORED};
use crate::table::Table;

const FULL: u64 = 10_000_000;
const LEAST: u64 = 10_000;
/// Bytes of bodies a second, at which the backlog has to go.
const DRAIN: f64 = 100e6;
/// Bytes of a body.
const BODY: f64 = 1024.0;

pub(crate) async fn run(plan: Plan, table: &mut Table) -> Result<()> {
    let messages = plan.size.of(FULL, LEAST);
    let cluster = Cluster::of(3).start().await;
    let what = format!("backlog of {messages} messages");
    if load::fits(&cluster, &what, messages * STORED, table)? {
        measure(&cluster, plan, messages, table).await?;
    }
    cluster.finish().await;
    Ok(())
}

async fn measure(cluster: &Cluster, plan: Plan, messages: u64, table: &mut Table) -> Result<()> {
    let duration = plan.duration();
    cluster.topic("backlog", 8).await;
    let term = cluster.leader().await.1.term;
    let empty = load::figure(cluster, &load::paced("backlog", &duration)).await?;
    let latency = format!("p50 {}, p99 {}", load::ms(empty.p50_ms), load::ms(empty.p99_ms));
    table.note("2,000 sends a second, empty log", latency);
    let took = load::fill(cluster, "backlog", messages * STORED).await?;
    println!("  {messages} messages, {} MiB, in {took:.0?}", (messages * STORED) >> 20);

    let full = load::figure(cluster, &load::paced("backlog", &duration)).await?;
    load::beside(table, &format!("the same beside {messages} messages"), full, empty, 2.0);

    // Drained while sends go on.
    let consume =
        ["consume", "--topic", "backlog", "--ack", "together", "--duration", duration.as_str()];
    let draining = load::start(cluster, &consume).await?;
    let beside = load::figure(cluster, &load::paced("backlog", &duration)).await?;
    let rate = draining.figure().await?.per_second * BODY;
    let measured = format!("{:.0} MB/s, {:.0} messages/s", rate / 1e6, rate / BODY);
    let reach = format!("{:.0} MB/s", DRAIN / 1e6);
    table.reach("the backlog is received and acknowledged", measured, reach, rate >= DRAIN);
    load::beside(table, "sends meanwhile", beside, empty, 2.0);
    let elections = cluster.leader().await.1.term - term;
    table.reach("elections", elections.to_string(), "0", elections == 0);
    let mut resident = Vec::new();
    for node in &cluster.nodes {
        resident.push(format!("{} MiB", node.memory()? >> 20));
    }
    table.note("resident after all that, each node", resident.join(", "));
    Ok(())
}
