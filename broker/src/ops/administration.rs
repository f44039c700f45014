//! What administrators do besides creating: deleting, switching, bounding.

use std::time::Instant;

use proto::{ConsumerGroup, Topic, clock::wall_now};

use super::{Broker, unexpected};
use crate::{
    Error,
    command::{
        Command, DeleteGroup, DeleteTopic, Limited, Outcome, PutQuota, PutRetention, PutSetting,
        Quota, Retention, RetireTopic, Setting, SwitchGroup,
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

    /// Removes the topic from this broker group, where nothing must be left of it.
    pub async fn retire_topic(&self, topic: Topic, deadline: Instant) -> Result<(), Error> {
        let retire = RetireTopic { topic: topic.clone() };
        self.administer(&Command::RetireTopic(retire), deadline).await?;
        tracing::info!(%topic, "topic retired from this broker group");
        Ok(())
    }

    /// Removes the consumer group with its progress.
    pub async fn delete_group(&self, group: ConsumerGroup, deadline: Instant) -> Result<(), Error> {
        self.administer(&Command::DeleteGroup(DeleteGroup { group: group.clone() }), deadline)
            .await?;
        tracing::info!(%group, "consumer group deleted");
        Ok(())
    }

    /// Lets the consumer group consume, or not. For versions see [`GroupSpec::version`], here and
    /// below.
    ///
    /// [`GroupSpec::version`]: super::GroupSpec::version
    pub async fn switch_group(
        &self,
        group: ConsumerGroup,
        enabled: bool,
        version: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        let switch = SwitchGroup { group: group.clone(), enabled };
        self.set(version, Setting::Switch(switch), deadline).await?;
        tracing::info!(%group, enabled, "consumer group switched");
        Ok(())
    }

    /// Bounds what may pass in a second in this broker group.
    pub async fn put_quota(
        &self,
        of: Limited,
        quota: Quota,
        version: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        let put = Setting::Quota(PutQuota { of: of.clone(), quota });
        self.set(version, put, deadline).await?;
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
        version: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        let put = PutRetention { topic: topic.clone(), retention };
        self.set(version, Setting::Retention(put), deadline).await?;
        tracing::info!(%topic, ms = retention.ms, bytes = retention.bytes, "retention set");
        Ok(())
    }

    pub(super) async fn set(
        &self,
        version: u64,
        setting: Setting,
        deadline: Instant,
    ) -> Result<(), Error> {
        let current = self.view.setting_version(&setting.of());
        let version = if version > 0 { version } else { wall_now().0.max(current + 1) };
        self.administer(&Command::PutSetting(PutSetting { version, setting }), deadline).await
    }

    async fn administer(&self, command: &Command, deadline: Instant) -> Result<(), Error> {
        self.leading()?;
        match self.propose(command, deadline).await? {
            Outcome::Done => Ok(()),
            other => unexpected(&other),
        }
    }
}
