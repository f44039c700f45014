//! A consumer group goes, or stops for a while.

use super::State;
use crate::command::{DeleteGroup, Effect, Limited, Outcome, Rejection, SettingKind, SwitchGroup};
use crate::kv;

impl State {
    pub(super) fn delete_group(&mut self, c: DeleteGroup) -> Outcome {
        let Some(id) = self.groups.id(&c.group) else {
            return Outcome::Rejected(Rejection::GroupNotFound);
        };
        let topics: Vec<_> = self.subscriptions.of_group(id).map(|(topic, _)| topic).collect();
        for topic in topics {
            self.subscriptions.end(id, topic);
        }
        self.forget_quota(&Limited::Group(c.group.clone()));
        for kind in [SettingKind::Group, SettingKind::Switch] {
            self.forget_setting(kind, c.group.to_string());
        }
        self.groups.remove(id);
        kv::forget::group(&mut self.change.batch, id);
        self.change.effects.push(Effect::GroupChanged { group: c.group });
        Outcome::Done
    }

    pub(super) fn switch_group(&mut self, c: SwitchGroup) -> Outcome {
        let id = match self.ensure_group(&c.group) {
            Ok(id) => id,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        if self.groups.standing(id).enabled != c.enabled {
            self.groups.switch(id, c.enabled);
            kv::group_standing::put(&mut self.change.batch, id, &self.groups.standing(id));
            self.change.effects.push(Effect::GroupChanged { group: c.group });
        }
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, ack, group, handle, pick, pop};
    use super::*;
    use crate::command::{AckOutcome, Command};

    #[test]
    fn a_group_goes_with_its_progress_and_begins_anew() {
        let mut script = Script::with_messages(3);
        let old: Vec<_> = script.pops_range(0..3).iter().map(handle).collect();
        script.acks(&old[..2]);
        let delete = || Command::DeleteGroup(DeleteGroup { group: group() });
        assert_eq!(script.does(delete()), Outcome::Done);
        assert_eq!(script.effects, [Effect::GroupChanged { group: group() }]);
        assert_eq!(script.state.group(&group()), None);
        assert_eq!(script.state.earliest_due(), None);
        let rejected = Outcome::Rejected(Rejection::GroupNotFound);
        assert_eq!(script.does(delete()), rejected);
        let mut script = script.restarted();
        assert_eq!(script.does(ack(&old)), rejected);

        let new: Vec<_> = script.pops_range(0..2).iter().map(handle).collect();
        assert_eq!(script.acks(&old), [AckOutcome::InvalidHandle; 3]);
        assert_eq!(script.acks(&new), [AckOutcome::Acked; 2]);
        let mut script = script.restarted();
        assert_eq!(script.acks(&old), [AckOutcome::InvalidHandle; 3]);
        assert_eq!(script.progress(), (2, 2, 0));
    }

    #[test]
    fn a_group_that_is_switched_off_is_handed_nothing() {
        let mut script = Script::with_messages(3);
        let held = script.pops_range(0..1);
        let switch = |enabled| Command::SwitchGroup(SwitchGroup { group: group(), enabled });
        assert_eq!(script.does(switch(false)), Outcome::Done);
        assert_eq!(script.effects.len(), 1);
        assert_eq!(script.does(switch(false)), Outcome::Done);
        assert!(script.effects.is_empty());
        let mut script = script.restarted();
        let outcome = script.does(Command::Pop(pop("worker", vec![pick(0, 1..3, &[1, 2])])));
        assert_eq!(outcome, Outcome::Rejected(Rejection::GroupDisabled));
        assert_eq!(script.acks(&[handle(&held[0])]), [AckOutcome::Acked]);
        assert_eq!(script.does(switch(true)), Outcome::Done);
        assert_eq!(script.pops_range(1..3).len(), 2);
    }
}
