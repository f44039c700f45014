//! brokerStatus, statsAll, brokerConsumeStats.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use proto::{
    Topic,
    admin::{BrokerStatsRequest, BrokerStatsResponse, Flow, QueueProgress},
};
use serde_json::{Value, json};

use super::{Session, consumer_group, nodes::Chosen, nodes::Node, progress, topic, when::show};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct BrokerStatus {
    #[command(flatten)]
    of: Chosen,
}

impl BrokerStatus {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let mut found = Vec::new();
        for node in self.of.nodes(session).await? {
            let answer = stats(session, &node).await;
            found.push((node, answer));
        }
        let mut json = Vec::new();
        let (mut texts, mut silent) = (Vec::new(), Vec::new());
        for (node, answer) in &found {
            let runtime: BTreeMap<&str, &str> = match answer {
                Ok(answer) => {
                    answer.runtime.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect()
                }
                Err(error) => {
                    silent.push(format!("{}: {error:#}", node.title()));
                    BTreeMap::new()
                }
            };
            json.push(json!({
                "broker": node.broker,
                "node_id": node.node_id,
                "address": node.address,
                "leads": node.leads,
                "runtime": runtime,
            }));
            let mut rows = Rows::new(["key", "value"]);
            runtime.iter().for_each(|(key, value)| rows.push([(*key).into(), (*value).into()]));
            texts.push((node.title(), rows));
        }
        let mut report = Report::new(json!({ "nodes": json }));
        for (title, rows) in texts {
            report = report.line(title).rows(rows);
        }
        Ok(if silent.is_empty() { report } else { report.failing(silent.join("; ")) })
    }
}

async fn stats(through: &Session, node: &Node) -> Result<BrokerStatsResponse> {
    let session = node.session(through).await?;
    let answer = session
        .call(BrokerStatsRequest {}, |mut c, r| async move { c.broker_stats(r).await })
        .await?;
    Failure::of(answer.error.clone())?;
    Ok(answer)
}

#[derive(Debug, Args)]
pub struct StatsAll {
    /// Only this topic.
    #[arg(short = 't', long = "topic")]
    topic: Option<Topic>,
    /// Only topics to which something was sent, or of which something was delivered, in the last
    /// minute.
    #[arg(short = 'a', long = "activeTopic")]
    active: bool,
}

/// A topic and one of its consumer groups, over all brokers.
#[derive(Debug, Default)]
struct Line {
    into: Flow,
    out: Flow,
    lag: u64,
}

impl StatsAll {
    /// Rates are those of the last minute, as the leaders count them.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let everywhere = Chosen::default();
        let mut into: BTreeMap<String, Flow> = BTreeMap::new();
        let mut out: BTreeMap<(String, String), Flow> = BTreeMap::new();
        for node in everywhere.leaders(session).await? {
            let stats = stats(session, &node).await?;
            for of in stats.topics {
                add(into.entry(of.topic).or_default(), of.flow);
            }
            for of in stats.groups {
                add(out.entry((of.topic, of.group)).or_default(), of.flow);
            }
        }
        let lags = lags(session).await?;
        let mut lines: BTreeMap<(String, String), Line> = BTreeMap::new();
        for name in topic::names(session).await? {
            let groups: Vec<&String> =
                lags.keys().filter(|(t, _)| *t == name).map(|(_, g)| g).collect();
            let none = vec![String::new()];
            let groups =
                if groups.is_empty() { none } else { groups.into_iter().cloned().collect() };
            for group in groups {
                let place = (name.clone(), group);
                let line = Line {
                    into: into.get(&name).copied().unwrap_or_default(),
                    out: out.get(&place).copied().unwrap_or_default(),
                    lag: lags.get(&place).copied().unwrap_or(0),
                };
                lines.insert(place, line);
            }
        }
        lines.retain(|(name, _), line| {
            let moves = |flow: &Flow| flow.messages_per_second > 0.0;
            self.topic.as_ref().is_none_or(|topic| topic.as_str() == name)
                && (!self.active || moves(&line.into) || moves(&line.out))
        });
        Ok(report(&lines))
    }
}

