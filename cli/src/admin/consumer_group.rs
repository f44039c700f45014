//! updateSubGroup, getConsumerConfig, consumerProgress.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use proto::{
    ConsumerGroup, Topic,
    admin::{
        GroupConfig, GroupProgressRequest, ListGroupsRequest, PutGroupRequest, QueueProgress,
        SwitchGroup, change_request::Change,
    },
};
use serde_json::{Value, json};

use super::{Session, backoff, change, cluster, when::show};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

/// Retries that a new group gets, as in RocketMQ.
const DEFAULT_RETRIES: u32 = 16;

#[derive(Debug, Args)]
pub struct Update {
    #[arg(short = 'g', long = "groupName")]
    group: ConsumerGroup,
    /// Must exist; the group is put on all brokers.
    #[arg(short = 'c', long = "clusterName")]
    cluster: Option<String>,
    /// Whether the group consumes in order.
    #[arg(short = 'o', long = "consumeMessageOrderly", action = ArgAction::Set)]
    orderly: Option<bool>,
    /// How often a message is tried again before it becomes a dead letter [default: 16].
    #[arg(short = 'r', long = "retryMaxTimes")]
    retries: Option<u32>,
    /// When: {"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000]}} or
    /// {"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":5000,"max":7200000,"multiplier":2}}
    #[arg(short = 'p', long = "groupRetryPolicy")]
    retry_policy: Option<String>,
    /// Whether the group may consume [default for a new group: true].
    #[arg(short = 's', long = "consumeEnable", action = ArgAction::Set)]
    enabled: Option<bool>,
    /// Only `false`: a new group begins with the first message that is kept anyway.
    #[arg(short = 'm', long = "consumeFromMinEnable", action = ArgAction::Set, default_value_t = false)]
    from_min: bool,
    /// Only `false`: broadcasting is each client's own matter.
    #[arg(short = 'd', long = "consumeBroadcastEnable", action = ArgAction::Set, default_value_t = false)]
    broadcast: bool,
}

impl Update {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        if let Some(cluster) = &self.cluster {
            cluster::brokers_of(session, cluster).await?;
        }
        let old = find(session, &self.group).await?;
        let config = self.config(old.as_ref())?;
        let done = if old.is_some() { "updated" } else { "created" };
        let json = json!({
            "done": done,
            "group": config.group,
            "fifo": config.fifo,
            "enabled": !config.disabled,
            "max_attempts": config.max_attempts,
            "backoff_ms": config.backoff_ms,
            "exponential_backoff": config.exponential_backoff.map(|e| json!({
                "initial_ms": e.initial_ms, "max_ms": e.max_ms, "multiplier": e.multiplier,
            })),
        });
        let order = if config.fifo { "in order" } else { "concurrently" };
        let text = format!(
            "consumer group {} {done}: consumes {order}, {} attempts",
            config.group, config.max_attempts
        );
        let request = PutGroupRequest { config: Some(config) };
        let answer = session.call(request, |mut c, r| async move { c.put_group(r).await }).await?;
        Failure::of(answer.error)?;
        if let Some(enabled) = self.enabled {
            let group = self.group.to_string();
            change::change(
                session,
                Change::SwitchGroup(SwitchGroup { group, enabled, version: 0 }),
            )
            .await?;
        }
        Ok(Report::new(json).line(text))
    }

    fn config(&self, old: Option<&GroupConfig>) -> Result<GroupConfig> {
        if self.from_min || self.broadcast {
            bail!("only -m false and -d false are supported");
        }
        let max_attempts = match self.retries {
            Some(retries) => retries.saturating_add(1),
            None => old.map_or(DEFAULT_RETRIES + 1, |old| old.max_attempts),
        };
        let (backoff_ms, exponential_backoff) = match (&self.retry_policy, old) {
            (Some(json), _) => backoff::parse(json)?,
            (None, Some(old)) => (old.backoff_ms.clone(), old.exponential_backoff),
            (None, None) => (backoff::DEFAULT_MS.to_vec(), None),
        };
        let fifo = self.orderly.unwrap_or_else(|| old.is_some_and(|old| old.fifo));
        let group = self.group.to_string();
        let disabled = old.is_some_and(|old| old.disabled);
        let disabled = self.enabled.map_or(disabled, |enabled| !enabled);
        Ok(GroupConfig {
            group,
            fifo,
            max_attempts,
            backoff_ms,
            exponential_backoff,
            disabled,
            // The servers choose it.
            ..GroupConfig::default()
        })
    }
}

