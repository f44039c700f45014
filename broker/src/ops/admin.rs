//! What administrators do to this broker group.

use std::{collections::BTreeSet, time::Instant};

use proto::{
    BrokerName, ConsumerGroup, QueueId, QueueOffset, Topic,
    clock::wall_now,
    v2::{MessageType, Permission},
};

use super::{Broker, unexpected};
use crate::{
    Error,
    command::{Backoff, Command, GroupConfig, Outcome, PutGroup, PutTopic, Setting, TopicConfig},
};

/// Attempts of a group that does not say.
const MOST_ATTEMPTS: u32 = 1000;
/// One byte counts them in the log.
const MOST_BACKOFF_STEPS: usize = 255;

/// A topic as it is asked for.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Its name.
    pub topic: Topic,
    /// In this broker group; 0 closes it here, which takes another group that is open.
    pub queues: u32,
    /// Never unspecified.
    pub permission: Permission,
    /// Which messages it takes. Not empty.
    pub accepts: Vec<MessageType>,
    /// Leave an existing one alone.
    pub create_only: bool,
    /// The same in all broker groups; 0 has this group choose one.
    pub version: u64,
    /// Over all broker groups; empty for this one alone.
    pub placement: Vec<(BrokerName, u32)>,
}

/// A consumer group as it is asked for.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// Its name.
    pub group: ConsumerGroup,
    /// Deliver in order.
    pub fifo: bool,
    /// 0 for the default.
    pub max_attempts: u32,
    /// Pauses before each further attempt; `None` for the default.
    pub backoff: Option<Backoff>,
    /// The same in all broker groups; 0 has this group choose one.
    pub version: u64,
}

/// A queue and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRange {
    /// Which.
    pub queue: QueueId,
    /// Its first offset.
    pub min: QueueOffset,
    /// The offset of its next message.
    pub max: QueueOffset,
}

impl Broker {
    /// Creates or changes a topic; its version and placement as they are afterwards.
    pub async fn put_topic(
        &self,
        spec: TopicSpec,
        deadline: Instant,
    ) -> Result<TopicConfig, Error> {
        self.leading()?;
        let config = self.topic_config(&spec)?;
        let topic = spec.topic;
        let create_only = spec.create_only;
        let put = PutTopic { topic: topic.clone(), config, create_only };
        match self.propose(&Command::PutTopic(put), deadline).await? {
            Outcome::TopicPut { created, version } => {
                tracing::info!(%topic, version, created, "topic set");
            }
            other => unexpected(&other),
        }
        self.view.topic(&topic).ok_or(Error::TopicNotFound(topic))
    }

    fn topic_config(&self, spec: &TopicSpec) -> Result<TopicConfig, Error> {
        let bad = |field, why| Err(Error::BadSetting { field, why });
        if spec.permission == Permission::Unspecified {
            return bad("permission", "must be none, read, write or both");
        }
        let accepts: BTreeSet<MessageType> = spec.accepts.iter().copied().collect();
        if accepts.is_empty() || accepts.contains(&MessageType::Unspecified) {
            return bad("accepts", "must name the message types that the topic takes");
        }
        let mut placement = spec.placement.clone();
        if placement.is_empty() {
            placement.push((self.settings.name.clone(), spec.queues));
        }
        placement.sort();
        if placement.iter().all(|(_, queues)| *queues == 0) {
            return bad("queues", "a topic has at least one");
        }
        let own = (self.settings.name.clone(), spec.queues);
        if !placement.contains(&own) {
            return bad("placement", "must hold this broker group with its number of queues");
        }
        if placement.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return bad("placement", "names a broker group twice");
        }
        Ok(TopicConfig {
            queues: spec.queues,
            permission: spec.permission,
            accepts: accepts.into_iter().collect(),
            placement,
            version: self.version_for(spec),
        })
    }

    /// Milliseconds since 1970 grow on their own and are alike on all nodes; a clock that stands
    /// back must not keep a topic from being changed.
    fn version_for(&self, spec: &TopicSpec) -> u64 {
        if spec.version > 0 {
            return spec.version;
        }
        let current = self.view.topic(&spec.topic).map_or(0, |config| config.version);
        wall_now().0.max(current + 1)
    }

    /// All topics of this broker group.
    pub async fn list_topics(&self, deadline: Instant) -> Result<Vec<(Topic, TopicConfig)>, Error> {
        self.catch_up(deadline).await?;
        Ok(self.view.topics())
    }

    /// A topic and what its queues hold.
    pub async fn describe_topic(
        &self,
        topic: &Topic,
        deadline: Instant,
    ) -> Result<(TopicConfig, Vec<QueueRange>), Error> {
        self.catch_up(deadline).await?;
        let config = self.view.topic(topic).ok_or_else(|| Error::TopicNotFound(topic.clone()))?;
        let range = |(queue, min, max)| QueueRange { queue, min, max };
        Ok((config, self.view.queue_ends(topic).into_iter().map(range).collect()))
    }

    /// Creates or changes a consumer group.
    pub async fn put_group(&self, spec: GroupSpec, deadline: Instant) -> Result<(), Error> {
        self.leading()?;
        if spec.max_attempts > MOST_ATTEMPTS {
            let why = "must be at most 1000";
            return Err(Error::BadSetting { field: "max_attempts", why });
        }
        spec.backoff.as_ref().map_or(Ok(()), check_backoff)?;
        let GroupSpec { group, fifo, max_attempts, backoff, version } = spec;
        let default = GroupConfig::default();
        let config = GroupConfig {
            fifo,
            max_attempts: if max_attempts == 0 { default.max_attempts } else { max_attempts },
            backoff: backoff.unwrap_or(default.backoff),
        };
        let put = Setting::Group(PutGroup { group: group.clone(), config });
        self.set(version, put, deadline).await?;
        tracing::info!(%group, "consumer group set");
        Ok(())
    }

    /// All consumer groups of this broker group.
    pub async fn list_groups(
        &self,
        deadline: Instant,
    ) -> Result<Vec<(ConsumerGroup, GroupConfig)>, Error> {
        self.catch_up(deadline).await?;
        Ok(self.view.consumer_groups())
    }
}

fn check_backoff(backoff: &Backoff) -> Result<(), Error> {
    let bad = |why| Err(Error::BadSetting { field: "backoff", why });
    match backoff {
        Backoff::Customized { steps_ms } if steps_ms.is_empty() => bad("must have a step"),
        Backoff::Customized { steps_ms } if steps_ms.len() > MOST_BACKOFF_STEPS => {
            bad("must have at most 255 steps")
        }
        Backoff::Customized { .. } => Ok(()),
        Backoff::Exponential { initial_ms, max_ms, multiplier } => {
            if *initial_ms == 0 || max_ms < initial_ms || *multiplier == 0 {
                return bad("needs an initial pause, a longest one not below it, and a multiplier");
            }
            Ok(())
        }
    }
}
