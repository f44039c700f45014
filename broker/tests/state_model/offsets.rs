//! Commits and resets: what they must do, and random ones.

use broker::command::{
    Command, CommitOffset, FollowReset, Outcome, QueueReset, Rejection, ResetOffsets, ResetTo,
};
use broker::kv::reset::Reset;
use broker::state::{Consumption, State};
use proptest::prelude::*;
use proto::{ConsumerGroup, QueueId, QueueOffset, Timestamp, Topic};

use crate::model::{At, Model, Place};
use crate::steps::{QUEUES, Step};

impl Model {
    /// Where the queue begins and ends.
    fn ends(&self, topic: &Topic, queue: QueueId) -> Result<(QueueOffset, QueueOffset), Rejection> {
        let known = self.topics.get(topic).ok_or(Rejection::TopicNotFound)?;
        let queues = known.readable;
        let messages = known.queues[..queues as usize].get(queue.0 as usize);
        let max = messages.ok_or(Rejection::QueueNotFound { queues })?.len() as u64;
        Ok((QueueOffset(self.min_of(topic, queue)), QueueOffset(max)))
    }

    fn committed(&self, place: &Place) -> u64 {
        self.held_in(place).map(|(offset, _)| offset).min().unwrap_or(self.next_of(place))
    }

    pub(crate) fn commit_offset(&mut self, at: At, c: &CommitOffset) -> Result<Outcome, Rejection> {
        let (min, max) = self.ends(&c.topic, c.queue)?;
        if c.offset > max {
            return Err(Rejection::OffsetOutOfRange { min, max });
        }
        let place = (c.group.clone(), c.topic.clone(), c.queue);
        if let Some(reset) = self.resets.get(&place).filter(|reset| reset.pending) {
            return Err(Rejection::OffsetReset { to: reset.to });
        }
        self.touch_group(&c.group, at.delivery);
        self.subscribed.insert((c.group.clone(), c.topic.clone()));
        self.held.retain(|(at, offset), _| *at != place || *offset >= c.offset.0);
        let next = self.next.get(&place).copied().unwrap_or(0).max(c.offset.0);
        self.next.insert(place.clone(), next);
        Ok(Outcome::OffsetCommitted { offset: QueueOffset(self.committed(&place)) })
    }

    pub(crate) fn reset_offsets(&mut self, at: At, c: &ResetOffsets) -> Result<Outcome, Rejection> {
        self.known(&c.group, &c.topic)?;
        let mut targets = vec![];
        for (queue, to) in &c.queues {
            let (min, max) = self.ends(&c.topic, *queue)?;
            targets.push(match to {
                ResetTo::Begin => min,
                ResetTo::End => max,
                ResetTo::Offset(offset) if (min..=max).contains(offset) => *offset,
                ResetTo::Offset(_) => {
                    return Err(Rejection::OffsetOutOfRange { min, max });
                }
            });
        }
        let mut queues = vec![];
        for ((queue, _), to) in c.queues.iter().zip(targets) {
            let place = (c.group.clone(), c.topic.clone(), *queue);
            let from = QueueOffset(self.committed(&place));
            let before = self.held.len();
            self.held.retain(|(at, _), _| *at != place);
            let ended = u32::try_from(before - self.held.len()).unwrap();
            self.next.insert(place.clone(), to.0);
            self.subscribed.insert((c.group.clone(), c.topic.clone()));
            self.resets.insert(place, Reset { id: at.delivery, to, pending: true });
            queues.push(QueueReset { queue: *queue, from, to, ended });
        }
        Ok(Outcome::OffsetsReset { queues })
    }

    pub(crate) fn follow_reset(&mut self, c: &FollowReset) -> Result<Outcome, Rejection> {
        self.known(&c.group, &c.topic)?;
        let place = (c.group.clone(), c.topic.clone(), c.queue);
        if let Some(reset) = self.resets.get_mut(&place).filter(|reset| reset.id == c.reset) {
            reset.pending = false;
        }
        Ok(Outcome::Done)
    }
}

