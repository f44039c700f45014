//! deleteTopic, deleteSubGroup, updateQuota, quotaList.

use std::fmt;

use anyhow::{Result, bail};
use clap::Args;
use proto::{
    BrokerName, ClientId, ConsumerGroup, Topic,
    admin::{
        ChangeRequest, ChangeResponse, LimitedKind, ListQuotasRequest, Quota, RetireTopic,
        change_request::Change,
    },
};
use serde_json::json;

use super::{Session, cluster, members::Consent};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

#[derive(Debug, Args)]
pub struct DeleteTopic {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// Must exist; the topic is deleted on all brokers.
    #[arg(short = 'c', long = "clusterName", conflicts_with = "broker")]
    cluster: Option<String>,
    /// On this broker alone: the topic must be closed there (updateTopic -b BROKER -w 0) and all its
    /// messages there consumed.
    #[arg(short = 'b', long = "brokerName")]
    broker: Option<BrokerName>,
    /// With -b: also with messages left, which are lost, and also if the broker does not answer.
    #[arg(short = 'f', long = "force", requires = "broker")]
    force: bool,
    #[command(flatten)]
    consent: Consent,
}

impl DeleteTopic {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        if let Some(broker) = &self.broker {
            return self.retire(session, broker).await;
        }
        check_cluster(session, self.cluster.as_deref()).await?;
        self.consent.get(&format!("delete topic {} with its messages", self.topic))?;
        let done = delete(session, Change::DeleteTopic(self.topic.to_string())).await?;
        let json = json!({ "done": done.name(), "topic": self.topic.to_string() });
        Ok(Report::new(json).line(format!("topic {} {done}", self.topic)))
    }

    async fn retire(&self, session: &Session, broker: &BrokerName) -> Result<Report> {
        let with = if self.force { " with the messages that it has there" } else { "" };
        self.consent.get(&format!("delete topic {} from {broker}{with}", self.topic))?;
        let retire = RetireTopic {
            topic: self.topic.to_string(),
            broker_name: broker.to_string(),
            force: self.force,
        };
        change(session, Change::RetireTopic(retire)).await?;
        let json = json!({ "done": "deleted", "topic": self.topic.to_string(), "broker": broker.as_str() });
        Ok(Report::new(json).line(format!("topic {} deleted from {broker}", self.topic)))
    }
}

#[derive(Debug, Args)]
pub struct DeleteGroup {
    #[arg(short = 'g', long = "groupName")]
    group: ConsumerGroup,
    /// Must exist; the group is deleted on all brokers.
    #[arg(short = 'c', long = "clusterName")]
    cluster: Option<String>,
    /// Taken for compatibility: progress always goes with the group.
    #[arg(short = 'r', long = "removeOffset", action = clap::ArgAction::Set)]
    _remove_offset: Option<bool>,
    #[command(flatten)]
    consent: Consent,
}

impl DeleteGroup {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        check_cluster(session, self.cluster.as_deref()).await?;
        self.consent.get(&format!("delete consumer group {} with its progress", self.group))?;
        let done = delete(session, Change::DeleteGroup(self.group.to_string())).await?;
        let json = json!({ "done": done.name(), "group": self.group.to_string() });
        Ok(Report::new(json).line(format!("consumer group {} {done}", self.group)))
    }
}

#[derive(Debug, Args)]
#[group(id = "of", required = true, multiple = false)]
pub(super) struct Limited {
    /// What is sent to this topic.
    #[arg(short = 't', long = "topic", group = "of")]
    topic: Option<Topic>,
    /// What is delivered to this consumer group.
    #[arg(short = 'g', long = "groupName", group = "of")]
    consumers: Option<ConsumerGroup>,
    /// What this client sends and what is delivered to it.
    #[arg(short = 'i', long = "clientId", group = "of")]
    client: Option<ClientId>,
}

#[derive(Debug, Args)]
pub struct UpdateQuota {
    #[command(flatten)]
    of: Limited,
    /// Messages per second on each broker; 0 is without bound.
    #[arg(long = "messages", default_value_t = 0)]
    messages: u64,
    /// Bytes of bodies per second on each broker; 0 is without bound.
    #[arg(long = "bytes", default_value_t = 0)]
    bytes: u64,
}

