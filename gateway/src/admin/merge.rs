//! Makes one answer of several. No IO.

use std::collections::BTreeMap;

use proto::{
    BrokerName,
    admin::{
        Connection, Error, GroupConfig, Placement, QueueInfo, QueueProgress, Quota, TopicInfo,
        error::Fate,
    },
};

use crate::TopicRoute;

/// The answers of leaders to one call, apart by how they ended.
pub(super) struct Answers<T> {
    pub(super) good: Vec<T>,
    bad: Vec<(BrokerName, Error)>,
}

impl<T> Answers<T> {
    /// Tells good answers from bad ones by the error that they carry.
    pub(super) fn of(
        answers: Vec<(BrokerName, Result<T, Error>)>,
        error: impl Fn(&mut T) -> Option<Error>,
    ) -> Self {
        let mut sorted = Self { good: Vec::new(), bad: Vec::new() };
        for (name, answer) in answers {
            match answer {
                Ok(mut answer) => match error(&mut answer) {
                    None => sorted.good.push(answer),
                    Some(error) => sorted.bad.push((name, error)),
                },
                Err(error) => sorted.bad.push((name, error)),
            }
        }
        sorted
    }

    /// What went wrong anywhere, as one error with the worst fate.
    pub(super) fn error(&self) -> Option<Error> {
        all(&self.bad)
    }

    /// The same, but that a group rejects what another one knows is no error: not every group holds
    /// every topic and consumer group.
    pub(super) fn error_unless_known(&self) -> Option<Error> {
        if self.good.is_empty() {
            return self.error();
        }
        let rejected = i32::from(Fate::Rejected);
        let rest: Vec<_> =
            self.bad.iter().filter(|(_, error)| error.fate != rejected).cloned().collect();
        all(&rest)
    }
}

fn all(bad: &[(BrokerName, Error)]) -> Option<Error> {
    // A call that is unknown anywhere is unknown; one that may be repeated is not rejected.
    let order = [Fate::Unknown, Fate::NotDone, Fate::Rejected, Fate::Unspecified];
    let fate =
        order.into_iter().find(|fate| bad.iter().any(|(_, e)| e.fate == i32::from(*fate)))?;
    let texts: Vec<_> =
        bad.iter().map(|(name, error)| format!("{name}: {}", error.message)).collect();
    Some(Error { fate: fate.into(), message: texts.join("; ") })
}

/// The higher version of each topic and of its retention, sorted by name. Its number of queues is
/// that of a group that is open.
pub(super) fn topics(lists: impl IntoIterator<Item = TopicInfo>) -> Vec<TopicInfo> {
    let mut merged: BTreeMap<String, TopicInfo> = BTreeMap::new();
    for info in lists {
        let name = info.config.as_ref().map_or("", |config| &config.topic).to_owned();
        match merged.get_mut(&name) {
            None => drop(merged.insert(name, info)),
            Some(known) => *known = newer_topic(known, &info),
        }
    }
    for info in merged.values_mut() {
        let most = info.placement.iter().map(|place| place.queues).max();
        if let (Some(config), Some(most)) = (&mut info.config, most)
            && config.queues == 0
        {
            config.queues = most;
        }
    }
    merged.into_values().collect()
}

fn newer_topic(a: &TopicInfo, b: &TopicInfo) -> TopicInfo {
    let mut newer = if b.version > a.version { b.clone() } else { a.clone() };
    let kept = if b.retention_version > a.retention_version { b } else { a };
    (newer.retention_ms, newer.retention_bytes) = (kept.retention_ms, kept.retention_bytes);
    newer.retention_version = kept.retention_version;
    newer
}

/// Each consumer group once, by the highest version of its settings, sorted by name.
pub(super) fn groups(lists: impl IntoIterator<Item = GroupConfig>) -> Vec<GroupConfig> {
    let mut merged: BTreeMap<String, GroupConfig> = BTreeMap::new();
    for config in lists {
        match merged.get_mut(&config.group) {
            None => drop(merged.insert(config.group.clone(), config)),
            Some(known) => *known = newer_group(known, &config),
        }
    }
    merged.into_values().collect()
}

