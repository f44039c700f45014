//! Topics and consumer groups of a run, before its clock starts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::admin;
use proto::v2;

use super::shape::Topic;
use crate::client::Rpc;
use crate::client::message::{id_of, normal_message};
use crate::db::Cluster;
use crate::history::{Group, Message};

/// How long the cluster may take to take a setting, and everybody to know it.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// Queues of a topic that members share.
const SHARED: u32 = 4;
/// Message groups that are tried for these queues.
const TRIED: u32 = 256;

/// Asks until it works.
async fn insist<T, F: Future<Output = Result<T>>>(what: &str, ask: impl Fn() -> F) -> Result<T> {
    let since = Instant::now();
    loop {
        match ask().await {
            Ok(done) => return Ok(done),
            Err(error) if PATIENCE < since.elapsed() => {
                return Err(error).with_context(|| format!("{what}, within {PATIENCE:?}"));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn refused(error: Option<admin::Error>) -> Result<()> {
    match error {
        None => Ok(()),
        Some(error) => bail!("{}", error.message),
    }
}

/// Makes the topics, and waits until everybody has a route for each.
pub(super) async fn topics(cluster: &Cluster, topics: &[Topic]) -> Result<()> {
    let points = cluster.points("setup");
    for topic in topics {
        let config = admin::TopicConfig {
            topic: topic.name.clone(),
            queues: topic.queues,
            permission: v2::Permission::ReadWrite.into(),
            accepts: vec![topic.accepts.into()],
        };
        let request = admin::PutTopicRequest { config: Some(config), ..Default::default() };
        insist(&format!("topic {}", topic.name), async || {
            let answer = points[0].1.admin().put_topic(request.clone()).await?.into_inner();
            refused(answer.error)
        })
        .await?;
    }
    for topic in topics {
        for (name, rpc) in &points {
            insist(&format!("a route of {} at {name}", topic.name), async || {
                rpc.query_route(&topic.name).await.map(drop).context("no route")
            })
            .await?;
        }
    }
    Ok(())
}

/// Makes the consumer groups.
pub(super) async fn groups(cluster: &Cluster, groups: &[Group]) -> Result<()> {
    let points = cluster.points("setup");
    for group in groups {
        let config = admin::GroupConfig {
            group: group.name.clone(),
            fifo: group.fifo,
            max_attempts: group.max_attempts.unwrap_or(1_000),
            ..Default::default()
        };
        let request = admin::PutGroupRequest { config: Some(config) };
        insist(&format!("group {}", group.name), async || {
            let answer = points[0].1.admin().put_group(request.clone()).await?.into_inner();
            refused(answer.error)
        })
        .await?;
    }
    Ok(())
}

/// A message group for each queue of a shared topic: which queue a message group goes to is the
/// server's choice, and the same for all topics with as many queues.
pub(super) async fn spread(cluster: &Cluster) -> Result<Vec<String>> {
    let name = "probe";
    let probe = Topic { name: name.into(), queues: SHARED, accepts: v2::MessageType::Fifo };
    topics(cluster, &[probe]).await?;
    let (_, rpc) = &cluster.points("setup")[0];
    let mut found: Vec<Option<String>> = vec![None; SHARED as usize];
    for nth in 0..TRIED {
        if found.iter().all(Option::is_some) {
            break;
        }
        let group = format!("spread-{nth}");
        let queue =
            insist("a probe", async || queue_of(cluster, rpc, name, nth, &group).await).await?;
        let place = found.get_mut(queue as usize).context("a queue of the topic")?;
        place.get_or_insert(group);
    }
    found.into_iter().collect::<Option<Vec<String>>>().context("a message group for each queue")
}

async fn queue_of(cluster: &Cluster, rpc: &Rpc, topic: &str, nth: u32, group: &str) -> Result<u32> {
    use admin::query_messages_request::By;
    let id = Message::new(u32::MAX, nth);
    let mut message = normal_message(topic, id, b"probe".as_slice().into());
    let properties = message.system_properties.as_mut().context("it was built so")?;
    properties.message_type = v2::MessageType::Fifo.into();
    properties.message_group = Some(group.to_owned());
    rpc.send(&[message], crate::client::rpc::DEADLINE).await?;
    let request = admin::QueryMessagesRequest {
        topic: topic.to_owned(),
        broker_name: cluster.broker_name().to_owned(),
        by: Some(By::MessageId(id_of(id))),
        from_ms: 0,
        until_ms: u64::MAX,
        max: 1,
        ..Default::default()
    };
    let answer = rpc.admin().query_messages(request).await?.into_inner();
    refused(answer.error)?;
    Ok(answer.messages.first().context("it was just stored")?.queue_id)
}
