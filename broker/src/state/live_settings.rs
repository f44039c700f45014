//! Settings of brokers that were changed while they ran. Kept here, used by `live`.

use std::collections::BTreeMap;

use super::digest::Fold;
use super::{State, limits};
use crate::command::{Effect, Outcome, PutLiveSetting, Rejection};
use crate::kv::live_setting::LiveSetting;
use crate::kv::{self, Kv};

/// By key.
#[derive(Debug, Default)]
pub(super) struct LiveSettings(BTreeMap<String, LiveSetting>);

impl LiveSettings {
    pub(super) fn load(kv: &dyn Kv) -> Result<Self, kv::Error> {
        let mut all = BTreeMap::new();
        kv::live_setting::load(kv, |key, setting| {
            all.insert(key, setting);
        })?;
        Ok(Self(all))
    }

    pub(super) fn fold(&self, mut fold: Fold) -> Fold {
        for (key, LiveSetting { version, value }) in &self.0 {
            fold = fold.bytes(key.as_bytes()).word(*version).word(value.is_some().into());
            fold = fold.bytes(value.as_deref().unwrap_or_default().as_bytes());
        }
        fold
    }
}

impl State {
    /// What was set while brokers ran, and not taken back, by key.
    pub fn live_settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.live_settings.0.iter().filter_map(|(key, setting)| {
            setting.value.as_deref().map(|value| (key.as_str(), value))
        })
    }

    /// Under which version a key was set or taken back; 0 if nobody did.
    #[must_use]
    pub fn live_setting_version(&self, key: &str) -> u64 {
        self.live_settings.0.get(key).map_or(0, |setting| setting.version)
    }

    pub(super) fn put_live_setting(&mut self, c: PutLiveSetting) -> Outcome {
        let current = self.live_setting_version(&c.key);
        if c.version < current {
            return Outcome::Rejected(Rejection::StaleVersion { current });
        }
        let all = &mut self.live_settings.0;
        if !all.contains_key(&c.key) && all.len() >= limits::LIVE_SETTINGS as usize {
            return Outcome::Rejected(Rejection::TooManyLiveSettings {
                max: limits::LIVE_SETTINGS,
            });
        }
        let setting = LiveSetting { version: c.version, value: c.value };
        kv::live_setting::put(&mut self.change.batch, &c.key, &setting);
        all.insert(c.key, setting);
        self.change.effects.push(Effect::LiveSettingChanged);
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;
    use crate::command::Command;

    fn put(version: u64, key: &str, value: Option<&str>) -> Command {
        let (key, value) = (key.to_owned(), value.map(str::to_owned));
        Command::PutLiveSetting(PutLiveSetting { version, key, value })
    }

    fn all(script: &Script) -> Vec<(String, String)> {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        script.state.live_settings().map(owned).collect()
    }

    #[test]
    fn the_higher_version_wins_and_a_late_call_brings_nothing_back() {
        let mut script = Script::new();
        let empty = script.state.digest();
        assert_eq!(script.does(put(5, "max_delay", Some("1h"))), Outcome::Done);
        assert_ne!(script.state.digest(), empty);
        let mut script = script.restarted();
        assert_eq!(all(&script), [("max_delay".to_owned(), "1h".to_owned())]);
        assert_eq!(script.does(put(6, "max_delay", None)), Outcome::Done);
        assert_eq!(all(&script), []);
        let stale = Outcome::Rejected(Rejection::StaleVersion { current: 6 });
        let mut script = script.restarted();
        assert_eq!(script.does(put(5, "max_delay", Some("1h"))), stale);
        assert_eq!(all(&script), []);
    }

    #[test]
    fn there_is_a_bound() {
        let mut script = Script::new();
        for number in 0..limits::LIVE_SETTINGS {
            let outcome = script.does(put(1, &format!("key-{number}"), Some("x")));
            assert_eq!(outcome, Outcome::Done);
        }
        let max = limits::LIVE_SETTINGS;
        let refused = Outcome::Rejected(Rejection::TooManyLiveSettings { max });
        assert_eq!(script.does(put(1, "one-more", Some("x"))), refused);
        assert_eq!(script.does(put(2, "key-0", Some("y"))), Outcome::Done);
    }
}
