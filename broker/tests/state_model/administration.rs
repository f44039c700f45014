//! Deletions, switches, quotas, retention, expiry and lost queues: what they must do, and random
//! ones.

use std::collections::BTreeMap;

use broker::command::{
    CloseQueues, Command, DeleteGroup, DeleteTopic, Expire, GroupConfig, Limited, Outcome,
    PutGroup, PutQuota, PutRetention, PutSetting, Quota, Rejection, Retention, RetireTopic,
    Setting, SettingKind, SettingOf, SwitchGroup,
};
use broker::state::State;
use proptest::prelude::*;
use proto::{ConsumerGroup, QueueId, QueueOffset, Topic};

use crate::model::{Model, Place};
use crate::steps::{QUEUES, Step, group, topic};

/// What administrators have set and done, beside settings of topics and groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Administration {
    /// The first offset that is kept, where it is not 0.
    pub(crate) mins: BTreeMap<(Topic, QueueId), u64>,
    pub(crate) quotas: BTreeMap<Limited, Quota>,
    pub(crate) retention: BTreeMap<Topic, Retention>,
    pub(crate) disabled: Vec<ConsumerGroup>,
    /// Of settings that have one.
    pub(crate) versions: BTreeMap<SettingOf, u64>,
    /// The command that created each topic and group.
    pub(crate) topics_born: BTreeMap<Topic, u64>,
    pub(crate) groups_born: BTreeMap<ConsumerGroup, u64>,
}

impl Model {
    /// The first offset of a queue that is kept.
    pub(crate) fn min_of(&self, topic: &Topic, queue: QueueId) -> u64 {
        self.administration.mins.get(&(topic.clone(), queue)).copied().unwrap_or(0)
    }

    /// Whether a message that entered a queue is still there.
    pub(crate) fn keeps(&self, topic: &Topic, queue: QueueId, offset: QueueOffset) -> bool {
        queue.0 < self.topics[topic].readable && self.min_of(topic, queue) <= offset.0
    }

    /// Deliveries below this are of another topic or group.
    pub(crate) fn born(&self, group: &ConsumerGroup, topic: &Topic) -> u64 {
        let born = &self.administration;
        born.topics_born[topic].max(born.groups_born[group])
    }

    /// Deliveries below this are of no use any more.
    pub(crate) fn oldest_delivery(&self, place: &Place) -> u64 {
        let reset = self.resets.get(place).map_or(0, |reset| reset.id);
        reset.max(self.born(&place.0, &place.1))
    }

    /// The group, new if need be.
    pub(crate) fn touch_group(&mut self, group: &ConsumerGroup, now: u64) {
        if !self.groups.contains_key(group) {
            self.administration.groups_born.insert(group.clone(), now);
            self.groups.insert(group.clone(), Default::default());
        }
    }

    fn forget(&mut self, gone: impl Fn(&Place) -> bool) {
        self.next.retain(|place, _| !gone(place));
        self.held.retain(|(place, _), _| !gone(place));
        self.resets.retain(|place, _| !gone(place));
    }