fn newer_group(a: &GroupConfig, b: &GroupConfig) -> GroupConfig {
    let mut newer = if b.version > a.version { b.clone() } else { a.clone() };
    let switched = if b.switch_version > a.switch_version { b } else { a };
    (newer.disabled, newer.switch_version) = (switched.disabled, switched.switch_version);
    newer
}

/// Each quota once, by its highest version, sorted by kind and name.
pub(super) fn quotas(lists: impl IntoIterator<Item = Quota>) -> Vec<Quota> {
    let mut merged: BTreeMap<(i32, String), Quota> = BTreeMap::new();
    for quota in lists {
        let key = (quota.kind, quota.name.clone());
        if merged.get(&key).is_none_or(|known| known.version < quota.version) {
            merged.insert(key, quota);
        }
    }
    merged.into_values().collect()
}

/// Sorted by broker name and queue.
pub(super) fn queues(lists: impl IntoIterator<Item = QueueInfo>) -> Vec<QueueInfo> {
    let mut merged: Vec<_> = lists.into_iter().collect();
    merged.sort_by(|a, b| (&a.broker_name, a.queue_id).cmp(&(&b.broker_name, b.queue_id)));
    merged
}

/// Sorted by topic, broker name and queue.
pub(super) fn progress(lists: impl IntoIterator<Item = QueueProgress>) -> Vec<QueueProgress> {
    let mut merged: Vec<_> = lists.into_iter().collect();
    merged.sort_by(|a, b| {
        (&a.topic, &a.broker_name, a.queue_id).cmp(&(&b.topic, &b.broker_name, b.queue_id))
    });
    merged
}

/// Each client once per consumer group, by its latest sign of life: every leader knows every client.
pub(super) fn connections(lists: impl IntoIterator<Item = Connection>) -> Vec<Connection> {
    let mut merged: BTreeMap<(String, String), Connection> = BTreeMap::new();
    for connection in lists {
        let key = (connection.group.clone(), connection.client_id.clone());
        let known = merged.get(&key);
        if known.is_none_or(|known| connection.last_seen_ms_ago < known.last_seen_ms_ago) {
            merged.insert(key, connection);
        }
    }
    merged.into_values().collect()
}

/// Where a topic is to live: as before, with these groups added or changed. Sorted by name.
pub(super) fn placement(
    before: Option<&TopicRoute>,
    chosen: &[BrokerName],
    queues: u32,
) -> Vec<Placement> {
    let mut placed: BTreeMap<&BrokerName, u32> = BTreeMap::new();
    let before = before.map_or(&[][..], |route| &route.placement);
    placed.extend(before.iter().map(|(name, queues)| (name, *queues)));
    placed.extend(chosen.iter().map(|name| (name, queues)));
    let placed = placed.into_iter();
    placed.map(|(name, queues)| Placement { broker_name: name.to_string(), queues }).collect()
}

#[cfg(test)]
mod tests {
    use proto::{
        admin::TopicConfig,
        v2::{MessageType, Permission},
    };

    use super::*;

    fn name(text: &str) -> BrokerName {
        text.parse().expect("valid")
    }

    fn error(fate: Fate) -> Error {
        Error { fate: fate.into(), message: format!("{fate:?}") }
    }

    fn answers(list: &[(&str, Option<Fate>)]) -> Answers<()> {
        let answers = list
            .iter()
            .map(|(broker, fate)| (name(broker), fate.map_or(Ok(()), |fate| Err(error(fate)))));
        Answers::of(answers.collect(), |()| None)
    }

