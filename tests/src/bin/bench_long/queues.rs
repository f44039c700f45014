//! Very many queues in one group.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures::{StreamExt as _, stream};
use proto::{admin, v2};
use tests::Cluster;

use super::{load, setting, tell};

const QUEUES_PER_TOPIC: u64 = 1000;
/// Topics that are created at a time.
const AT_ONCE: usize = 4;

pub(crate) async fn run(queues: u64) -> Result<()> {
    let cluster = Cluster::of(3).start().await;
    let seconds = format!("{}s", setting("BENCH_SECONDS", 10)?);
    let latency = ["produce", "--latency", "--topic", "few", "--duration", &seconds];
    cluster.topic("few", 8).await;
    let few = load::figure(&cluster, &latency).await?;

    let (leader, _) = cluster.leader().await;
    let started = Instant::now();
    let topics = queues.div_ceil(QUEUES_PER_TOPIC);
    let mut made = stream::iter(0..topics)
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
    drop(made);
    let took = started.elapsed();
    tell(&format!("{queues} queues created"), &format!("{:.1} s", took.as_secs_f64()), "60 s");
    cluster.replicas_agree().await;
    for node in &cluster.nodes {
        tell(&format!("{node:?}, resident"), &format!("{} MiB", node.memory()? >> 20), "300 MiB");
    }
    let many = load::figure(&cluster, &latency).await?;
    let ratio = many.p50_ms / few.p50_ms;
    let measured = format!("{:.2} ms, {ratio:.1}x of {:.2} ms before", many.p50_ms, few.p50_ms);
    tell("one send at a time, p50", &measured, "2x");
    let follower = cluster.followers().await.remove(0);
    follower.kill();
    let started = Instant::now();
    follower.start();
    while !follower.is_ready().await {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    println!("  one node after SIGKILL, to /ready: {} ms", started.elapsed().as_millis());
    cluster.finish().await;
    Ok(())
}
