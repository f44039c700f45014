//! updateTopic, updateTopicPerm, topicList, topicStatus.

use anyhow::{Result, bail};
use clap::Args;
use proto::{
    Topic,
    admin::{
        DescribeTopicRequest, ListTopicsRequest, Placement, PutTopicRequest, Retention,
        TopicConfig, TopicInfo, change_request::Change,
    },
    v2::{MessageType, Permission},
};
use serde_json::{Value, json};

use super::{Session, attributes, change, cluster};
use crate::{
    failure::Failure,
    output::{Report, Rows},
};

/// Queues that a new topic gets on each broker, as in RocketMQ.
const DEFAULT_QUEUES: u32 = 8;

#[derive(Debug, Args)]
pub struct Update {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// On all brokers of this cluster.
    #[arg(short = 'c', long = "clusterName", conflicts_with = "broker")]
    cluster: Option<String>,
    /// On these brokers only: names, or the address of one of a broker's replicas; `,` between.
    #[arg(short = 'b', long = "brokerAddr")]
    broker: Option<String>,
    /// Queues to read on each broker [default for a new topic: 8].
    #[arg(short = 'r', long = "readQueueNums")]
    read_queues: Option<u32>,
    /// Queues to write on each broker; the same number, or 0: then the brokers named take no more
    /// messages of the topic, and those that they have are still read. See deleteTopic -b.
    #[arg(short = 'w', long = "writeQueueNums")]
    write_queues: Option<u32>,
    /// 2: write, 4: read, 6: both [default for a new topic: 6].
    #[arg(short = 'p', long = "perm")]
    permission: Option<u8>,
    /// +message.type=NORMAL|FIFO|DELAY|TRANSACTION|MIXED [default for a new topic: NORMAL] and
    /// +reserve.time=HOURS, how long messages are kept; `,` between. -NAME takes one back.
    #[arg(short = 'a', long = "attributes", allow_hyphen_values = true)]
    attributes: Option<String>,
    /// How long messages are kept, in milliseconds, or `forever`; 0 leaves it to the brokers
    /// [default for a new topic: 0].
    #[arg(long = "retentionMs", value_parser = retention_ms)]
    retention_ms: Option<u64>,
    /// How many bytes of messages are kept on each broker; 0 is without bound [default for a new topic: 0].
    #[arg(long = "retentionBytes")]
    retention_bytes: Option<u64>,
}

