//! Settings that are the same in every broker group. Each is written to all of them under one
//! version, and brought to those that come later.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use proto::{
    BrokerName,
    admin::{
        ChangeRequest, DescribeTopicRequest, Error, GroupConfig, ListGroupsRequest,
        ListQuotasRequest, LiveSetting, PutGroupRequest, Quota, SwitchGroup,
        change_request::Change,
    },
    clock,
};

use super::{AdminFanout, calls, fanout::chosen, merge, merge::Answers};
use crate::{Caller, Directory, retry::Repeat};

/// Settings on their way to one new group at a time.
const SHARED_AT_ONCE: usize = 32;

/// A version above the one known.
fn above(known: u64) -> u64 {
    clock::wall_now().0.max(known + 1)
}

impl<D: Directory> AdminFanout<D> {
    /// Consumer groups as all leaders that answer know them.
    async fn known_groups(&self, caller: &Caller) -> Result<Vec<GroupConfig>, Error> {
        let answers = self
            .ask_all::<calls::ListGroups>(caller, ListGroupsRequest {}, |a| a.error.take())
            .await?;
        Ok(merge::groups(answers.good.into_iter().flat_map(|list| list.groups)))
    }

    async fn known_group(&self, caller: &Caller, name: &str) -> Result<GroupConfig, Error> {
        let known = self.known_groups(caller).await?.into_iter().find(|group| group.group == name);
        Ok(known.unwrap_or_default())
    }

    pub(super) async fn put_group_everywhere(
        &self,
        caller: &Caller,
        request: PutGroupRequest,
    ) -> Result<(), Error> {
        let mut config = request.config.unwrap_or_default();
        config.version = above(self.known_group(caller, &config.group).await?.version);
        let request = PutGroupRequest { config: Some(config) };
        let answers = self.ask_all::<calls::PutGroup>(caller, request, |a| a.error.take()).await?;
        answers.error().map_or(Ok(()), Err)
    }

    /// The change with the version under which all groups are to make it, if it is of a setting.
    pub(super) async fn versioned(
        &self,
        caller: &Caller,
        mut change: Change,
    ) -> Result<Change, Error> {
        match &mut change {
            Change::SwitchGroup(switch) => {
                let known = self.known_group(caller, &switch.group).await?.switch_version;
                switch.version = above(known);
            }
            Change::PutQuota(quota) => {
                let same = |known: &Quota| known.kind == quota.kind && known.name == quota.name;
                let answers = self
                    .ask_all::<calls::ListQuotas>(caller, ListQuotasRequest {}, |a| a.error.take())
                    .await?;
                let known = answers.good.iter().flat_map(|list| &list.quotas).filter(|q| same(q));
                quota.version = above(known.map(|quota| quota.version).max().unwrap_or(0));
            }
            Change::PutRetention(retention) => {
                let request = DescribeTopicRequest { topic: retention.topic.clone() };
                let answers = self
                    .ask_all::<calls::DescribeTopicQueues>(caller, request, |a| a.error.take())
                    .await?;
                let known = answers.good.iter().filter_map(|answer| answer.topic.as_ref());
                let known = known.map(|info| info.retention_version).max().unwrap_or(0);
                retention.version = above(known);
            }
            Change::PutLiveSetting(setting) => setting.version = above(0),
            Change::DeleteTopic(_) | Change::DeleteGroup(_) | Change::RetireTopic(_) => {}
        }
        Ok(change)
    }

    /// A broker's setting, in one group or in all. Each leader checks it against its own, so that it
    /// may hold in some groups and be refused by others; the answer names those.
    pub(super) async fn put_live_setting(
        &self,
        caller: &Caller,
        setting: LiveSetting,
    ) -> Result<(), Error> {
        let groups = self.groups(caller).await?;
        let named = [setting.broker_name.clone()];
        let named = if setting.broker_name.is_empty() { &[][..] } else { &named[..] };
        let groups = chosen(&groups, named)?;
        let request = ChangeRequest { change: Some(Change::PutLiveSetting(setting)) };
        let answers = self.ask::<calls::Change>(caller, groups, request).await;
        Answers::of(answers, |answer| answer.error.take()).error().map_or(Ok(()), Err)
    }

