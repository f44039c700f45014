//! Creating and changing consumer groups.

use proto::ConsumerGroup;

use super::{State, limits};
use crate::command::{Effect, GroupConfig, Outcome, PutGroup, Rejection};
use crate::kv::{self, ConsumerGroupId};

impl State {
    pub(super) fn put_group(&mut self, c: PutGroup) -> Outcome {
        let Some(id) = self.groups.id(&c.group) else {
            return match self.create_group(c.group, c.config) {
                Ok(_) => Outcome::Done,
                Err(rejection) => Outcome::Rejected(rejection),
            };
        };
        if *self.groups.config(id) != c.config {
            kv::consumer_group::put(&mut self.change.batch, id, &c.group, &c.config);
            self.groups.replace(id, c.config);
            self.change.effects.push(Effect::GroupChanged { group: c.group });
        }
        Outcome::Done
    }

    /// The consumer group, which comes into being if need be.
    pub(super) fn ensure_group(
        &mut self,
        group: &ConsumerGroup,
    ) -> Result<ConsumerGroupId, Rejection> {
        match self.groups.id(group) {
            Some(id) => Ok(id),
            None => self.create_group(group.clone(), GroupConfig::default()),
        }
    }

    fn create_group(
        &mut self,
        group: ConsumerGroup,
        config: GroupConfig,
    ) -> Result<ConsumerGroupId, Rejection> {
        if self.groups.len() >= limits::CONSUMER_GROUPS as usize {
            return Err(Rejection::TooManyGroups { max: limits::CONSUMER_GROUPS });
        }
        let id = self.groups.add(group.clone(), config);
        kv::consumer_group::put(&mut self.change.batch, id, &group, self.groups.config(id));
        self.change.effects.push(Effect::GroupChanged { group });
        Ok(id)
    }
}