impl Update {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let old = find(session, &self.topic).await?;
        let broker_names = self.broker_names(session, old.as_ref()).await?;
        let asked = attributes::parse(self.attributes.as_deref().unwrap_or(""))?;
        let config = self.config(&asked, old.as_ref().and_then(|topic| topic.config.as_ref()))?;
        let request = PutTopicRequest {
            config: Some(config.clone()),
            broker_names,
            create_only: false,
            ..PutTopicRequest::default()
        };
        let answer = session.call(request, |mut c, r| async move { c.put_topic(r).await }).await?;
        Failure::of(answer.error)?;
        let retention = self.retention(&asked, old.as_ref())?;
        if let Some(retention) = &retention {
            change::change(session, Change::PutRetention(retention.clone())).await?;
        }
        let kept = retention.unwrap_or_else(|| kept(old.as_ref()));
        let done = if old.is_some() { "updated" } else { "created" };
        let topic = TopicInfo {
            config: Some(config),
            placement: answer.placement,
            version: answer.version,
            retention_ms: kept.ms,
            retention_bytes: kept.bytes,
            retention_version: kept.version,
        };
        let json = json!({ "done": done, "topic": as_json(&topic) });
        Ok(Report::new(json).line(format!("topic {} {done}", self.topic)).rows(table(&[topic])))
    }

    /// What to set; nothing if nothing is given.
    fn retention(
        &self,
        asked: &attributes::Asked,
        old: Option<&TopicInfo>,
    ) -> Result<Option<Retention>> {
        let before = kept(old);
        if self.retention_ms.is_some() && asked.retention_ms.is_some() {
            bail!("--retentionMs and reserve.time are two names of one setting; give one");
        }
        let ms = self.retention_ms.or(asked.retention_ms);
        let given = ms.is_some() || self.retention_bytes.is_some();
        Ok(given.then(|| Retention {
            topic: self.topic.to_string(),
            ms: ms.unwrap_or(before.ms),
            bytes: self.retention_bytes.unwrap_or(before.bytes),
            version: 0,
        }))
    }

    async fn broker_names(
        &self,
        session: &Session,
        old: Option<&TopicInfo>,
    ) -> Result<Vec<String>> {
        if let Some(cluster) = &self.cluster {
            return cluster::brokers_of(session, cluster).await;
        }
        if let Some(brokers) = &self.broker {
            return cluster::broker_names(session, brokers).await;
        }
        // A topic stays where it is; a new one goes everywhere, which is what naming none means.
        let placement = old.map(|topic| topic.placement.as_slice()).unwrap_or_default();
        Ok(placement.iter().map(|place| place.broker_name.clone()).collect())
    }

    fn config(&self, asked: &attributes::Asked, old: Option<&TopicConfig>) -> Result<TopicConfig> {
        let closes = self.write_queues == Some(0);
        if closes && self.broker.is_none() {
            bail!("-w 0 closes the topic on some brokers: name them by -b");
        }
        let queues = match (self.read_queues, self.write_queues) {
            (_, Some(0)) => 0,
            (Some(read), Some(write)) if read != write => {
                bail!("-r {read} and -w {write} differ, but a queue here is read and written alike")
            }
            (Some(queues), _) | (None, Some(queues)) => queues,
            (None, None) => old.map_or(DEFAULT_QUEUES, |old| old.queues),
        };
        if queues == 0 && !closes {
            bail!("a topic has at least one queue");
        }
        let permission = match self.permission {
            Some(number) => permission(number)? as i32,
            None => old.map_or(Permission::ReadWrite as i32, |old| old.permission),
        };
        let accepts = match &asked.types {
            Some(types) => types.iter().map(|one| *one as i32).collect(),
            None => old.map_or(vec![MessageType::Normal as i32], |old| old.accepts.clone()),
        };
        Ok(TopicConfig { topic: self.topic.to_string(), queues, permission, accepts })
    }
}

#[derive(Debug, Args)]
pub struct UpdatePermission {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
    /// 2: write, 4: read, 6: both.
    #[arg(short = 'p', long = "perm")]
    permission: u8,
}

impl UpdatePermission {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        if find(session, &self.topic).await?.is_none() {
            bail!(Failure::Rejected(format!("topic {} does not exist", self.topic)));
        }
        let update = Update {
            topic: self.topic,
            cluster: None,
            broker: None,
            read_queues: None,
            write_queues: None,
            permission: Some(self.permission),
            attributes: None,
            retention_ms: None,
            retention_bytes: None,
        };
        update.run(session).await
    }
}

fn kept(topic: Option<&TopicInfo>) -> Retention {
    topic.map_or_else(Retention::default, |topic| Retention {
        topic: name(topic).to_owned(),
        ms: topic.retention_ms,
        bytes: topic.retention_bytes,
        version: topic.retention_version,
    })
}

/// Messages are kept however old they are.
const FOR_EVER: u64 = u64::MAX;

fn retention_ms(text: &str) -> Result<u64, String> {
    match text {
        "forever" => Ok(FOR_EVER),
        ms => ms.parse().map_err(|_| "write milliseconds, or forever".to_owned()),
    }
}

/// How much of a topic is kept, in words.
fn kept_line(topic: &TopicInfo) -> String {
    let time = match topic.retention_ms {
        0 => "as long as the brokers say".to_owned(),
        FOR_EVER => "for ever".to_owned(),
        ms => format!("for {} s", ms as f64 / 1000.0),
    };
    match topic.retention_bytes {
        0 => format!("messages are kept {time}"),
        bytes => format!("messages are kept {time}, and {bytes} bytes of them on each broker"),
    }
}

