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
        let id = self.groups.add(group.clone(), config, self.change.command);
        kv::consumer_group::put(&mut self.change.batch, id, &group, self.groups.config(id));
        kv::group_standing::put(&mut self.change.batch, id, &self.groups.standing(id));
        self.write_next_ids();
        self.change.effects.push(Effect::GroupChanged { group });
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, group, pick, pop};
    use super::*;
    use crate::command::{Backoff, Command};

    fn config(max_attempts: u32) -> GroupConfig {
        let backoff = Backoff::Exponential { initial_ms: 1, max_ms: 8, multiplier: 2 };
        GroupConfig { fifo: true, max_attempts, backoff }
    }

    fn put(max_attempts: u32) -> Command {
        Command::PutGroup(PutGroup { group: group(), config: config(max_attempts) })
    }

    #[test]
    fn a_group_is_created_and_changed_and_survives_a_restart() {
        let mut script = Script::new();
        let changed = [Effect::GroupChanged { group: group() }];
        for (max_attempts, effects) in [(3, &changed[..]), (3, &[]), (4, &changed[..])] {
            assert_eq!(script.does(put(max_attempts)), Outcome::Done);
            assert_eq!(script.effects, effects);
        }
        let script = script.restarted();
        assert_eq!(script.state.group(&group()), Some(&config(4)));
        assert_eq!(script.state.groups().count(), 1);
    }

    #[test]
    fn a_group_comes_into_being_with_its_first_pop() {
        let mut script = Script::with_messages(1);
        assert_eq!(script.state.group(&group()), None);
        script.pops(pop("worker", vec![pick(0, 0..1, &[])]));
        let script = script.restarted();
        assert_eq!(script.state.group(&group()), Some(&GroupConfig::default()));
    }

    #[test]
    fn the_default_backoff_is_the_references() {
        let Backoff::Customized { steps_ms: steps } = Backoff::default() else {
            panic!("customized is the default");
        };
        assert_eq!(steps.len(), 18);
        assert_eq!((steps[0], steps[1], steps[4], steps[17]), (1_000, 5_000, 60_000, 7_200_000));
    }
}
