//! How much may pass in a second. Kept here, enforced by the leader.

use std::collections::BTreeMap;

use super::{State, limits};
use crate::command::{
    Effect, Limited, Outcome, PutQuota, PutRetention, Quota, Rejection, SettingOf,
};
use crate::kv::{self, Kv};

/// All quotas that bound anything.
#[derive(Debug, Default)]
pub(super) struct Quotas(BTreeMap<Limited, Quota>);

impl Quotas {
    pub(super) fn load(kv: &dyn Kv) -> Result<Self, kv::Error> {
        let mut quotas = BTreeMap::new();
        kv::quota::load(kv, |of, quota| {
            quotas.insert(of, quota);
        })?;
        Ok(Self(quotas))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Limited, &Quota)> {
        self.0.iter()
    }
}

impl State {
    /// The quota; without bound when there is none.
    #[must_use]
    pub fn quota(&self, of: &Limited) -> Quota {
        self.quotas.0.get(of).copied().unwrap_or_default()
    }

    /// Every quota that bounds anything.
    pub fn quotas(&self) -> impl Iterator<Item = (&Limited, &Quota)> {
        self.quotas.iter()
    }

    pub(super) fn put_quota(&mut self, c: PutQuota) -> Outcome {
        if c.quota == Quota::default() {
            self.forget_quota(&c.of);
            return Outcome::Done;
        }
        let known = self.quotas.0.contains_key(&c.of);
        if !known && self.quotas.0.len() >= limits::QUOTAS as usize {
            return Outcome::Rejected(Rejection::TooManyQuotas { max: limits::QUOTAS });
        }
        kv::quota::put(&mut self.change.batch, &c.of, &c.quota);
        self.quotas.0.insert(c.of, c.quota);
        Outcome::Done
    }

    pub(super) fn forget_quota(&mut self, of: &Limited) {
        if self.quotas.0.remove(of).is_some() {
            kv::quota::delete(&mut self.change.batch, of);
        }
        let SettingOf { kind, name } = SettingOf::quota(of);
        self.forget_setting(kind, name);
    }

    pub(super) fn put_retention(&mut self, c: &PutRetention) -> Outcome {
        let Some(id) = self.topics.id(&c.topic) else {
            return Outcome::Rejected(Rejection::TopicNotFound);
        };
        self.topics.set_retention(id, c.retention);
        self.change.effects.push(Effect::TopicChanged { topic: c.topic.clone() });
        kv::topic_standing::put(&mut self.change.batch, id, self.topics.get(id).standing());
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, topic};
    use super::*;
    use crate::command::{Command, Retention};

    #[test]
    fn quotas_are_set_changed_and_lifted() {
        let mut script = Script::new();
        let empty = script.state.digest();
        let of = Limited::Client("worker".parse().unwrap());
        let put = |messages_per_second| {
            let quota = Quota { messages_per_second, bytes_per_second: 0 };
            Command::PutQuota(PutQuota { of: Limited::Client("worker".parse().unwrap()), quota })
        };
        for messages_per_second in [5, 6] {
            assert_eq!(script.does(put(messages_per_second)), Outcome::Done);
            script = script.restarted();
            assert_eq!(script.state.quota(&of).messages_per_second, messages_per_second);
            assert_eq!(script.state.quotas().count(), 1);
            assert_ne!(script.state.digest(), empty);
        }
        assert_eq!(script.does(put(0)), Outcome::Done);
        let script = script.restarted();
        assert_eq!(script.state.quotas().count(), 0);
        assert_eq!(script.state.digest(), empty);
    }

    #[test]
    fn how_much_of_a_topic_is_kept_survives_a_restart() {
        let mut script = Script::new();
        let retention = Retention { ms: 60_000, bytes: 1 << 30 };
        let put = Command::PutRetention(PutRetention { topic: topic(), retention });
        let outcome = script.does(put.clone());
        assert_eq!(outcome, Outcome::Rejected(Rejection::TopicNotFound));
        let mut script = Script::with_queues(1);
        let before = script.state.digest();
        assert_eq!(script.does(put), Outcome::Done);
        let script = script.restarted();
        assert_eq!(script.state.topic(&topic()).unwrap().retention(), retention);
        assert_ne!(script.state.digest(), before);
    }
}
