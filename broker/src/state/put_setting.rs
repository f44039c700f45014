//! Settings under versions: the higher one wins.

use std::collections::BTreeMap;

use super::State;
use crate::command::{Outcome, PutSetting, Quota, Rejection, Setting, SettingKind, SettingOf};
use crate::kv::{self, Kv};

/// The version of every setting that has one. As many as there are consumer groups, topics and
/// quotas, each at most twice.
#[derive(Debug, Default)]
pub(super) struct SettingVersions(BTreeMap<SettingOf, u64>);

impl SettingVersions {
    pub(super) fn load(kv: &dyn Kv) -> Result<Self, kv::Error> {
        let mut versions = BTreeMap::new();
        kv::setting::load(kv, |of, version| {
            versions.insert(of, version);
        })?;
        Ok(Self(versions))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SettingOf, u64)> {
        self.0.iter().map(|(of, version)| (of, *version))
    }
}

impl State {
    /// Under which version it was set; 0 if nobody did.
    #[must_use]
    pub fn setting_version(&self, of: &SettingOf) -> u64 {
        self.settings.0.get(of).copied().unwrap_or(0)
    }

    pub(super) fn put_setting(&mut self, c: PutSetting) -> Outcome {
        let of = c.setting.of();
        let current = self.setting_version(&of);
        if c.version < current {
            return Outcome::Rejected(Rejection::StaleVersion { current });
        }
        // A quota that bounds nothing is not kept, and so has no version.
        let lifted = matches!(&c.setting, Setting::Quota(c) if c.quota == Quota::default());
        let outcome = match c.setting {
            Setting::Group(c) => self.put_group(c),
            Setting::Switch(c) => self.switch_group(c),
            Setting::Quota(c) => self.put_quota(c),
            Setting::Retention(c) => self.put_retention(&c),
        };
        if outcome == Outcome::Done && !lifted && c.version > current {
            kv::setting::put(&mut self.change.batch, &of, c.version);
            self.settings.0.insert(of, c.version);
        }
        outcome
    }

    /// What it is about is gone.
    pub(super) fn forget_setting(&mut self, kind: SettingKind, name: String) {
        let of = SettingOf { kind, name };
        if self.settings.0.remove(&of).is_some() {
            kv::setting::delete(&mut self.change.batch, &of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, group, topic};
    use super::*;
    use crate::command::{
        Command, DeleteGroup, DeleteTopic, GroupConfig, Limited, PutGroup, PutQuota, PutRetention,
        Retention, SwitchGroup,
    };

    fn put(version: u64, setting: Setting) -> Command {
        Command::PutSetting(PutSetting { version, setting })
    }

    fn attempts(max_attempts: u32) -> Setting {
        let config = GroupConfig { max_attempts, ..GroupConfig::default() };
        Setting::Group(PutGroup { group: group(), config })
    }

    fn quota(messages_per_second: u64) -> Setting {
        let of = Limited::Group(group());
        let quota = Quota { messages_per_second, bytes_per_second: 0 };
        Setting::Quota(PutQuota { of, quota })
    }

    fn stale(current: u64) -> Outcome {
        Outcome::Rejected(Rejection::StaleVersion { current })
    }

    #[test]
    fn the_higher_version_wins_whenever_it_comes() {
        let mut script = Script::new();
        assert_eq!(script.does(put(7, attempts(3))), Outcome::Done);
        assert_eq!(script.does(put(6, attempts(9))), stale(7));
        assert_eq!(script.does(put(7, attempts(3))), Outcome::Done, "a repeated call");
        let mut script = script.restarted();
        assert_eq!(script.does(put(5, attempts(9))), stale(7));
        assert_eq!(script.state.group(&group()).unwrap().max_attempts, 3);
        assert_eq!(script.does(put(8, attempts(4))), Outcome::Done);
        assert_eq!(script.state.group(&group()).unwrap().max_attempts, 4);
    }

    #[test]
    fn each_setting_has_a_version_of_its_own() {
        let mut script = Script::with_queues(1);
        let switch = Setting::Switch(SwitchGroup { group: group(), enabled: false });
        let retention = Retention { ms: 5, bytes: 0 };
        let retention = Setting::Retention(PutRetention { topic: topic(), retention });
        let before = script.state.digest();
        for (version, setting) in [(9, attempts(3)), (3, switch), (2, quota(5)), (1, retention)] {
            let of = setting.of();
            assert_eq!(script.does(put(version, setting)), Outcome::Done);
            assert_eq!(script.state.setting_version(&of), version);
        }
        assert_ne!(script.state.digest(), before);
        let digest = script.state.digest();
        assert_eq!(script.restarted().state.digest(), digest);
    }

    #[test]
    fn versions_go_with_what_they_are_about() {
        let mut script = Script::with_queues(1);
        script.does(put(9, attempts(3)));
        script.does(put(9, quota(5)));
        script.does(Command::DeleteGroup(DeleteGroup { group: group() }));
        script.does(put(1, attempts(2)));
        assert_eq!(script.state.group(&group()).unwrap().max_attempts, 2);
        script.does(put(9, quota(5)));
        script.does(put(10, quota(0)));
        let retention = Retention { ms: 5, bytes: 0 };
        let retention = || Setting::Retention(PutRetention { topic: topic(), retention });
        script.does(put(9, retention()));
        script.does(Command::DeleteTopic(DeleteTopic { topic: topic() }));
        let gone = script.does(put(9, retention()));
        assert_eq!(gone, Outcome::Rejected(Rejection::TopicNotFound));
        let kept: Vec<_> = script.restarted().state.settings.0.into_keys().collect();
        assert_eq!(kept, [attempts(2).of()]);
    }
}
