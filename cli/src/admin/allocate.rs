//! allocateMQ, topicClusterList.

use anyhow::{Result, bail};
use clap::Args;
use proto::{
    Topic,
    admin::{DescribeTopicRequest, QueueInfo},
};
use serde_json::json;

use super::Session;
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct Allocate {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// The consumers that would share the queues, with commas between them.
    #[arg(short = 'i', long = "ipList", value_delimiter = ',', required = true)]
    consumers: Vec<String>,
}

impl Allocate {
    /// By the rule that pull consumers share queues by: in order, as evenly as it goes.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let queues = queues(session, &self.topic).await?;
        let mut consumers = self.consumers;
        consumers.sort_unstable();
        consumers.dedup();
        let mut rows = Rows::new(["consumer", "broker", "queue"]);
        let mut json = Vec::new();
        for (number, consumer) in consumers.iter().enumerate() {
            let mine = &queues[share(queues.len(), consumers.len(), number)];
            for queue in mine {
                let (broker, id) = (queue.broker_name.clone(), queue.queue_id.to_string());
                rows.push([consumer.clone(), broker, id]);
            }
            let queue = |q: &QueueInfo| json!({ "broker": q.broker_name, "queue": q.queue_id });
            let mine: Vec<_> = mine.iter().map(queue).collect();
            json.push(json!({ "consumer": consumer, "queues": mine }));
        }
        let json = json!({ "topic": self.topic.as_str(), "consumers": json });
        Ok(Report::new(json).rows(rows))
    }
}

#[derive(Debug, Args)]
pub struct Clusters {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
}

impl Clusters {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let hosts: Vec<String> = queues(session, &self.topic)
            .await?
            .into_iter()
            .map(|queue| queue.broker_name)
            .collect();
        let groups = session.broker_groups().await?;
        let of = |broker: &String| {
            let group = groups.iter().find(|group| group.broker_name == *broker);
            group.map(|group| group.cluster.clone())
        };
        let mut clusters: Vec<String> = hosts.iter().filter_map(of).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let mut rows = Rows::new(["cluster"]);
        clusters.iter().for_each(|cluster| rows.push([cluster.clone()]));
        let json = json!({ "topic": self.topic.as_str(), "clusters": clusters });
        Ok(Report::new(json).rows(rows))
    }
}

/// All queues of a topic, in order.
async fn queues(session: &Session, topic: &Topic) -> Result<Vec<QueueInfo>> {
    let request = DescribeTopicRequest { topic: topic.to_string() };
    let answer = session.call(request, |mut c, r| async move { c.describe_topic(r).await }).await?;
    Failure::of(answer.error)?;
    let mut queues = answer.queues;
    if queues.is_empty() {
        bail!(Failure::NotDone(format!("no queue of topic {topic} is known")));
    }
    queues.sort_by(|a, b| (&a.broker_name, a.queue_id).cmp(&(&b.broker_name, b.queue_id)));
    Ok(queues)
}

/// RocketMQ's AllocateMessageQueueAveragely: the first ones get one more where it does not come out
/// even.
fn share(queues: usize, consumers: usize, number: usize) -> std::ops::Range<usize> {
    let (each, more) = (queues / consumers, queues % consumers);
    let from = number * each + number.min(more);
    from..from + each + usize::from(number < more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_one_consumer() {
        for (queues, consumers) in [(8, 3), (2, 3), (9, 3), (1, 1)] {
            let shares: Vec<usize> =
                (0..consumers).flat_map(|number| share(queues, consumers, number)).collect();
            assert_eq!(shares, (0..queues).collect::<Vec<_>>(), "{queues} {consumers}");
        }
        assert_eq!((share(8, 3, 0), share(8, 3, 2)), (0..3, 6..8));
    }
}