fn permission(number: u8) -> Result<Permission> {
    match number {
        2 => Ok(Permission::Write),
        4 => Ok(Permission::Read),
        6 => Ok(Permission::ReadWrite),
        other => bail!("-p {other} is no permission; 2 is write, 4 is read, 6 is both"),
    }
}

pub(super) async fn list(session: &Session) -> Result<Report> {
    let mut topics = topics(session).await?;
    topics.sort_by(|a, b| name(a).cmp(name(b)));
    let json = topics.iter().map(as_json).collect::<Vec<_>>();
    Ok(Report::new(json!({ "topics": json })).rows(table(&topics)))
}

#[derive(Debug, Args)]
pub struct Status {
    #[arg(short = 't', long = "topic")]
    topic: Topic,
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let request = DescribeTopicRequest { topic: self.topic.to_string() };
        let answer =
            session.call(request, |mut c, r| async move { c.describe_topic(r).await }).await?;
        Failure::of(answer.error)?;
        let mut queues = answer.queues;
        queues.sort_by(|a, b| (&a.broker_name, a.queue_id).cmp(&(&b.broker_name, b.queue_id)));
        let mut rows = Rows::new(["broker", "queue", "min offset", "max offset", "messages"]);
        let mut json = Vec::new();
        for queue in &queues {
            let messages = queue.max_offset.saturating_sub(queue.min_offset);
            rows.push([
                queue.broker_name.clone(),
                queue.queue_id.to_string(),
                queue.min_offset.to_string(),
                queue.max_offset.to_string(),
                messages.to_string(),
            ]);
            json.push(json!({
                "broker": queue.broker_name,
                "queue": queue.queue_id,
                "min_offset": queue.min_offset,
                "max_offset": queue.max_offset,
            }));
        }
        let line = answer.topic.as_ref().map_or_else(String::new, kept_line);
        let topic = answer.topic.as_ref().map(as_json);
        Ok(Report::new(json!({ "topic": topic, "queues": json })).line(line).rows(rows))
    }
}