    /// Brings what was set elsewhere to broker groups that may not have it: they are about to host
    /// a topic, and its consumers must find there what they have in the others.
    pub(super) async fn share_settings(
        &self,
        caller: &Caller,
        groups: &[BrokerName],
        to: &[BrokerName],
    ) -> Result<(), Error> {
        if to.is_empty() {
            return Ok(());
        }
        let lists = groups.iter().map(|group| async move {
            let safe = Repeat::Safe;
            let list = ListGroupsRequest {};
            let consumers = self.call::<calls::ListGroups>(caller, group, safe, list).await;
            let list = ListQuotasRequest {};
            let quotas = self.call::<calls::ListQuotas>(caller, group, safe, list).await;
            (group.clone(), (consumers, quotas))
        });
        let (mut consumers, mut quotas) = (HashMap::new(), HashMap::new());
        for (group, (of_group, of_quota)) in join_all(lists).await {
            consumers.insert(group.clone(), of_group.map(|list| list.groups).unwrap_or_default());
            quotas.insert(group, of_quota.map(|list| list.quotas).unwrap_or_default());
        }
        let all_consumers = merge::groups(consumers.values().flatten().cloned());
        let all_quotas = merge::quotas(quotas.values().flatten().cloned());
        for group in to {
            let mut changes = missing_groups(&all_consumers, &consumers[group]);
            changes.extend(missing_quotas(&all_quotas, &quotas[group]));
            let calls = changes.into_iter().map(|step| self.take_step(caller, group, step));
            stream::iter(calls).buffer_unordered(SHARED_AT_ONCE).try_collect::<()>().await?;
        }
        Ok(())
    }

    async fn take_step(
        &self,
        caller: &Caller,
        group: &BrokerName,
        step: Step,
    ) -> Result<(), Error> {
        match step {
            Step::Put(config) => {
                let request = PutGroupRequest { config: Some(config) };
                let answer =
                    self.call::<calls::PutGroup>(caller, group, Repeat::Safe, request).await;
                let answers = Answers::of(vec![(group.clone(), answer)], |a| a.error.take());
                answers.error().map_or(Ok(()), Err)
            }
            Step::Change(change) => {
                self.change_at(caller, group, ChangeRequest { change: Some(change) }).await
            }
        }
    }

    /// One change in one group.
    pub(super) async fn change_at(
        &self,
        caller: &Caller,
        group: &BrokerName,
        request: ChangeRequest,
    ) -> Result<(), Error> {
        let answer = self.call::<calls::Change>(caller, group, Repeat::Safe, request).await;
        let answers = Answers::of(vec![(group.clone(), answer)], |answer| answer.error.take());
        answers.error().map_or(Ok(()), Err)
    }
}

/// What brings one group up to date.
#[derive(Debug, PartialEq)]
enum Step {
    Put(GroupConfig),
    Change(Change),
}

fn missing_groups(all: &[GroupConfig], here: &[GroupConfig]) -> Vec<Step> {
    let here: HashMap<_, _> = here.iter().map(|known| (known.group.as_str(), known)).collect();
    let mut steps = Vec::new();
    for config in all {
        let known = here.get(config.group.as_str());
        if config.version > known.map_or(0, |known| known.version) {
            steps.push(Step::Put(config.clone()));
        }
        if config.switch_version > known.map_or(0, |known| known.switch_version) {
            steps.push(Step::Change(Change::SwitchGroup(SwitchGroup {
                group: config.group.clone(),
                enabled: !config.disabled,
                version: config.switch_version,
            })));
        }
    }
    steps
}

fn missing_quotas(all: &[Quota], here: &[Quota]) -> Vec<Step> {
    let version = |of: &Quota| {
        let known = here.iter().find(|known| known.kind == of.kind && known.name == of.name);
        known.map_or(0, |known| known.version)
    };
    let newer = all.iter().filter(|quota| quota.version > version(quota));
    newer.map(|quota| Step::Change(Change::PutQuota(quota.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, version: u64, switch_version: u64) -> GroupConfig {
        GroupConfig { group: name.into(), version, switch_version, ..Default::default() }
    }

    #[test]
    fn only_what_is_newer_elsewhere_is_brought() {
        let all = [group("a", 0, 0), group("b", 5, 0), group("c", 5, 7), group("d", 5, 0)];
        let here = [group("c", 5, 6), group("d", 9, 0)];
        let steps = missing_groups(&all, &here);
        let switch = SwitchGroup { group: "c".into(), enabled: true, version: 7 };
        let expected = [Step::Put(all[1].clone()), Step::Change(Change::SwitchGroup(switch))];
        assert_eq!(steps, expected);
        let quota =
            |name: &str, version| Quota { name: name.into(), version, ..Default::default() };
        let steps = missing_quotas(&[quota("x", 3), quota("y", 3)], &[quota("y", 3)]);
        assert_eq!(steps, [Step::Change(Change::PutQuota(quota("x", 3)))]);
    }
}
