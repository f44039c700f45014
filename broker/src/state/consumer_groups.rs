//! Consumer groups and their settings.

use std::collections::HashMap;

use proto::ConsumerGroup;

use crate::command::GroupConfig;
use crate::kv::{self, ConsumerGroupId, Kv};

/// All consumer groups, by name and by id. Ids are places in the list, which is never reordered.
#[derive(Debug, Default)]
pub(super) struct ConsumerGroups {
    ids: HashMap<ConsumerGroup, ConsumerGroupId>,
    list: Vec<(ConsumerGroup, GroupConfig)>,
}

impl ConsumerGroups {
    pub(super) fn load(kv: &dyn Kv) -> Result<Self, kv::Error> {
        let mut groups = Self::default();
        for (id, name, config) in kv::consumer_group::load(kv)? {
            let added = groups.add(name, config);
            assert_eq!(added, id, "consumer group ids are given out without gaps");
        }
        Ok(groups)
    }

    pub(super) fn id(&self, name: &ConsumerGroup) -> Option<ConsumerGroupId> {
        self.ids.get(name).copied()
    }

    pub(super) fn config(&self, id: ConsumerGroupId) -> &GroupConfig {
        &self.list[id.0 as usize].1
    }

    pub(super) fn name(&self, id: ConsumerGroupId) -> &ConsumerGroup {
        &self.list[id.0 as usize].0
    }

    /// In the order of creation.
    pub(super) fn iter(
        &self,
    ) -> impl Iterator<Item = (ConsumerGroupId, &ConsumerGroup, &GroupConfig)> {
        (0..).map(ConsumerGroupId).zip(&self.list).map(|(id, (name, config))| (id, name, config))
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn add(&mut self, name: ConsumerGroup, config: GroupConfig) -> ConsumerGroupId {
        let id = ConsumerGroupId(u32::try_from(self.list.len()).expect("groups are bounded"));
        self.ids.insert(name.clone(), id);
        self.list.push((name, config));
        id
    }

    pub(super) fn replace(&mut self, id: ConsumerGroupId, config: GroupConfig) {
        self.list[id.0 as usize].1 = config;
    }
}
