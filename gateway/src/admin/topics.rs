//! Where a topic lives: created, changed, extended to further broker groups, and taken out of one.

use futures::future::join_all;
use proto::{
    BrokerName, Topic,
    admin::{
        ChangeRequest, DescribeTopicRequest, Error, Placement, PutTopicRequest, PutTopicResponse,
        Retention, RetireTopic, TopicConfig, change_request::Change, error::Fate,
    },
    clock,
};

use super::{
    AdminFanout, calls,
    fanout::{chosen, rejected},
    merge,
    merge::Answers,
};
use crate::{
    Caller, Directory, TopicRoute,
    operation::{DescribeTopic, TopicQuestion},
    retry::Repeat,
    status::Refusal,
};

/// What each broker group says of a topic.
struct Seen(Vec<(BrokerName, Result<Option<TopicRoute>, Error>)>);

impl Seen {
    /// The newest word. A group that cannot answer may hold the topic too, which matters unless
    /// another one does.
    fn newest(&self) -> Result<Option<&TopicRoute>, Error> {
        let routes = self.0.iter().filter_map(|(_, answer)| answer.as_ref().ok()?.as_ref());
        match routes.max_by_key(|route| route.version) {
            Some(route) => Ok(Some(route)),
            None => match self.0.iter().find_map(|(_, answer)| answer.as_ref().err()) {
                Some(error) => Err(error.clone()),
                None => Ok(None),
            },
        }
    }

    /// Refuses a change that a group has to make and cannot, before any other one makes it.
    fn all_answer(&self, hosts: &[Placement]) -> Result<(), Error> {
        let is_host = |name: &BrokerName| hosts.iter().any(|h| h.broker_name == name.as_str());
        let silent = self
            .0
            .iter()
            .filter(|(name, _)| is_host(name))
            .find_map(|(name, answer)| answer.as_ref().err().map(|error| (name, error)));
        match silent {
            None => Ok(()),
            Some((name, error)) => {
                let message = format!("nothing was changed anywhere: {name}: {}", error.message);
                Err(Error { fate: Fate::NotDone.into(), message })
            }
        }
    }

    /// The hosts that did not have the topic.
    fn new_among(&self, hosts: &[Placement]) -> Vec<BrokerName> {
        let is_host = |name: &BrokerName| hosts.iter().any(|h| h.broker_name == name.as_str());
        let new = self.0.iter().filter(|(name, answer)| is_host(name) && *answer == Ok(None));
        new.map(|(name, _)| name.clone()).collect()
    }
}

impl<D: Directory> AdminFanout<D> {
    async fn seen(&self, caller: &Caller, groups: &[BrokerName], topic: &Topic) -> Seen {
        let calls = groups.iter().map(|group| async move {
            let question = TopicQuestion { topic: topic.clone(), create: false };
            let answer = self.call::<DescribeTopic>(caller, group, Repeat::Safe, question).await;
            (group.clone(), answer)
        });
        Seen(join_all(calls).await)
    }

    /// The topic as its leaders have it.
    pub(super) async fn topic(
        &self,
        caller: &Caller,
        groups: &[BrokerName],
        topic: &Topic,
    ) -> Result<Option<TopicRoute>, Error> {
        Ok(self.seen(caller, groups, topic).await.newest()?.cloned())
    }

    pub(super) async fn put(
        &self,
        caller: &Caller,
        request: PutTopicRequest,
    ) -> Result<PutTopicResponse, Error> {
        let config = request.config.clone().unwrap_or_default();
        let topic: Topic = config.topic.parse().map_err(|error| Refusal::from(error).to_admin())?;
        let groups = self.groups(caller).await?;
        let chosen = chosen(&groups, &request.broker_names)?;
        let seen = self.seen(caller, &groups, &topic).await;
        let before = seen.newest()?;
        if request.create_only && before.is_some() {
            return Err(rejected(format!("topic {topic} exists")));
        }
        let placement = merge::placement(before, &chosen, config.queues);
        if placement.iter().all(|place| place.queues == 0) {
            return Err(rejected(format!("no broker would take messages of {topic} any more")));
        }
        seen.all_answer(&placement)?;
        let new = seen.new_among(&placement);
        if groups.len() > 1 {
            self.share_settings(caller, &groups, &new).await?;
        }
        let create_only = request.create_only;
        let answer = self.write(caller, before, config, &placement, &new, create_only).await?;
        if before.is_some() && !new.is_empty() {
            self.share_retention(caller, &topic, &new).await?;
        }
        Ok(answer)
    }