impl UpdateQuota {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let quota = self.quota()?;
        let text = format!("quota of {} {} set", kind_name(&quota), quota.name);
        let json = json!({ "done": "updated", "quota": as_json(&quota) });
        change(session, Change::PutQuota(quota)).await?;
        Ok(Report::new(json).line(text))
    }

    fn quota(&self) -> Result<Quota> {
        let (kind, name) = match &self.of {
            Limited { topic: Some(topic), .. } => (LimitedKind::Topic, topic.to_string()),
            Limited { consumers: Some(group), .. } => (LimitedKind::Group, group.to_string()),
            Limited { client: Some(client), .. } => (LimitedKind::Client, client.to_string()),
            Limited { .. } => bail!("one of -t, -g and -i says whose quota it is"),
        };
        Ok(Quota {
            kind: kind.into(),
            name,
            messages_per_second: self.messages,
            bytes_per_second: self.bytes,
            // The servers choose it.
            version: 0,
        })
    }
}

pub(super) async fn list_quotas(session: &Session) -> Result<Report> {
    let answer = session
        .call(ListQuotasRequest {}, |mut c, r| async move { c.list_quotas(r).await })
        .await?;
    Failure::of(answer.error)?;
    let mut rows = Rows::new(["of", "name", "messages/s", "bytes/s"]);
    for quota in &answer.quotas {
        rows.push([
            kind_name(quota).to_owned(),
            quota.name.clone(),
            quota.messages_per_second.to_string(),
            quota.bytes_per_second.to_string(),
        ]);
    }
    let json: Vec<_> = answer.quotas.iter().map(as_json).collect();
    Ok(Report::new(json!({ "quotas": json })).rows(rows))
}

/// Makes one change on every broker that knows what it is about.
pub(super) async fn change(session: &Session, change: Change) -> Result<(), Failure> {
    make(session, change).await.map(drop)
}

/// How a deletion ended. That there was nothing to delete is no failure: the answer to an earlier
/// attempt may have been lost.
enum Deleted {
    Now,
    Absent,
}

impl Deleted {
    /// For programs.
    fn name(&self) -> &'static str {
        match self {
            Self::Now => "deleted",
            Self::Absent => "absent",
        }
    }
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now => "deleted",
            Self::Absent => "does not exist",
        })
    }
}

async fn delete(session: &Session, change: Change) -> Result<Deleted, Failure> {
    let answer = make(session, change).await?;
    Ok(if answer.absent { Deleted::Absent } else { Deleted::Now })
}

async fn make(session: &Session, change: Change) -> Result<ChangeResponse, Failure> {
    let request = ChangeRequest { change: Some(change) };
    let answer = session.call(request, |mut c, r| async move { c.change(r).await }).await?;
    Failure::of(answer.error.clone())?;
    Ok(answer)
}

async fn check_cluster(session: &Session, cluster: Option<&str>) -> Result<()> {
    if let Some(cluster) = cluster {
        cluster::brokers_of(session, cluster).await?;
    }
    Ok(())
}

fn kind_name(quota: &Quota) -> &'static str {
    match quota.kind() {
        LimitedKind::Topic => "topic",
        LimitedKind::Group => "consumer group",
        LimitedKind::Client => "client",
        LimitedKind::Unspecified => "unknown",
    }
}

fn as_json(quota: &Quota) -> serde_json::Value {
    json!({
        "of": kind_name(quota),
        "name": quota.name,
        "messages_per_second": quota.messages_per_second,
        "bytes_per_second": quota.bytes_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(flags: &str) -> Result<Quota, clap::Error> {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            update: UpdateQuota,
        }
        let flags = std::iter::once("updateQuota").chain(flags.split_whitespace());
        let parsed = <Only as clap::Parser>::try_parse_from(flags)?;
        Ok(parsed.update.quota().expect("clap asks for one"))
    }

    #[test]
    fn a_quota_is_of_one_and_what_is_not_given_is_no_bound() {
        let of_topic = quota("-t orders --messages 5").unwrap();
        assert_eq!((of_topic.kind(), &*of_topic.name), (LimitedKind::Topic, "orders"));
        assert_eq!((of_topic.messages_per_second, of_topic.bytes_per_second), (5, 0));
        assert_eq!(quota("-g audit").unwrap().kind(), LimitedKind::Group);
        assert_eq!(quota("-i me").unwrap().kind(), LimitedKind::Client);
        assert!(quota("--messages 5").is_err());
        assert!(quota("-t orders -g audit").is_err());
    }
}