fn report(lines: &BTreeMap<(String, String), Line>) -> Report {
    let header =
        ["topic", "consumer group", "accumulation", "in TPS", "out TPS", "in 24 h", "out 24 h"];
    let mut rows = Rows::new(header);
    let mut json = Vec::new();
    for ((topic, group), line) in lines {
        rows.push([
            topic.clone(),
            group.clone(),
            line.lag.to_string(),
            format!("{:.2}", line.into.messages_per_second),
            format!("{:.2}", line.out.messages_per_second),
            line.into.messages_in_a_day.to_string(),
            line.out.messages_in_a_day.to_string(),
        ]);
        json.push(json!({
            "topic": topic,
            "group": (!group.is_empty()).then_some(group),
            "accumulation": line.lag,
            "in": flow_json(&line.into),
            "out": flow_json(&line.out),
        }));
    }
    Report::new(json!({ "topics": json })).rows(rows)
}

fn flow_json(flow: &Flow) -> Value {
    json!({
        "messages_per_second": flow.messages_per_second,
        "bytes_per_second": flow.bytes_per_second,
        "messages_in_a_day": flow.messages_in_a_day,
        "messages": flow.messages,
        "bytes": flow.bytes,
    })
}

fn add(sum: &mut Flow, more: Option<Flow>) {
    let more = more.unwrap_or_default();
    sum.messages_per_second += more.messages_per_second;
    sum.bytes_per_second += more.bytes_per_second;
    sum.messages_in_a_day += more.messages_in_a_day;
    sum.messages += more.messages;
    sum.bytes += more.bytes;
}

/// What each consumer group has not consumed of each topic.
async fn lags(session: &Session) -> Result<BTreeMap<(String, String), u64>> {
    let mut lags = BTreeMap::new();
    let groups = consumer_group::groups(session).await?;
    let bar = progress::bar("consumer groups", groups.len() as u64);
    for group in groups {
        for queue in consumer_group::queues(session, &group.group, None).await? {
            *lags.entry((queue.topic.clone(), group.group.clone())).or_default() +=
                consumer_group::lag(&queue);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(lags)
}

#[derive(Debug, Args)]
pub struct BrokerConsumeStats {
    #[command(flatten)]
    of: Chosen,
    /// Only queues of which so many messages or more are not consumed.
    #[arg(short = 'l', long = "level", default_value_t = 0)]
    level: u64,
}

impl BrokerConsumeStats {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let brokers = self.of.brokers(session).await?;
        let header = [
            "topic",
            "consumer group",
            "broker",
            "queue",
            "broker offset",
            "consumer offset",
            "lag",
            "last time (UTC)",
        ];
        let (mut rows, mut json, mut total) = (Rows::new(header), Vec::new(), 0);
        let groups = consumer_group::groups(session).await?;
        let bar = progress::bar("consumer groups", groups.len() as u64);
        for group in groups {
            let queues = consumer_group::queues(session, &group.group, None).await?;
            let wanted = |queue: &&QueueProgress| {
                brokers.contains(&queue.broker_name) && consumer_group::lag(queue) >= self.level
            };
            for queue in queues.iter().filter(wanted) {
                let lag = consumer_group::lag(queue);
                total += lag;
                rows.push([
                    queue.topic.clone(),
                    group.group.clone(),
                    queue.broker_name.clone(),
                    queue.queue_id.to_string(),
                    queue.max_offset.to_string(),
                    queue.committed_offset.to_string(),
                    lag.to_string(),
                    show(queue.last_consumed_ms),
                ]);
                json.push(json!({
                    "topic": queue.topic,
                    "group": group.group,
                    "broker": queue.broker_name,
                    "queue": queue.queue_id,
                    "max_offset": queue.max_offset,
                    "committed_offset": queue.committed_offset,
                    "lag": lag,
                    "last_consumed_ms": queue.last_consumed_ms,
                }));
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let report = Report::new(json!({ "lag": total, "queues": json })).rows(rows);
        Ok(report.line(format!("lag in all: {total}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_several_brokers_are_added() {
        let one = Flow { messages_per_second: 1.5, messages_in_a_day: 3, ..Default::default() };
        let mut sum = Flow::default();
        add(&mut sum, Some(one));
        add(&mut sum, Some(one));
        add(&mut sum, None);
        assert_eq!((sum.messages_per_second, sum.messages_in_a_day), (3.0, 6));
    }

    #[test]
    fn a_topic_that_nobody_consumes_has_a_line_too() {
        let lines = BTreeMap::from([(("t".to_owned(), String::new()), Line::default())]);
        let text = report(&lines).text();
        assert!(text.contains("0.00") && text.contains("accumulation"), "{text}");
    }
}