    /// The same to every host, under one version: first to those that are `new`, because as soon as
    /// one host knows the placement all of them are sent messages.
    async fn write(
        &self,
        caller: &Caller,
        before: Option<&TopicRoute>,
        config: TopicConfig,
        placement: &[Placement],
        new: &[BrokerName],
        create_only: bool,
    ) -> Result<PutTopicResponse, Error> {
        let version = clock::wall_now().0.max(before.map_or(0, |before| before.version) + 1);
        let repeat = if create_only { Repeat::NotDoneOnly } else { Repeat::Safe };
        let is_new = |place: &&Placement| new.iter().any(|name| name.as_str() == place.broker_name);
        let (first, then): (Vec<_>, Vec<_>) = placement.iter().partition(is_new);
        for hosts in [first, then] {
            let calls = hosts.into_iter().map(|place| {
                let request = PutTopicRequest {
                    config: Some(TopicConfig { queues: place.queues, ..config.clone() }),
                    broker_names: Vec::new(),
                    create_only,
                    version,
                    placement: placement.to_vec(),
                };
                async move {
                    let group: BrokerName = place.broker_name.parse().expect("made of valid names");
                    let put = self.call::<calls::PutTopic>(caller, &group, repeat, request).await;
                    (group, put)
                }
            });
            let answers = Answers::of(join_all(calls).await, |answer| answer.error.take());
            if let Some(error) = answers.error() {
                return Err(error);
            }
        }
        Ok(PutTopicResponse { error: None, version, placement: placement.to_vec() })
    }

    /// A topic has the same retention in every group that hosts it.
    async fn share_retention(
        &self,
        caller: &Caller,
        topic: &Topic,
        to: &[BrokerName],
    ) -> Result<(), Error> {
        let request = DescribeTopicRequest { topic: topic.to_string() };
        let answers =
            self.ask_all::<calls::DescribeTopicQueues>(caller, request, |a| a.error.take()).await?;
        let infos = answers.good.into_iter().filter_map(|answer| answer.topic);
        let Some(info) = merge::topics(infos).into_iter().next() else { return Ok(()) };
        if info.retention_version == 0 {
            return Ok(());
        }
        let retention = Retention {
            topic: topic.to_string(),
            ms: info.retention_ms,
            bytes: info.retention_bytes,
            version: info.retention_version,
        };
        let calls = to.iter().map(|group| {
            let change = Some(Change::PutRetention(retention.clone()));
            self.change_at(caller, group, ChangeRequest { change })
        });
        join_all(calls).await.into_iter().collect()
    }

    /// Takes a topic out of one group: where it is closed and drained, or whatever is there. The
    /// group first, since only it can tell; asking again goes on where it ended.
    pub(super) async fn retire(&self, caller: &Caller, retire: RetireTopic) -> Result<(), Error> {
        let RetireTopic { topic, broker_name, force } = retire;
        let topic: Topic = topic.parse().map_err(|error| Refusal::from(error).to_admin())?;
        let groups = self.groups(caller).await?;
        let group = chosen(&groups, &[broker_name])?.remove(0);
        let seen = self.seen(caller, &groups, &topic).await;
        let before =
            seen.newest()?.ok_or_else(|| Refusal::TopicNotFound(topic.clone()).to_admin())?;
        let others: Vec<_> = before.placement.iter().filter(|(name, _)| *name != group).collect();
        if others.iter().all(|(_, queues)| *queues == 0) {
            return Err(rejected(format!("no other broker takes messages of {topic}; delete it")));
        }
        let placement: Vec<_> = others
            .iter()
            .map(|(name, queues)| Placement { broker_name: name.to_string(), queues: *queues })
            .collect();
        seen.all_answer(&placement)?;
        let here = seen.0.iter().find(|(name, _)| *name == group).map(|(_, answer)| answer);
        match here {
            Some(Ok(Some(_))) => {
                let change = match force {
                    true => Change::DeleteTopic(topic.to_string()),
                    false => Change::RetireTopic(RetireTopic {
                        topic: topic.to_string(),
                        broker_name: group.to_string(),
                        force,
                    }),
                };
                self.change_at(caller, &group, ChangeRequest { change: Some(change) }).await?;
            }
            // It is gone from there already.
            Some(Ok(None)) => {}
            // The group is lost, and its messages with it.
            Some(Err(_)) | None if force => {}
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(rejected(format!("{group} does not host {topic}"))),
        }
        if others.len() == before.placement.len() {
            return Ok(());
        }
        let config = TopicConfig {
            topic: topic.to_string(),
            queues: 0,
            permission: before.permission.into(),
            accepts: before.accepts.iter().map(|kind| i32::from(*kind)).collect(),
        };
        self.write(caller, Some(before), config, &placement, &[], false).await.map(|_| ())
    }
}
