//! Very many queues in one group.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt as _, stream};
use proto::{admin, v2};
use tests::Cluster;

use crate::Plan;
use crate::load;
use crate::restart::{ms, ready};
use crate::table::Table;

const FULL: u64 = 100_000;
const LEAST: u64 = 1000;
const QUEUES_PER_TOPIC: u64 = 1000;
/// Topics that are created at a time.
const AT_ONCE: usize = 4;
const CREATED: Duration = Duration::from_secs(60);
const RESIDENT_MIB: u64 = 300;

pub(crate) async fn run(plan: Plan, table: &mut Table) -> Result<()> {
    let queues = plan.size.of(FULL, LEAST);
    let cluster = Cluster::of(3).start().await;
    let duration = plan.duration();
    let latency = ["produce", "--latency", "--topic", "few", "--duration", &duration];
    cluster.topic("few", 8).await;
    let few = load::figure(&cluster, &latency).await?;

    let took = create(&cluster, queues).await?;
    let what = format!("{queues} queues created");
    let measured = format!("{:.1} s", took.as_secs_f64());
    table.reach(what, measured, ms(CREATED), took <= CREATED);
    cluster.replicas_agree().await;
    let mut resident = Vec::new();
    for node in &cluster.nodes {
        resident.push(node.memory()? >> 20);
    }
    let most = resident.iter().max().copied().unwrap_or(0);
    let reach = format!("{RESIDENT_MIB} MiB");
    let what = "resident with them, the largest node";
    table.reach(what, format!("{most} MiB"), reach, most <= RESIDENT_MIB);
    let many = load::figure(&cluster, &latency).await?;
    let ratio = many.p50_ms / few.p50_ms;
    let (now, before) = (load::ms(many.p50_ms), load::ms(few.p50_ms));
    let measured = format!("p50 {now}, {before} with 8 queues: {ratio:.1}x");
    table.reach("one send at a time", measured, "p50 at most 2x", ratio <= 2.0);
    let follower = cluster.followers().await.remove(0);
    follower.kill();
    let started = Instant::now();
    follower.start();
    ready(&follower, started).await?;
    table.note("one node after SIGKILL, to `/ready`", ms(started.elapsed()));
    cluster.finish().await;
    Ok(())
}

/// Creates topics with so many queues in all.
async fn create(cluster: &Cluster, queues: u64) -> Result<Duration> {
    let (leader, _) = cluster.leader().await;
    let started = Instant::now();
    let mut made = stream::iter(0..queues.div_ceil(QUEUES_PER_TOPIC))
        .map(|number| {
            let config = admin::TopicConfig {
                topic: format!("many-{number}"),
                queues: u32::try_from(QUEUES_PER_TOPIC).expect("it is small"),
                permission: v2::Permission::ReadWrite.into(),
                accepts: vec![v2::MessageType::Normal.into()],
            };
            let request = admin::PutTopicRequest { config: Some(config), ..Default::default() };
            let mut admin = leader.rpc().admin();
            async move { admin.put_topic(request).await }
        })
        .buffer_unordered(AT_ONCE);
    while let Some(answer) = made.next().await {
        let error = answer?.into_inner().error;
        ensure!(error.is_none(), "{error:?}");
    }
    Ok(started.elapsed())
}
