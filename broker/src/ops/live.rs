//! Settings that administrators change while the broker runs: the same on all replicas of the group,
//! laid over what each node was started with.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{clock::wall_now, message::Rules};
use tracing::{info, warn};

use super::{Broker, RetentionSettings, TransactionSettings, Tunables, unexpected};
use crate::{
    Error,
    command::{Command, Outcome, PutLiveSetting},
    config::{Config, Entry, ReadMode},
};

/// How often a node looks for settings that came with a snapshot, of which nobody tells.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Broker {
    /// The settings in force now.
    pub fn tunables(&self) -> Arc<Tunables> {
        Arc::clone(&self.tunables.read().expect("no holder panics"))
    }

    /// Takes over what was set while brokers ran, again and again.
    pub async fn follow_live_settings(self: Arc<Self>) {
        let mut changes = self.view.live_settings_changed();
        let mut seen = self.view.live_settings();
        loop {
            // It ends with the state, and so does this task.
            let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
            let now = self.view.live_settings();
            if now != seen {
                self.take_over_live_settings();
                info!(settings = ?now, "settings changed while running");
                seen = now;
            }
        }
    }

    fn take_over_live_settings(&self) {
        let laid_over = self.settings.book.with(&self.view.live_settings());
        for (key, why) in &laid_over.refused {
            warn!(key, %why, "a replicated setting does not go with this node's own");
        }
        let tunables = Arc::new(tunables(&laid_over.config));
        *self.tunables.write().expect("no holder panics") = tunables;
    }

    /// Sets a key on all replicas, or lets each have its own again.
    ///
    /// # Errors
    /// The key is unknown or cannot be changed while brokers run, or the value does not go with the
    /// other settings.
    pub async fn put_live_setting(
        &self,
        key: String,
        value: Option<String>,
        version: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        let current = self.view.live_setting_version(&key);
        let checked = self.settings.book.check(&self.view.live_settings(), &key, value.as_deref());
        checked.map_err(|why| Error::LiveSetting { why: why.to_string() })?;
        let version = if version > 0 { version } else { wall_now().0.max(current + 1) };
        let put = PutLiveSetting { version, key: key.clone(), value: value.clone() };
        match self.propose(&Command::PutLiveSetting(put), deadline).await? {
            Outcome::Done => {}
            other => unexpected(&other),
        }
        self.take_over_live_settings();
        info!(key, value, "setting changed by an administrator");
        Ok(())
    }

    /// Every setting of this node, and where its value comes from.
    pub fn config_entries(&self) -> Vec<Entry> {
        self.settings.book.entries(&self.view.live_settings())
    }
}

/// What the operations use of the settings.
pub(super) fn tunables(config: &Config) -> Tunables {
    Tunables {
        auto_create_topics: config.auto_create_topics,
        auto_create_queues: config.auto_create_queues,
        follower_reads: config.read.mode == ReadMode::Follower,
        rules: Rules { max_delay: config.max_delay, ..Rules::default() },
        timers_per_second: config.limits.timers_per_second,
        invisible_min: config.limits.invisible_min,
        retention: RetentionSettings {
            time: unless_zero(config.log.retention_time),
            dead_letter_time: unless_zero(config.log.dead_letter_retention_time),
            bytes: config.log.retention_bytes.0,
        },
        transactions: TransactionSettings {
            timeout: config.transaction.timeout,
            check_interval: config.transaction.check_interval,
            check_max: config.transaction.check_max,
            max_age: config.transaction.max_age,
        },
    }
}

/// No time is for ever.
fn unless_zero(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}
