//! What the leader asks about offsets and backlogs.

use proto::{ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic};

use super::State;
use super::view::QueueProgress;
use crate::kv::reset::Reset;

/// What a consumer group has before it in a queue. Exact, but for filters: messages that its
/// members would filter out count until they have been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub progress: QueueProgress,
    /// In nobody's hands: never delivered, or delivered without success and due again. Where order
    /// matters, another message of the same message group may have to be acknowledged first.
    pub ready: u64,
    /// Handed out, neither acknowledged nor due again.
    pub in_flight: u64,
    /// When the last message below the committed offset entered the queue, if there is one.
    pub last_consumed: Option<Timestamp>,
}

impl Backlog {
    /// Messages that are not consumed.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.ready + self.in_flight
    }
}

/// What became of one message in a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumption {
    /// Acknowledged, committed, skipped, or filtered out.
    Consumed,
    /// Handed out and not acknowledged.
    InFlight {
        /// When it was handed out.
        since: Timestamp,
        /// When it may be handed out again; in the past when that has not happened yet.
        due: Timestamp,
        attempt: u32,
    },
    /// Not handed out yet.
    Waiting,
}

impl State {
    /// Everything of the queue below this is consumed by the group. `None` when the group has
    /// never been given or committed anything there.
    #[must_use]
    pub fn committed_offset(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
    ) -> Option<QueueOffset> {
        let (group, topic) = (self.groups.id(group)?, self.topics.id(topic)?);
        let known = self.subscriptions.get(group, topic)?.of(queue).known;
        known.then(|| self.committed((group, topic, queue)))
    }

    /// Whether the group may consume; one that does not exist may.
    #[must_use]
    pub fn may_consume(&self, group: &ConsumerGroup) -> bool {
        self.groups.id(group).is_none_or(|group| self.groups.standing(group).enabled)
    }

    /// The reset of the group in the queue that no pull has followed yet.
    #[must_use]
    pub fn pending_reset(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
    ) -> Option<Reset> {
        let (group, topic) = (self.groups.id(group)?, self.topics.id(topic)?);
        self.subscriptions.reset(group, topic, queue).filter(|reset| reset.pending)
    }

    /// What the group has before it in the queue at `now`; `None` when there is no such queue.
    ///
    /// # Errors
    /// The store failed.
    pub fn backlog(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
        queue: QueueId,
        now: Timestamp,
    ) -> Result<Option<Backlog>, crate::kv::Error> {
        let Some(progress) = self.progress(group, topic, queue) else { return Ok(None) };
        let ids = self.groups.id(group).zip(self.topics.id(topic));
        let subscription = ids.and_then(|(group, topic)| self.subscriptions.get(group, topic));
        let held = subscription.map_or(0, |s| s.in_flight.lasting(queue, now)) as u64;
        let ended = u64::from(progress.in_flight) + u64::from(progress.waiting) - held;
        let last = match progress.committed.0.checked_sub(1) {
            Some(last) => self.entry(topic, queue, QueueOffset(last))?,
            None => None,
        };
        Ok(Some(Backlog {
            progress,
            ready: progress.max.0 - progress.next.0.max(progress.min.0) + ended,
            in_flight: held,
            last_consumed: last.map(|entry| entry.visible),
        }))
    }

    /// What became of a message in every consumer group that has been given, or has committed,
    /// anything of its topic.
    #[must_use]
    pub fn consumptions(
        &self,
        topic: &Topic,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Vec<(&ConsumerGroup, Consumption)> {
        let Some(topic) = self.topics.id(topic) else { return vec![] };
        let all = self.subscriptions.iter().filter(|((_, of), _)| *of == topic);
        let of = all.map(|((group, _), subscription)| {
            let held = subscription.in_flight.get(queue, offset).map(|record| record.delivery);
            let consumption = match held {
                Some(held) if held.attempt > 0 => Consumption::InFlight {
                    since: held.since,
                    due: held.due,
                    attempt: held.attempt,
                },
                None if offset < subscription.of(queue).next => Consumption::Consumed,
                Some(_) | None => Consumption::Waiting,
            };
            (self.groups.name(group), consumption)
        });
        of.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, commit, group, handle, topic};
    use super::*;

    #[test]
    fn a_backlog_is_what_is_ready_and_what_is_in_flight() {
        let mut script = Script::with_messages(9);
        let granted = script.at(100).pops_range(0..5);
        script.acks(&[handle(&granted[0])]);
        script.at(200).pops_range(5..6);
        let at = |script: &Script, now| {
            let backlog =
                script.state.backlog(&group(), &topic(), QueueId(0), Timestamp(now)).unwrap();
            let backlog = backlog.unwrap();
            (backlog.ready, backlog.in_flight, backlog.lag())
        };
        assert_eq!(at(&script, 300), (3, 5, 8));
        assert_eq!(at(&script, 60_100), (7, 1, 8));
        assert_eq!(at(&script, 60_200), (8, 0, 8));
        let backlog = script.state.backlog(&group(), &topic(), QueueId(0), Timestamp(0)).unwrap();
        assert_eq!(backlog.unwrap().last_consumed, Some(Timestamp(0)));
        let nowhere = script.state.backlog(&group(), &topic(), QueueId(1), Timestamp(0)).unwrap();
        assert_eq!(nowhere, None);
    }

    #[test]
    fn a_group_may_consume_unless_it_is_stopped() {
        let mut script = Script::with_messages(1);
        assert!(script.state.may_consume(&group()));
        let stop = crate::command::SwitchGroup { group: group(), enabled: false };
        script.does(crate::command::Command::SwitchGroup(stop));
        assert!(!script.state.may_consume(&group()));
    }

    #[test]
    fn a_message_is_waiting_then_in_flight_then_consumed() {
        let mut script = Script::with_messages(3);
        let of = |script: &Script| {
            let all = script.state.consumptions(&topic(), QueueId(0), QueueOffset(1));
            all.into_iter().map(|(_, consumption)| consumption).collect::<Vec<_>>()
        };
        assert_eq!(of(&script), []);
        script.does(commit(0, 1));
        assert_eq!(of(&script), [Consumption::Waiting]);
        let granted = script.at(50).pops_range(1..2);
        let in_flight =
            Consumption::InFlight { since: Timestamp(50), due: Timestamp(60_050), attempt: 1 };
        assert_eq!(of(&script), [in_flight]);
        script.acks(&[handle(&granted[0])]);
        assert_eq!(of(&script), [Consumption::Consumed]);
    }
}
