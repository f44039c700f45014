//! Consumer groups: their settings, and what their clients leave behind.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    ClientId, ConsumerGroup,
    clock::{millis, to_wire},
    session::GroupSettings,
    v2::{CustomizedBackoff, ExponentialBackoff, RetryPolicy, retry_policy::Strategy},
};
use tokio::sync::broadcast;

use super::Broker;
use crate::{
    Error,
    command::{Backoff, Command, GroupConfig, Release},
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
        let policy = RetryPolicy {
            max_attempts: i32::try_from(max_attempts).unwrap_or(i32::MAX),
            strategy: Some(strategy(&backoff)),
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

fn strategy(backoff: &Backoff) -> Strategy {
    let wire = |ms: &u64| to_wire(Duration::from_millis(*ms));
    match backoff {
        Backoff::Customized { steps_ms } => Strategy::CustomizedBackoff(CustomizedBackoff {
            next: steps_ms.iter().map(wire).collect(),
        }),
        Backoff::Exponential { initial_ms, max_ms, multiplier } => {
            // Above 16 million, which no policy has, a neighbour would do as well.
            #[expect(clippy::cast_precision_loss, reason = "small numbers are exact")]
            let multiplier = *multiplier as f32;
            Strategy::ExponentialBackoff(ExponentialBackoff {
                initial: Some(wire(initial_ms)),
                max: Some(wire(max_ms)),
                multiplier,
            })
        }
    }
}
