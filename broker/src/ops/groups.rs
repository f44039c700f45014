//! Consumer groups: their settings, and what their clients leave behind.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    ClientId, ConsumerGroup,
    clock::{millis, to_wire},
    session::GroupSettings,
    v2::{CustomizedBackoff, RetryPolicy, retry_policy::Strategy},
};
use tokio::sync::broadcast;

use super::Broker;
use crate::{
    Error,
    command::{Command, GroupConfig, Release},
};

/// What a client that is gone held is visible again after this.
const RELEASED_AFTER: Duration = Duration::from_secs(1);
const RELEASE_WAIT: Duration = Duration::from_secs(10);
const RELEASE_ATTEMPTS: u32 = 3;

impl Broker {
    /// What members of the group are told. A group that does not exist yet has the defaults: it
    /// comes into being when it is first handed a message.
    pub fn group_settings(&self, group: &ConsumerGroup) -> GroupSettings {
        let config = self.view.consumer_group(group);
        let GroupConfig { fifo, max_attempts, backoff } = config.unwrap_or_default();
        let next = backoff.steps_ms.iter().map(|ms| to_wire(Duration::from_millis(*ms)));
        let policy = RetryPolicy {
            max_attempts: i32::try_from(max_attempts).unwrap_or(i32::MAX),
            strategy: Some(Strategy::CustomizedBackoff(CustomizedBackoff { next: next.collect() })),
        };
        GroupSettings { group: group.to_string(), fifo, backoff: Some(policy), exists: true }
    }

    /// Names each consumer group whose settings change.
    pub fn group_changes(&self) -> broadcast::Receiver<ConsumerGroup> {
        self.view.group_changes()
    }

    /// A client is gone: what it held by automatic renewal goes to others.
    pub fn release(self: &Arc<Self>, client: ClientId, group: ConsumerGroup) {
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            let after_ms = millis(RELEASED_AFTER);
            let command = Command::Release(Release { client, group, after_ms });
            for _ in 0..RELEASE_ATTEMPTS {
                match broker.propose(&command, Instant::now() + RELEASE_WAIT).await {
                    // Doing it twice is harmless.
                    Err(Error::Overloaded(_) | Error::Unknown) => {
                        tokio::time::sleep(RELEASED_AFTER).await;
                    }
                    // Another leader hears of the same departure.
                    Ok(_) | Err(_) => return,
                }
            }
        });
    }
}