    #[test]
    fn the_worst_fate_counts_and_every_group_is_named() {
        let mixed = answers(&[
            ("a", Some(Fate::Rejected)),
            ("b", None),
            ("c", Some(Fate::Unknown)),
            ("d", Some(Fate::NotDone)),
        ]);
        let error = mixed.error().expect("three are bad");
        assert_eq!(error.fate(), Fate::Unknown);
        assert_eq!(error.message, "a: Rejected; c: Unknown; d: NotDone");
    }

    #[test]
    fn what_one_group_knows_the_others_need_not() {
        let known = answers(&[("a", None), ("b", Some(Fate::Rejected))]);
        assert_eq!(known.error_unless_known(), None);
        let nowhere = answers(&[("a", Some(Fate::Rejected)), ("b", Some(Fate::Rejected))]);
        assert_eq!(nowhere.error_unless_known().expect("bad").fate(), Fate::Rejected);
        let partly = answers(&[("a", None), ("b", Some(Fate::NotDone))]);
        assert_eq!(partly.error_unless_known().expect("bad").fate(), Fate::NotDone);
    }

    #[test]
    fn the_higher_version_of_a_topic_is_listed_once() {
        let info = |topic: &str, version| TopicInfo {
            config: Some(TopicConfig { topic: topic.into(), ..Default::default() }),
            placement: Vec::new(),
            version,
            ..Default::default()
        };
        let merged = topics([info("b", 1), info("a", 2), info("b", 3)]);
        let listed: Vec<_> = merged
            .iter()
            .map(|info| (info.config.as_ref().expect("set").topic.as_str(), info.version))
            .collect();
        assert_eq!(listed, [("a", 2), ("b", 3)]);
    }

    #[test]
    fn the_higher_version_of_each_setting_is_told() {
        let group = |version, fifo, switch_version, disabled| GroupConfig {
            version,
            fifo,
            switch_version,
            disabled,
            ..Default::default()
        };
        let merged = groups([group(5, true, 1, false), group(4, false, 3, true)]);
        assert_eq!(merged, [group(5, true, 3, true)]);
        let topic = |version, retention_ms, retention_version| TopicInfo {
            version,
            retention_ms,
            retention_version,
            ..Default::default()
        };
        assert_eq!(topics([topic(2, 10, 1), topic(1, 20, 2)]), [topic(2, 20, 2)]);
        let quota = |version| Quota { version, messages_per_second: version, ..Default::default() };
        assert_eq!(quotas([quota(2), quota(3), quota(1)]), [quota(3)]);
    }

    #[test]
    fn the_number_of_queues_is_that_of_an_open_group() {
        let config = TopicConfig { queues: 0, ..Default::default() };
        let place = |name: &str, queues| Placement { broker_name: name.into(), queues };
        let placement = vec![place("a", 8), place("b", 0)];
        let merged = topics([TopicInfo { config: Some(config), placement, ..Default::default() }]);
        assert_eq!(merged[0].config.as_ref().map(|config| config.queues), Some(8));
    }

    #[test]
    fn a_client_is_listed_once_with_its_latest_sign_of_life() {
        let connection = |client: &str, ago| Connection {
            client_id: client.into(),
            last_seen_ms_ago: ago,
            ..Default::default()
        };
        let merged = connections([connection("x", 500), connection("x", 20), connection("a", 1)]);
        let listed: Vec<_> =
            merged.iter().map(|c| (c.client_id.as_str(), c.last_seen_ms_ago)).collect();
        assert_eq!(listed, [("a", 1), ("x", 20)]);
    }

    #[test]
    fn a_topic_keeps_the_groups_that_are_not_named() {
        let before = TopicRoute {
            topic: "orders".parse().expect("valid"),
            permission: Permission::ReadWrite,
            accepts: vec![MessageType::Normal],
            placement: vec![(name("a"), 4), (name("b"), 4)],
            version: 1,
        };
        let placed = placement(Some(&before), &[name("b"), name("c")], 8);
        let placed: Vec<_> = placed.iter().map(|p| (p.broker_name.as_str(), p.queues)).collect();
        assert_eq!(placed, [("a", 4), ("b", 8), ("c", 8)]);
    }
}