    pub(crate) fn delete_topic(&mut self, c: &DeleteTopic) -> Result<Outcome, Rejection> {
        self.topics.remove(&c.topic).ok_or(Rejection::TopicNotFound)?;
        self.forget(|(_, topic, _)| *topic == c.topic);
        self.keys.retain(|(_, topic, ..)| *topic != c.topic);
        for sent in self.sent.iter_mut().filter(|sent| sent.topic.as_ref() == Some(&c.topic)) {
            sent.topic = None;
        }
        self.origins.retain(|(graves, _), (topic, _)| ![graves, topic].contains(&&c.topic));
        self.transactions.forget(&c.topic);
        self.forget_timers(&c.topic);
        self.redriven.retain(|(graves, _), _| *graves != c.topic);
        self.administration.mins.retain(|(topic, _), _| *topic != c.topic);
        self.administration.retention.remove(&c.topic);
        self.forget_quota(&Limited::Topic(c.topic.clone()));
        self.forget_version(SettingKind::Retention, c.topic.as_str());
        self.subscribed.retain(|(_, topic)| *topic != c.topic);
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_group(&mut self, c: &DeleteGroup) -> Result<Outcome, Rejection> {
        self.groups.remove(&c.group).ok_or(Rejection::GroupNotFound)?;
        self.forget(|(group, ..)| *group == c.group);
        self.administration.disabled.retain(|group| *group != c.group);
        self.forget_quota(&Limited::Group(c.group.clone()));
        self.forget_version(SettingKind::Group, c.group.as_str());
        self.forget_version(SettingKind::Switch, c.group.as_str());
        self.subscribed.retain(|(group, _)| *group != c.group);
        Ok(Outcome::Done)
    }

    pub(crate) fn switch_group(&mut self, now: u64, c: &SwitchGroup) -> Outcome {
        self.touch_group(&c.group, now);
        self.administration.disabled.retain(|group| *group != c.group);
        if !c.enabled {
            self.administration.disabled.push(c.group.clone());
        }
        Outcome::Done
    }

    pub(crate) fn put_quota(&mut self, c: &PutQuota) -> Outcome {
        match c.quota == Quota::default() {
            true => self.forget_quota(&c.of),
            false => drop(self.administration.quotas.insert(c.of.clone(), c.quota)),
        }
        Outcome::Done
    }

    fn forget_quota(&mut self, of: &Limited) {
        self.administration.quotas.remove(of);
        self.administration.versions.remove(&SettingOf::quota(of));
    }

    fn forget_version(&mut self, kind: SettingKind, name: &str) {
        self.administration.versions.remove(&SettingOf { kind, name: name.to_owned() });
    }

    /// As the setting by itself, unless one of a higher version was there.
    pub(crate) fn put_setting(&mut self, now: u64, c: &PutSetting) -> Result<Outcome, Rejection> {
        let of = c.setting.of();
        let current = self.administration.versions.get(&of).copied().unwrap_or(0);
        if c.version < current {
            return Err(Rejection::StaleVersion { current });
        }
        match &c.setting {
            Setting::Group(c) => {
                self.touch_group(&c.group, now);
                self.groups.insert(c.group.clone(), c.config.clone());
            }
            Setting::Switch(c) => drop(self.switch_group(now, c)),
            Setting::Quota(c) => {
                self.put_quota(c);
                if c.quota == Quota::default() {
                    return Ok(Outcome::Done);
                }
            }
            Setting::Retention(c) => drop(self.put_retention(c)?),
        }
        self.administration.versions.insert(of, c.version);
        Ok(Outcome::Done)
    }

    pub(crate) fn retire_topic(&mut self, c: &RetireTopic) -> Result<Outcome, Rejection> {
        let topic = self.topics.get(&c.topic).ok_or(Rejection::TopicNotFound)?;
        if topic.config.queues > 0 {
            return Err(Rejection::TopicOpen);
        }
        let held = |queue: &QueueId| {
            topic.queues[queue.0 as usize].len() as u64 - self.min_of(&c.topic, *queue)
        };
        let queues = (0..topic.readable).map(QueueId);
        let messages: u64 =
            queues.filter(|q| !self.is_drained(&c.topic, *q)).map(|q| held(&q)).sum();
        let (delayed, half) = (self.timers_of(&c.topic), self.transactions.of(&c.topic));
        if (messages, delayed, half) != (0, 0, 0) {
            return Err(Rejection::TopicNotDrained { messages, delayed, half });
        }
        self.delete_topic(&DeleteTopic { topic: c.topic.clone() })
    }

    /// Empty, or consumed by every group that consumes the topic, of which there is one.
    fn is_drained(&self, topic: &Topic, queue: QueueId) -> bool {
        let max = self.topics[topic].queues[queue.0 as usize].len() as u64;
        let mut consumers =
            self.subscribed.iter().filter(|(_, of)| of == topic).map(|(group, _)| group).peekable();
        let consumed = consumers.peek().is_some()
            && consumers.all(|group| {
                let place = (group.clone(), topic.clone(), queue);
                self.next.get(&place).copied().unwrap_or(0) == max
                    && self.held_in(&place).next().is_none()
            });
        self.min_of(topic, queue) == max || consumed
    }

    pub(crate) fn put_retention(&mut self, c: &PutRetention) -> Result<Outcome, Rejection> {
        self.topics.get(&c.topic).ok_or(Rejection::TopicNotFound)?;
        self.administration.retention.insert(c.topic.clone(), c.retention);
        Ok(Outcome::Done)
    }

    pub(crate) fn expire(&mut self, c: &Expire) -> Result<Outcome, Rejection> {
        let topic = self.topics.get(&c.topic).ok_or(Rejection::TopicNotFound)?;
        let queues = topic.readable;
        let queue = topic.queues[..queues as usize].get(c.queue.0 as usize);
        let max = queue.ok_or(Rejection::QueueNotFound { queues })?.len() as u64;
        let to = c.to.0.min(max);
        if self.min_of(&c.topic, c.queue) < to {
            let here = |(_, topic, queue): &Place| (topic, queue) == (&c.topic, &c.queue);
            self.held.retain(|(place, offset), _| !here(place) || to <= *offset);
            for (_, next) in self.next.iter_mut().filter(|(place, _)| here(place)) {
                *next = to.max(*next);
            }
            self.administration.mins.insert((c.topic.clone(), c.queue), to);
        }
        Ok(Outcome::Done)
    }

    pub(crate) fn close_queues(&mut self, c: &CloseQueues) -> Result<Outcome, Rejection> {
        self.topics.get(&c.topic).ok_or(Rejection::TopicNotFound)?;
        self.close_drained(&c.topic);
        Ok(Outcome::Done)
    }

    pub(crate) fn close_drained(&mut self, topic: &Topic) {
        loop {
            let known = &self.topics[topic];
            if known.readable == known.config.queues.max(1) {
                return;
            }
            let last = QueueId(known.readable - 1);
            let max = known.queues[last.0 as usize].len() as u64;
            if !self.is_drained(topic, last) {
                return;
            }
            self.administration.mins.insert((topic.clone(), last), max);
            self.topics.get_mut(topic).unwrap().readable -= 1;
        }
    }
}

pub(crate) fn step(
    groups: BoxedStrategy<usize>,
    topics: BoxedStrategy<usize>,
) -> impl Strategy<Value = Step> {
    let small = || prop::sample::select(vec![0_u64, 0, 5, 9]);
    let quota = (small(), small()).prop_map(|(messages_per_second, bytes_per_second)| Quota {
        messages_per_second,
        bytes_per_second,
    });
    let of = prop_oneof![
        topics.clone().prop_map(|t| Limited::Topic(topic(t))),
        groups.clone().prop_map(|g| Limited::Group(group(g))),
        Just(Limited::Client("alpha".parse().unwrap())),
    ];
    let setting = prop_oneof![
        (groups.clone(), 1..9_u32).prop_map(|(g, max_attempts)| {
            let config = GroupConfig { max_attempts, ..GroupConfig::default() };
            Setting::Group(PutGroup { group: group(g), config })
        }),
        (groups.clone(), prop::bool::weighted(0.8))
            .prop_map(|(g, enabled)| Setting::Switch(SwitchGroup { group: group(g), enabled })),
        (of.clone(), quota.clone()).prop_map(|(of, quota)| Setting::Quota(PutQuota { of, quota })),
        (topics.clone(), small()).prop_map(|(t, ms)| {
            let retention = Retention { ms, bytes: 0 };
            Setting::Retention(PutRetention { topic: topic(t), retention })
        }),
    ];
    let versioned = (1..6_u64, setting)
        .prop_map(|(version, setting)| Command::PutSetting(PutSetting { version, setting }));
    let command = prop_oneof![
        1 => topics.clone().prop_map(|t| Command::DeleteTopic(DeleteTopic { topic: topic(t) })),
        1 => groups.clone().prop_map(|g| Command::DeleteGroup(DeleteGroup { group: group(g) })),
        1 => (groups, prop::bool::weighted(0.8)).prop_map(|(g, enabled)| {
            Command::SwitchGroup(SwitchGroup { group: group(g), enabled })
        }),
        1 => (of, quota).prop_map(|(of, quota)| Command::PutQuota(PutQuota { of, quota })),
        1 => (topics.clone(), small(), small()).prop_map(|(t, ms, bytes)| {
            let retention = Retention { ms, bytes };
            Command::PutRetention(PutRetention { topic: topic(t), retention })
        }),
        2 => (topics.clone(), 0..QUEUES, 0..12_u64).prop_map(|(t, queue, to)| {
            let (queue, to) = (QueueId(queue), QueueOffset(to));
            Command::Expire(Expire { topic: topic(t), queue, to })
        }),
        1 => topics.clone().prop_map(|t| Command::CloseQueues(CloseQueues { topic: topic(t) })),
        1 => topics.prop_map(|t| Command::RetireTopic(RetireTopic { topic: topic(t) })),
    ];
    prop_oneof![5 => command, 3 => versioned].prop_map(Step::Administer)
}

/// What was set is what can be read.
pub(crate) fn check(state: &State, model: &Model) {
    let quotas: Vec<_> = state.quotas().collect();
    assert_eq!(quotas, model.administration.quotas.iter().collect::<Vec<_>>());
    for (of, version) in &model.administration.versions {
        assert_eq!(state.setting_version(of), *version, "{of:?}");
    }
    for (name, expected) in &model.topics {
        let topic = state.topic(name).unwrap();
        assert_eq!(topic.readable(), expected.readable);
        let retention = model.administration.retention.get(name).copied().unwrap_or_default();
        assert_eq!(topic.retention(), retention);
    }
}