/// The names of all topics, in order.
pub(super) async fn names(session: &Session) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        topics(session).await?.iter().map(|topic| name(topic).to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

async fn topics(session: &Session) -> Result<Vec<TopicInfo>, Failure> {
    let answer = session
        .call(ListTopicsRequest {}, |mut c, r| async move { c.list_topics(r).await })
        .await?;
    Failure::of(answer.error)?;
    Ok(answer.topics)
}

/// The topic, if it exists. A broker that does not answer matters only while no other one has it.
async fn find(session: &Session, topic: &Topic) -> Result<Option<TopicInfo>, Failure> {
    let answer = session
        .call(ListTopicsRequest {}, |mut c, r| async move { c.list_topics(r).await })
        .await?;
    let found = answer.topics.into_iter().find(|known| name(known) == topic.as_str());
    if found.is_none() {
        Failure::of(answer.error)?;
    }
    Ok(found)
}

fn name(topic: &TopicInfo) -> &str {
    topic.config.as_ref().map_or("", |config| &config.topic)
}

fn table(topics: &[TopicInfo]) -> Rows {
    let mut rows = Rows::new(["topic", "message type", "permission", "queues", "brokers"]);
    for topic in topics {
        let config = topic.config.clone().unwrap_or_default();
        let place = |p: &Placement| format!("{}:{}", p.broker_name, p.queues);
        rows.push([
            config.topic.clone(),
            attributes::describe(&config.accepts),
            permission_name(config.permission),
            topic.placement.iter().map(|p| p.queues).sum::<u32>().to_string(),
            topic.placement.iter().map(place).collect::<Vec<_>>().join(", "),
        ]);
    }
    rows
}

fn as_json(topic: &TopicInfo) -> Value {
    let config = topic.config.clone().unwrap_or_default();
    let place = |p: &Placement| json!({ "broker": p.broker_name, "queues": p.queues });
    json!({
        "name": config.topic,
        "message_type": attributes::describe(&config.accepts),
        "permission": permission_name(config.permission),
        "queues_per_broker": config.queues,
        "placement": topic.placement.iter().map(place).collect::<Vec<_>>(),
        "version": topic.version,
        "retention_ms": topic.retention_ms,
        "retention_bytes": topic.retention_bytes,
    })
}

fn permission_name(number: i32) -> String {
    Permission::try_from(number)
        .map_or_else(|_| number.to_string(), |permission| permission.as_str_name().to_owned())
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
        let flags = std::iter::once("updateTopic").chain(flags.split_whitespace());
        <Only as clap::Parser>::parse_from(flags).update
    }

    impl Update {
        fn config_of(&self, old: Option<&TopicConfig>) -> Result<TopicConfig> {
            let asked = attributes::parse(self.attributes.as_deref().unwrap_or(""))?;
            self.config(&asked, old)
        }

        fn kept(&self) -> Result<Option<u64>> {
            let asked = attributes::parse(self.attributes.as_deref().unwrap_or(""))?;
            Ok(self.retention(&asked, None)?.map(|retention| retention.ms))
        }
    }

    #[test]
    fn the_time_to_keep_has_two_names() {
        assert_eq!(update("-t a").kept().unwrap(), None);
        assert_eq!(update("-t a --retentionMs 5").kept().unwrap(), Some(5));
        assert_eq!(update("-t a --retentionMs forever").kept().unwrap(), Some(u64::MAX));
        assert_eq!(update("-t a -a +reserve.time=1").kept().unwrap(), Some(3_600_000));
        assert!(update("-t a --retentionMs 5 -a +reserve.time=1").kept().is_err());
        let info = |ms, bytes| TopicInfo {
            retention_ms: ms,
            retention_bytes: bytes,
            ..TopicInfo::default()
        };
        assert_eq!(kept_line(&info(1500, 0)), "messages are kept for 1.5 s");
        assert_eq!(
            kept_line(&info(FOR_EVER, 9)),
            "messages are kept for ever, and 9 bytes of them on each broker"
        );
    }

    #[test]
    fn a_new_topic_has_the_usual_settings() {
        let config = update("-t orders").config_of(None).unwrap();
        assert_eq!(config.queues, 8);
        assert_eq!(config.permission, Permission::ReadWrite as i32);
        assert_eq!(config.accepts, [MessageType::Normal as i32]);
    }

    #[test]
    fn what_is_not_given_stays() {
        let old = TopicConfig {
            topic: "orders".into(),
            queues: 3,
            permission: Permission::Read as i32,
            accepts: vec![MessageType::Fifo as i32],
        };
        assert_eq!(update("-t orders").config_of(Some(&old)).unwrap(), old);
        let wider = update("-t orders -r 9").config_of(Some(&old)).unwrap();
        assert_eq!(wider, TopicConfig { queues: 9, ..old.clone() });
        let delay = update("-t orders -a +message.type=DELAY").config_of(Some(&old)).unwrap();
        assert_eq!(delay.accepts, [MessageType::Delay as i32]);
        let normal = update("-t orders -a -message.type").config_of(Some(&old)).unwrap();
        assert_eq!(normal.accepts, [MessageType::Normal as i32]);
    }

    #[test]
    fn contradictions_are_refused() {
        for bad in ["-t a -r 4 -w 8", "-t a -p 7", "-t a -r 0", "-t a -w 0", "-t a -a +x=y"] {
            assert!(update(bad).config_of(None).is_err(), "{bad}");
        }
        assert_eq!(update("-t a -r 4 -w 4").config_of(None).unwrap().queues, 4);
        assert_eq!(update("-t a -b broker-b -w 0").config_of(None).unwrap().queues, 0);
    }
}
