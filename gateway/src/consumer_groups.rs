//! What the members of each consumer group must be told, as leaders said last.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use proto::{ConsumerGroup, session::GroupSettings};
use tracing::warn;

use crate::{
    Caller, Directory, Local, forward::Forwarder, operation::DescribeGroup, status::Refusal,
};

/// How long an answer counts. Changes are also announced, so this covers lost announcements.
const FRESH_FOR: Duration = Duration::from_secs(20);

/// Consumer groups remembered at once; over it, all are forgotten.
const GROUPS_MAX: usize = 16_384;

/// The last answer about each consumer group.
#[derive(Debug, Default)]
pub(crate) struct ConsumerGroups(Mutex<HashMap<ConsumerGroup, (Instant, GroupSettings)>>);

impl ConsumerGroups {
    /// The last answer, and whether it still counts.
    fn get(&self, group: &ConsumerGroup, now: Instant) -> Option<(GroupSettings, bool)> {
        let groups = self.0.lock().expect("no holder panics");
        let (until, settings) = groups.get(group)?;
        Some((settings.clone(), now < *until))
    }

    /// Takes note of what a leader said.
    pub(crate) fn put(&self, group: ConsumerGroup, settings: GroupSettings) {
        let mut groups = self.0.lock().expect("no holder panics");
        if groups.len() >= GROUPS_MAX {
            groups.clear();
        }
        groups.insert(group, (Instant::now() + FRESH_FOR, settings));
    }
}

impl<L: Local, D: Directory> Forwarder<L, D> {
    /// The group's settings within this time. When no leader answers by then: the last answer, or
    /// `None` when there never was one.
    pub(crate) async fn group_settings(
        &self,
        known: &ConsumerGroups,
        group: &ConsumerGroup,
        within: Duration,
    ) -> Option<GroupSettings> {
        let stale = match known.get(group, Instant::now()) {
            Some((settings, true)) => return Some(settings),
            Some((settings, false)) => Some(settings),
            None => None,
        };
        match self.ask_group_settings(group, within).await {
            Ok(settings) => {
                known.put(group.clone(), settings.clone());
                Some(settings)
            }
            Err(refusal) => {
                warn!(%group, %refusal, "consumer group's settings not available");
                stale
            }
        }
    }

    async fn ask_group_settings(
        &self,
        group: &ConsumerGroup,
        within: Duration,
    ) -> Result<GroupSettings, Refusal> {
        let caller = Caller::this_node(Instant::now() + within);
        let mut names = self.some_groups(&caller, within).await?;
        // Every broker group holds the same; this node's own is the nearest.
        names.sort_by_key(|name| self.local.broker_name() != Some(name));
        self.ask_any::<DescribeGroup>(&caller, &names, group.clone(), within).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_grows_stale_but_is_kept() {
        let groups = ConsumerGroups::default();
        let group: ConsumerGroup = "billing".parse().expect("valid");
        assert!(groups.get(&group, Instant::now()).is_none());
        groups.put(group.clone(), GroupSettings { fifo: true, ..GroupSettings::default() });
        let (settings, fresh) = groups.get(&group, Instant::now()).expect("kept");
        assert!(settings.fifo && fresh);
        let (_, fresh) = groups.get(&group, Instant::now() + FRESH_FOR).expect("kept");
        assert!(!fresh);
    }
}
