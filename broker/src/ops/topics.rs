//! Finding topics, and creating them on first use where that is switched on.

use std::time::Instant;

use proto::{
    Topic,
    v2::{MessageType, Permission},
};

use super::{Broker, unexpected};
use crate::{
    Error,
    command::{Command, Outcome, PutTopic, TopicConfig},
};

/// What a topic that came into being by use takes: anything.
const ANY: [MessageType; 4] =
    [MessageType::Normal, MessageType::Fifo, MessageType::Delay, MessageType::Transaction];
/// An administrator's first setting wins over it.
const AUTO_CREATED_VERSION: u64 = 1;

impl Broker {
    /// The topic's settings. That it does not exist is said only after a look at everything that
    /// was committed.
    pub async fn topic(&self, topic: &Topic, deadline: Instant) -> Result<TopicConfig, Error> {
        self.find_topic(topic, deadline).await?.ok_or_else(|| Error::TopicNotFound(topic.clone()))
    }

    /// The same without creating anything; `None` if this broker group does not have it.
    pub async fn look_up_topic(
        &self,
        topic: &Topic,
        deadline: Instant,
    ) -> Result<Option<TopicConfig>, Error> {
        if let Some(config) = self.view.topic(topic) {
            return Ok(Some(config));
        }
        self.catch_up(deadline).await?;
        Ok(self.view.topic(topic))
    }

    /// The same, created on the way where that is switched on.
    pub async fn find_topic(
        &self,
        topic: &Topic,
        deadline: Instant,
    ) -> Result<Option<TopicConfig>, Error> {
        let found = self.look_up_topic(topic, deadline).await?;
        // Topics of dead letters come into being with the first of them.
        let creates = self.tunables().auto_create_topics && !topic.is_dead_letters();
        if found.is_some() || !creates {
            return Ok(found);
        }
        self.create_on_use(topic, deadline).await?;
        Ok(self.view.topic(topic))
    }

    async fn create_on_use(&self, topic: &Topic, deadline: Instant) -> Result<(), Error> {
        let queues = self.tunables().auto_create_queues;
        let config = TopicConfig {
            queues,
            permission: Permission::ReadWrite,
            accepts: ANY.to_vec(),
            placement: vec![(self.settings.name.clone(), queues)],
            version: AUTO_CREATED_VERSION,
        };
        let put = PutTopic { topic: topic.clone(), config, create_only: true };
        match self.propose(&Command::PutTopic(put), deadline).await? {
            Outcome::TopicPut { created, .. } => {
                if created {
                    tracing::info!(%topic, queues, "topic created on use");
                }
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}