#[derive(Debug, Args)]
pub struct Progress {
    /// Without a group: a line for each.
    #[arg(short = 'g', long = "groupName")]
    group: Option<ConsumerGroup>,
    /// Only this topic.
    #[arg(short = 't', long = "topic")]
    topic: Option<Topic>,
}

impl Progress {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        match &self.group {
            Some(group) => self.of_one(session, group).await,
            None => self.of_all(session).await,
        }
    }

    async fn of_one(&self, session: &Session, group: &ConsumerGroup) -> Result<Report> {
        let queues = queues(session, group.as_str(), self.topic.as_ref()).await?;
        let mut rows = Rows::new([
            "topic",
            "broker",
            "queue",
            "max offset",
            "next",
            "committed",
            "ready",
            "in flight",
            "lag",
            "last time (UTC)",
        ]);
        let mut json = Vec::new();
        for queue in &queues {
            rows.push([
                queue.topic.clone(),
                queue.broker_name.clone(),
                queue.queue_id.to_string(),
                queue.max_offset.to_string(),
                queue.next_offset.to_string(),
                queue.committed_offset.to_string(),
                queue.ready.to_string(),
                queue.lasting.to_string(),
                lag(queue).to_string(),
                show(queue.last_consumed_ms),
            ]);
            json.push(json!({
                "topic": queue.topic,
                "broker": queue.broker_name,
                "queue": queue.queue_id,
                "max_offset": queue.max_offset,
                "next_offset": queue.next_offset,
                "committed_offset": queue.committed_offset,
                "ready": queue.ready,
                "in_flight": queue.lasting,
                "lag": lag(queue),
                "last_consumed_ms": queue.last_consumed_ms,
            }));
        }
        let total: u64 = queues.iter().map(lag).sum();
        let json = json!({ "group": group.as_str(), "lag": total, "queues": json });
        Ok(Report::new(json).rows(rows).line(format!("lag in all: {total}")))
    }

    async fn of_all(&self, session: &Session) -> Result<Report> {
        let mut rows = Rows::new(["group", "in order", "attempts", "topics", "in flight", "lag"]);
        let mut json = Vec::new();
        let sorted: BTreeMap<_, _> =
            groups(session).await?.into_iter().map(|group| (group.group.clone(), group)).collect();
        for (name, group) in sorted {
            let queues = queues(session, &name, self.topic.as_ref()).await?;
            let mut topics: Vec<_> = queues.iter().map(|queue| queue.topic.as_str()).collect();
            topics.sort_unstable();
            topics.dedup();
            let in_flight: u64 = queues.iter().map(|queue| queue.lasting).sum();
            let lag: u64 = queues.iter().map(lag).sum();
            json.push(json!({
                "group": name,
                "fifo": group.fifo,
                "max_attempts": group.max_attempts,
                "topics": topics,
                "in_flight": in_flight,
                "lag": lag,
            }));
            rows.push([
                name,
                group.fifo.to_string(),
                group.max_attempts.to_string(),
                topics.join(", "),
                in_flight.to_string(),
                lag.to_string(),
            ]);
        }
        Ok(Report::new(json!({ "groups": json })).rows(rows))
    }
}

/// A group's queues, of one topic or of all, in order.
pub(super) async fn queues(
    session: &Session,
    group: &str,
    topic: Option<&Topic>,
) -> Result<Vec<QueueProgress>> {
    let topic = topic.map(Topic::to_string).unwrap_or_default();
    let request = GroupProgressRequest { group: group.to_owned(), topic };
    let answer = session.call(request, |mut c, r| async move { c.group_progress(r).await }).await?;
    Failure::of(answer.error)?;
    let mut queues = answer.queues;
    let place = |q: &QueueProgress| (q.topic.clone(), q.broker_name.clone(), q.queue_id);
    queues.sort_by_key(place);
    Ok(queues)
}

