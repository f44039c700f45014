//! What administrators do besides creating: deleting, switching, bounding.

use std::time::Instant;

use proto::{ConsumerGroup, Topic};

use super::{Broker, unexpected};
use crate::{
    Error,
    command::{
        Command, DeleteGroup, DeleteTopic, Limited, Outcome, PutQuota, PutRetention, Quota,
        Retention, SwitchGroup,
    },
};

impl Broker {
    /// Removes the topic with everything in it.
    pub async fn delete_topic(&self, topic: Topic, deadline: Instant) -> Result<(), Error> {
        self.administer(&Command::DeleteTopic(DeleteTopic { topic: topic.clone() }), deadline)
            .await?;
        tracing::info!(%topic, "topic deleted");
        Ok(())
    }

    /// Removes the consumer group with its progress.
    pub async fn delete_group(&self, group: ConsumerGroup, deadline: Instant) -> Result<(), Error> {
        self.administer(&Command::DeleteGroup(DeleteGroup { group: group.clone() }), deadline)
            .await?;
        tracing::info!(%group, "consumer group deleted");
        Ok(())
    }

    /// Lets the consumer group consume, or not.
    pub async fn switch_group(
        &self,
        group: ConsumerGroup,
        enabled: bool,
        deadline: Instant,
    ) -> Result<(), Error> {
        let switch = SwitchGroup { group: group.clone(), enabled };
        self.administer(&Command::SwitchGroup(switch), deadline).await?;
        tracing::info!(%group, enabled, "consumer group switched");
        Ok(())
    }

    /// Bounds what may pass in a second in this broker group.
    pub async fn put_quota(
        &self,
        of: Limited,
        quota: Quota,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.administer(&Command::PutQuota(PutQuota { of: of.clone(), quota }), deadline).await?;
        let Quota { messages_per_second, bytes_per_second } = quota;
        tracing::info!(%of, messages_per_second, bytes_per_second, "quota set");
        Ok(())
    }

    /// Every quota that bounds anything.
    pub async fn list_quotas(&self, deadline: Instant) -> Result<Vec<(Limited, Quota)>, Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        Ok(self.view.quotas())
    }

    /// Sets how much of the topic is kept.
    pub async fn put_retention(
        &self,
        topic: Topic,
        retention: Retention,
        deadline: Instant,
    ) -> Result<(), Error> {
        let put = PutRetention { topic: topic.clone(), retention };
        self.administer(&Command::PutRetention(put), deadline).await?;
        tracing::info!(%topic, ms = retention.ms, bytes = retention.bytes, "retention set");
        Ok(())
    }

    async fn administer(&self, command: &Command, deadline: Instant) -> Result<(), Error> {
        self.leading()?;
        match self.propose(command, deadline).await? {
            Outcome::Done => Ok(()),
            other => unexpected(&other),
        }
    }
}
