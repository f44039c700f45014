//! Finds topics, also those that the directory has not heard of yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::join_all;
use proto::{BrokerName, Topic};
use tonic::metadata::MetadataMap;

use crate::{
    Caller, Directory, Local, TopicRoute,
    forward::{Forwarder, Passage, wait},
    operation::{DescribeTopic, TopicQuestion},
    retry::Repeat,
    status::Refusal,
};

/// How long an answer of a leader counts while the directory has none. A topic that was just
/// created is in the directory long before.
const LEARNED_FOR: Duration = Duration::from_secs(15);

/// Topics remembered at once; over it, all are forgotten.
const LEARNED_MAX: usize = 4096;

/// Pause while no broker group is known at all.
const NO_GROUP_PAUSE: Duration = Duration::from_millis(100);

/// What leaders said about topics that the directory does not have.
#[derive(Debug, Default)]
pub(crate) struct Learned(Mutex<HashMap<Topic, (Instant, Arc<TopicRoute>)>>);

impl Learned {
    fn get(&self, topic: &Topic, now: Instant) -> Option<Arc<TopicRoute>> {
        let learned = self.0.lock().expect("no holder panics");
        let (until, route) = learned.get(topic)?;
        (now < *until).then(|| Arc::clone(route))
    }

    fn put(&self, route: &Arc<TopicRoute>, now: Instant) {
        let mut learned = self.0.lock().expect("no holder panics");
        if learned.len() >= LEARNED_MAX {
            learned.clear();
        }
        learned.insert(route.topic.clone(), (now + LEARNED_FOR, Arc::clone(route)));
    }
}

impl<L: Local, D: Directory> Forwarder<L, D> {
    /// The topic's route; `None` when it certainly does not exist. With `create` the brokers may
    /// create it on the way, where they are set so.
    pub(crate) async fn find_topic(
        &self,
        learned: &Learned,
        caller: &Caller,
        topic: &Topic,
        create: bool,
        hold: Duration,
    ) -> Result<Option<Arc<TopicRoute>>, Refusal> {
        let known = self.directory.topic(topic).or_else(|| learned.get(topic, Instant::now()));
        if known.is_some() {
            return Ok(known);
        }
        let groups = self.some_groups(caller, hold).await?;
        let found = match &groups[..] {
            [only] => self.ask(caller, only, topic, create, hold).await?,
            _ => self.ask_all(caller, &groups, topic, create, hold).await?,
        };
        Ok(found.map(|route| {
            let route = Arc::new(route);
            learned.put(&route, Instant::now());
            route
        }))
    }

    /// The broker groups, once there is one: a NameServer that has just started knows none.
    pub(crate) async fn some_groups(
        &self,
        caller: &Caller,
        hold: Duration,
    ) -> Result<Vec<BrokerName>, Refusal> {
        let started = Instant::now();
        let until = caller.deadline.min(started + hold);
        let mut changed = self.directory.changed();
        loop {
            changed.mark_unchanged();
            let mut groups = self.directory.groups();
            if let Some(own) = self.local.broker_name()
                && !groups.contains(own)
            {
                groups.push(own.clone());
            }
            if !groups.is_empty() {
                return Ok(groups);
            }
            let now = Instant::now();
            if now >= until {
                return Err(Refusal::NoGroup { waited: now - started });
            }
            wait(&mut changed, NO_GROUP_PAUSE.min(until - now)).await;
        }
    }

    /// Several groups: any of them may have it, and only when all say no may one create it.
    async fn ask_all(
        &self,
        caller: &Caller,
        groups: &[BrokerName],
        topic: &Topic,
        create: bool,
        hold: Duration,
    ) -> Result<Option<TopicRoute>, Refusal> {
        let questions = groups.iter().map(|group| self.ask(caller, group, topic, false, hold));
        let mut best: Option<TopicRoute> = None;
        let mut refusal = None;
        for answer in join_all(questions).await {
            match answer {
                Ok(Some(route)) if best.as_ref().is_none_or(|b| b.version < route.version) => {
                    best = Some(route);
                }
                Ok(_) => {}
                Err(error) => refusal = Some(error),
            }
        }
        match (best, refusal) {
            (Some(route), _) => Ok(Some(route)),
            (None, Some(refusal)) => Err(refusal),
            // The same group for all who ask at once, so that it is created once.
            (None, None) if create => self.ask(caller, &groups[0], topic, true, hold).await,
            (None, None) => Ok(None),
        }
    }

    async fn ask(
        &self,
        caller: &Caller,
        group: &BrokerName,
        topic: &Topic,
        create: bool,
        hold: Duration,
    ) -> Result<Option<TopicRoute>, Refusal> {
        let metadata = MetadataMap::new();
        let passage = Passage {
            caller,
            metadata: &metadata,
            group,
            repeat: Repeat::Safe,
            hold,
            elsewhere: false,
        };
        let question = TopicQuestion { topic: topic.clone(), create };
        self.call::<DescribeTopic>(&passage, question).await
    }
}

#[cfg(test)]
mod tests {
    use proto::v2::{MessageType, Permission};

    use super::*;

    #[test]
    fn what_was_learned_counts_for_a_while() {
        let learned = Learned::default();
        let now = Instant::now();
        let route = Arc::new(TopicRoute {
            topic: "orders".parse().expect("valid"),
            permission: Permission::ReadWrite,
            accepts: vec![MessageType::Normal],
            placement: vec![("broker-a".parse().expect("valid"), 1)],
            version: 1,
        });
        learned.put(&route, now);
        assert!(learned.get(&route.topic, now).is_some());
        assert!(learned.get(&route.topic, now + LEARNED_FOR).is_none());
    }
}
