//! How things stand in the broker group, for its metrics.

use std::collections::BTreeMap;

use proto::{
    ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic,
    clock::{millis, wall_now},
    v2::ClientType,
};

use super::Broker;
use crate::{
    Error,
    command::dead_letter_topic,
    metrics::{Lag, Program, Standing},
};

/// Pairs of consumer group and topic on one page; Prometheus would choke on many more.
const PLACES: usize = 10_000;
/// Transactions that are counted by topic.
const HALVES: usize = 10_000;

impl Broker {
    /// How things stand, as far as this node has applied; `None` unless it leads.
    ///
    /// # Errors
    /// The store failed.
    pub fn standing(&self) -> Result<Option<Standing>, Error> {
        if self.leading().is_err() {
            return Ok(None);
        }
        let (now, topics) = (wall_now(), self.view.topics());
        let groups = self.view.consumer_groups();
        let mut standing = Standing {
            topics: topics.len() as u64,
            consumer_groups: groups.len() as u64,
            timer_late_ms: self.view.next_timer().map_or(0, |due| age(due, now)),
            ..Standing::default()
        };
        for (group, _) in groups {
            let letters = dead_letter_topic(&group);
            let ends = self.view.queue_ends(&letters).into_iter();
            let given_up = ends.map(|(_, _, end)| end.0).sum::<u64>();
            if given_up > 0 {
                standing.dead_letters.insert((group.clone(), letters), given_up);
            }
            if standing.lags.len() < PLACES {
                self.add_lags(&group, now, &mut standing.lags)?;
            }
        }
        for half in self.view.transactions(None, false, 0, HALVES) {
            *standing.half_messages.entry(half.topic).or_default() += 1;
        }
        for (topic, _) in topics {
            let waiting = self.view.timers_pending_of(&topic);
            if waiting > 0 {
                standing.timing_messages.insert(topic, waiting);
            }
        }
        self.add_clients(&mut standing);
        Ok(Some(standing))
    }

    fn add_lags(
        &self,
        group: &ConsumerGroup,
        now: Timestamp,
        lags: &mut BTreeMap<(ConsumerGroup, Topic), Lag>,
    ) -> Result<(), Error> {
        for (topic, backlog) in self.view.backlog(group, None, now)? {
            let at = backlog.progress;
            let oldest = |from: QueueOffset| self.age_of(&topic, at.queue, from..at.max, now);
            let (latency_ms, queueing_ms) = (oldest(at.committed)?, oldest(at.next)?);
            let lag = lags.entry((group.clone(), topic)).or_default();
            lag.ready += backlog.ready;
            lag.in_flight += backlog.in_flight;
            lag.latency_ms = lag.latency_ms.max(latency_ms);
            lag.queueing_ms = lag.queueing_ms.max(queueing_ms);
        }
        Ok(())
    }

    /// Ms since the first message of a stretch entered its queue; 0 for an empty one.
    fn age_of(
        &self,
        topic: &Topic,
        queue: QueueId,
        stretch: std::ops::Range<QueueOffset>,
        now: Timestamp,
    ) -> Result<u64, Error> {
        if stretch.is_empty() {
            return Ok(0);
        }
        let visible = self.view.visible_at(topic, queue, stretch.start)?;
        Ok(visible.map_or(0, |visible| age(visible, now)))
    }

    fn add_clients(&self, standing: &mut Standing) {
        for (_, client) in self.clients().iter() {
            let program =
                Program { language: client.language.clone(), version: client.version.clone() };
            let count = match (&client.group, consume_mode(client.kind)) {
                (Some(group), Some(mode)) => {
                    standing.consumers.entry((group.clone(), mode, program)).or_default()
                }
                _ => standing.producers.entry(program).or_default(),
            };
            *count += 1;
        }
    }
}

fn age(since: Timestamp, now: Timestamp) -> u64 {
    millis(now.since(since))
}

/// RocketMQ's word for how a client consumes; `None` for a producer.
fn consume_mode(kind: ClientType) -> Option<&'static str> {
    match kind {
        ClientType::PushConsumer | ClientType::LitePushConsumer => Some("push"),
        ClientType::SimpleConsumer | ClientType::LiteSimpleConsumer => Some("pop"),
        ClientType::PullConsumer => Some("pull"),
        ClientType::Producer | ClientType::Unspecified => None,
    }
}
