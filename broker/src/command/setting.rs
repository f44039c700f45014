//! Settings that are the same in several broker groups, each under a version.

use super::{Limited, PutGroup, PutQuota, PutRetention, SwitchGroup};

/// Sets something under a version. Answered by [`super::Outcome::Done`].
///
/// Whoever administers sets the same in every broker group under one version. The higher one wins,
/// so that a late call cannot take back a later one; the same again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutSetting {
    pub version: u64,
    pub setting: Setting,
}

/// Sets a broker's setting while it runs, for all replicas. Answered by [`super::Outcome::Done`].
///
/// What a key and a value mean is not the state's business: each replica lays them over its own
/// settings. Versions as for [`PutSetting`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutLiveSetting {
    pub version: u64,
    /// As in the configuration file. At most [`PutLiveSetting::MAX_BYTES`], like the value.
    pub key: String,
    /// `None`: each node has its own again.
    pub value: Option<String>,
}

impl PutLiveSetting {
    /// Bytes of a key or a value.
    pub const MAX_BYTES: usize = 1024;
}

/// What is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    Group(PutGroup),
    Switch(SwitchGroup),
    Quota(PutQuota),
    Retention(PutRetention),
}

impl Setting {
    /// What its version is kept under.
    #[must_use]
    pub fn of(&self) -> SettingOf {
        match self {
            Self::Group(c) => SettingOf { kind: SettingKind::Group, name: c.group.to_string() },
            Self::Switch(c) => SettingOf { kind: SettingKind::Switch, name: c.group.to_string() },
            Self::Quota(c) => SettingOf::quota(&c.of),
            Self::Retention(c) => {
                SettingOf { kind: SettingKind::Retention, name: c.topic.to_string() }
            }
        }
    }
}

/// A setting without its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettingOf {
    pub kind: SettingKind,
    /// Of the topic, the consumer group or the client.
    pub name: String,
}

impl SettingOf {
    /// The quota of a topic, a consumer group or a client.
    #[must_use]
    pub fn quota(of: &Limited) -> Self {
        match of {
            Limited::Topic(topic) => {
                Self { kind: SettingKind::TopicQuota, name: topic.to_string() }
            }
            Limited::Group(group) => {
                Self { kind: SettingKind::GroupQuota, name: group.to_string() }
            }
            Limited::Client(client) => {
                Self { kind: SettingKind::ClientQuota, name: client.to_string() }
            }
        }
    }
}

/// Kinds of settings that have a version. The numbers are persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SettingKind {
    Group = 0,
    Switch = 1,
    TopicQuota = 2,
    GroupQuota = 3,
    ClientQuota = 4,
    Retention = 5,
}

impl SettingKind {
    /// Every kind, by number.
    pub const ALL: [Self; 6] = [
        Self::Group,
        Self::Switch,
        Self::TopicQuota,
        Self::GroupQuota,
        Self::ClientQuota,
        Self::Retention,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}
