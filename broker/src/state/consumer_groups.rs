//! Consumer groups and their settings.

use std::collections::{BTreeMap, HashMap};

use proto::ConsumerGroup;

use crate::command::GroupConfig;
use crate::kv::group_standing::GroupStanding;
use crate::kv::{self, ConsumerGroupId, Kv};

#[derive(Debug)]
struct GroupState {
    name: ConsumerGroup,
    config: GroupConfig,
    standing: GroupStanding,
}

/// All consumer groups, by name and by id.
#[derive(Debug)]
pub(super) struct ConsumerGroups {
    ids: HashMap<ConsumerGroup, ConsumerGroupId>,
    by_id: BTreeMap<ConsumerGroupId, GroupState>,
    /// What the next group gets.
    next: ConsumerGroupId,
}

impl ConsumerGroups {
    /// `next` is the id that the next group gets.
    pub(super) fn load(kv: &dyn Kv, next: ConsumerGroupId) -> Result<Self, kv::Error> {
        let mut groups = Self { ids: HashMap::new(), by_id: BTreeMap::new(), next };
        for (id, name, config) in kv::consumer_group::load(kv)? {
            assert!(id < next, "the next consumer group id is higher than any that was given out");
            groups.insert(id, name, config, GroupStanding { born: 0, enabled: true });
        }
        kv::group_standing::load(kv, |id, standing| {
            groups.by_id.get_mut(&id).ok_or("there is no such consumer group")?.standing = standing;
            Ok(())
        })?;
        Ok(groups)
    }

    pub(super) fn id(&self, name: &ConsumerGroup) -> Option<ConsumerGroupId> {
        self.ids.get(name).copied()
    }

    pub(super) fn config(&self, id: ConsumerGroupId) -> &GroupConfig {
        &self.get(id).config
    }

    pub(super) fn name(&self, id: ConsumerGroupId) -> &ConsumerGroup {
        &self.get(id).name
    }

    pub(super) fn standing(&self, id: ConsumerGroupId) -> GroupStanding {
        self.get(id).standing
    }

    /// In the order of creation.
    pub(super) fn iter(
        &self,
    ) -> impl Iterator<Item = (ConsumerGroupId, &ConsumerGroup, &GroupConfig)> {
        self.by_id.iter().map(|(id, group)| (*id, &group.name, &group.config))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// What the next group gets.
    pub(super) fn next_id(&self) -> ConsumerGroupId {
        self.next
    }

    /// A new group, created by the command that `born` names.
    pub(super) fn add(
        &mut self,
        name: ConsumerGroup,
        config: GroupConfig,
        born: u64,
    ) -> ConsumerGroupId {
        let id = self.next;
        let next = id.0.checked_add(1).expect("4 billion consumer groups are not created");
        self.next = ConsumerGroupId(next);
        self.insert(id, name, config, GroupStanding { born, enabled: true });
        id
    }

    pub(super) fn replace(&mut self, id: ConsumerGroupId, config: GroupConfig) {
        self.get_mut(id).config = config;
    }

    pub(super) fn switch(&mut self, id: ConsumerGroupId, enabled: bool) {
        self.get_mut(id).standing.enabled = enabled;
    }

    pub(super) fn remove(&mut self, id: ConsumerGroupId) {
        let group = self.by_id.remove(&id).expect("it was found");
        self.ids.remove(&group.name);
    }

    fn insert(
        &mut self,
        id: ConsumerGroupId,
        name: ConsumerGroup,
        config: GroupConfig,
        standing: GroupStanding,
    ) {
        self.ids.insert(name.clone(), id);
        self.by_id.insert(id, GroupState { name, config, standing });
    }

    fn get(&self, id: ConsumerGroupId) -> &GroupState {
        self.by_id.get(&id).expect("what refers to a consumer group goes with it")
    }

    fn get_mut(&mut self, id: ConsumerGroupId) -> &mut GroupState {
        self.by_id.get_mut(&id).expect("what refers to a consumer group goes with it")
    }
}