#[derive(Debug, Args)]
pub struct Settings {
    #[arg(short = 'g', long = "groupName")]
    group: ConsumerGroup,
}

impl Settings {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let Some(config) = find(session, &self.group).await? else {
            bail!(Failure::Rejected(format!("consumer group {} does not exist", self.group)));
        };
        let json = settings_json(&config);
        let mut rows = Rows::new(["setting", "value"]);
        for (name, value) in json.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            rows.push([name.clone(), text]);
        }
        Ok(Report::new(json).rows(rows))
    }
}

/// The settings of every group, by name.
pub(super) async fn all_settings(session: &Session) -> Result<Vec<Value>> {
    let mut all = groups(session).await?;
    all.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(all.iter().map(settings_json).collect())
}

fn settings_json(config: &GroupConfig) -> Value {
    let waits = match &config.exponential_backoff {
        Some(policy) => json!({
            "initial_ms": policy.initial_ms,
            "max_ms": policy.max_ms,
            "multiplier": policy.multiplier,
        }),
        None => json!(config.backoff_ms),
    };
    json!({
        "group": config.group,
        "consume_enable": !config.disabled,
        "consume_message_orderly": config.fifo,
        "retry_max_times": config.max_attempts.saturating_sub(1),
        "retry_policy": waits,
    })
}

/// Messages that the group has yet to finish, those in flight included.
pub(super) fn lag(queue: &QueueProgress) -> u64 {
    queue.ready + queue.lasting
}

/// The group, if it exists. A broker that does not answer matters only while no other one has it.
async fn find(session: &Session, group: &ConsumerGroup) -> Result<Option<GroupConfig>, Failure> {
    let answer = session
        .call(ListGroupsRequest {}, |mut c, r| async move { c.list_groups(r).await })
        .await?;
    let found = answer.groups.into_iter().find(|known| known.group == group.as_str());
    if found.is_none() {
        Failure::of(answer.error)?;
    }
    Ok(found)
}

pub(super) async fn groups(session: &Session) -> Result<Vec<GroupConfig>, Failure> {
    let answer = session
        .call(ListGroupsRequest {}, |mut c, r| async move { c.list_groups(r).await })
        .await?;
    Failure::of(answer.error)?;
    Ok(answer.groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(flags: &str) -> Update {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            update: Update,
        }
        let flags = std::iter::once("updateSubGroup").chain(flags.split_whitespace());
        <Only as clap::Parser>::parse_from(flags).update
    }

    #[test]
    fn the_flags_of_the_official_tests_are_understood() {
        let config = update("-g g -c DefaultCluster -s true -o true -m false -d false");
        let config = config.config(None).unwrap();
        assert!(config.fifo);
        assert_eq!(config.max_attempts, 17);
        assert_eq!(config.backoff_ms, backoff::DEFAULT_MS);
    }

    #[test]
    fn what_is_not_given_stays() {
        let old = GroupConfig {
            group: "g".into(),
            fifo: true,
            max_attempts: 3,
            backoff_ms: vec![7],
            ..Default::default()
        };
        assert_eq!(update("-g g").config(Some(&old)).unwrap(), old);
        let changed = update("-g g -o false -r 4").config(Some(&old)).unwrap();
        assert_eq!(changed, GroupConfig { fifo: false, max_attempts: 5, ..old });
    }

    #[test]
    fn what_is_not_supported_is_said() {
        assert!(update("-g g -s false").config(None).unwrap().disabled);
        for bad in ["-g g -m true", "-g g -d true", "-g g -p {}"] {
            assert!(update(bad).config(None).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_in_flight_counts_as_lag() {
        let queue = QueueProgress { ready: 4, lasting: 2, ..Default::default() };
        assert_eq!(lag(&queue), 6);
    }
}