pub(crate) fn step(
    groups: BoxedStrategy<usize>,
    topics: BoxedStrategy<usize>,
) -> impl Strategy<Value = Step> {
    let to = prop_oneof![
        Just(ResetTo::Begin),
        Just(ResetTo::End),
        (0..12_u64).prop_map(|offset| ResetTo::Offset(QueueOffset(offset))),
    ];
    let queues = prop::collection::vec((0..QUEUES, to), 0..3);
    let place = (groups.clone(), topics.clone(), 0..QUEUES);
    prop_oneof![
        2 => (place.clone(), 0..12_u64).prop_map(|((group, topic, queue), offset)| {
            Step::Commit { group, topic, queue, offset }
        }),
        1 => (groups, topics, queues)
            .prop_map(|(group, topic, queues)| Step::Reset { group, topic, queues }),
        2 => (place, prop::bool::weighted(0.1)).prop_map(|((group, topic, queue), wrong)| {
            Step::Follow { group, topic, queue, wrong }
        }),
    ]
}

pub(crate) fn commit(group: ConsumerGroup, topic: Topic, queue: QueueId, offset: u64) -> Command {
    Command::CommitOffset(CommitOffset { group, topic, queue, offset: QueueOffset(offset) })
}

pub(crate) fn reset(group: ConsumerGroup, topic: Topic, queues: &[(u32, ResetTo)]) -> Command {
    let queues = queues.iter().map(|(queue, to)| (QueueId(*queue), *to)).collect();
    Command::ResetOffsets(ResetOffsets { group, topic, queues })
}

pub(crate) fn follow(place: Place, wrong: bool, model: &Model) -> Command {
    let pending = model.resets.get(&place).filter(|reset| reset.pending && !wrong);
    let reset = pending.map_or(7, |reset| reset.id);
    let (group, topic, queue) = place;
    Command::FollowReset(FollowReset { group, topic, queue, reset })
}

/// Offsets and counts are those that come of counting messages one by one.
pub(crate) fn check(state: &State, model: &Model, place: &Place, now: Timestamp) {
    let (group, topic, queue) = place;
    let known = model.next.contains_key(place);
    let committed = known.then(|| QueueOffset(model.committed(place)));
    assert_eq!(state.committed_offset(group, topic, *queue), committed);
    let pending = model.resets.get(place).copied().filter(|reset| reset.pending);
    assert_eq!(state.pending_reset(group, topic, *queue), pending);

    let messages = &model.topics[topic].queues[queue.0 as usize];
    let (mut ready, mut in_flight) = (0, 0);
    let min = QueueOffset(model.min_of(topic, *queue));
    for message in messages.iter().filter(|message| min <= message.offset) {
        let held = model.held.get(&(place.clone(), message.offset.0));
        let waiting = message.offset.0 >= model.next_of(place);
        match held {
            Some(held) if held.due > now.0 => in_flight += 1,
            Some(_) => ready += 1,
            None => ready += u64::from(waiting),
        }
        let expected = match held {
            Some(held) if held.attempt > 0 => Consumption::InFlight {
                since: Timestamp(held.since),
                due: Timestamp(held.due),
                attempt: held.attempt,
            },
            None if !waiting => Consumption::Consumed,
            Some(_) | None => Consumption::Waiting,
        };
        let all = state.consumptions(topic, *queue, message.offset);
        let found = all.iter().find(|(of, _)| *of == group).map(|(_, found)| *found);
        assert_eq!(found.unwrap_or(Consumption::Waiting), expected);
    }
    let backlog = state.backlog(group, topic, *queue, now).unwrap().unwrap();
    assert_eq!((backlog.ready, backlog.in_flight), (ready, in_flight));
    let last = committed.and_then(|c| usize::try_from(c.0).unwrap().checked_sub(1));
    let last = last.filter(|last| min.0 <= *last as u64);
    assert_eq!(backlog.last_consumed, last.map(|last| messages[last].visible));
}
