//! Delayed messages in the plainest way: a list of all there ever were.

use broker::command::{
    Accepted, AppendDelayed, Command, DelayedMessage, Fire, NewMessage, Outcome, Recall,
    RecallOutcome, Rejection, TimerId,
};
use broker::state::State;
use commitlog::position::LogOffset;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::BoxedStrategy;
use proto::{QueueId, Timestamp, Topic};

use crate::model::{At, Model, Went};
use crate::retention::{Live, timer_id};
use crate::steps::{MessageStep, QUEUES, TOPICS, message_step, new_message, topic};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Every timer that was ever set, by number.
pub(crate) type Timers = Vec<Timer>;

#[derive(Debug, Clone)]
pub(crate) struct Timer {
    due: u64,
    /// `None` once it was deleted.
    topic: Option<Topic>,
    queue: QueueId,
    position: u64,
    message: NewMessage,
    sent: u64,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    Fired,
    Recalled,
    /// Its topic was deleted.
    Dropped,
}

impl Model {
    pub(crate) fn append_delayed(
        &mut self,
        at: At,
        c: &AppendDelayed,
    ) -> Result<Outcome, Rejection> {
        self.writable(&c.topic, c.queue)?;
        let mut messages = vec![];
        for (number, delayed) in c.messages.iter().enumerate() {
            let rest: usize = c.messages[number..].iter().map(|m| m.message.bytes.len()).sum();
            let position = at.end - rest as u64;
            messages.push(self.delay_one(at, c, delayed, position));
        }
        Ok(Outcome::Delayed { stamp: Timestamp(at.stamp), messages })
    }

    fn delay_one(
        &mut self,
        at: At,
        c: &AppendDelayed,
        delayed: &DelayedMessage,
        position: u64,
    ) -> Accepted {
        let DelayedMessage { due, message } = delayed;
        let earlier = self.sent_before(at, &c.topic, message.dedupe);
        if let Some(Went::Delayed(number)) = earlier {
            return Accepted::Waits { timer: TimerId { due: *due, number }, repeated: true };
        }
        if due.0 <= at.stamp || matches!(earlier, Some(Went::ToQueue(_))) {
            return Accepted::Queued(self.append_one(at, &c.topic, c.queue, position, message));
        }
        let number = self.timers.len() as u64;
        self.timers.push(Timer {
            due: due.0,
            topic: Some(c.topic.clone()),
            queue: c.queue,
            position,
            message: message.clone(),
            sent: at.stamp,
            fate: Fate::Waits,
        });
        self.remember(at, &c.topic, message, Went::Delayed(number));
        Accepted::Waits { timer: TimerId { due: *due, number }, repeated: false }
    }

    pub(crate) fn fire(&mut self, at: At, c: Fire) -> Outcome {
        let mut ready: Vec<usize> = (0..self.timers.len()).collect();
        ready.retain(|n| self.timers[*n].fate == Fate::Waits && self.timers[*n].due <= at.stamp);
        ready.sort_by_key(|n| (self.timers[*n].due, *n));
        ready.truncate(c.most as usize);
        let (mut due, mut dropped) = (vec![], 0);
        for number in ready {
            let timer = &mut self.timers[number];
            timer.fate = if timer.topic.is_some() { Fate::Fired } else { Fate::Dropped };
            let timer = timer.clone();
            let Some(topic) = timer.topic else {
                dropped += 1;
                continue;
            };
            let queue = QueueId(timer.queue.0 % self.topics[&topic].config.queues.max(1));
            self.enqueue(at, &topic, queue, timer.position, &timer.message);
            due.push(Timestamp(timer.due));
        }
        Outcome::Fired { stamp: Timestamp(at.stamp), due, dropped }
    }

    /// What waits of topics that are there.
    pub(crate) fn live_timers(&self) -> impl Iterator<Item = Live> {
        let waiting = (0..).zip(&self.timers).filter(|(_, timer)| timer.fate == Fate::Waits);
        waiting.filter_map(|(number, timer)| {
            Some(Live {
                reference: timer_id(timer.due, number),
                topic: timer.topic.clone()?,
                position: timer.position,
                len: timer.message.bytes.len() as u64,
            })
        })
    }

    pub(crate) fn carry_timer(&mut self, number: u64, to: u64) {
        self.timers[usize::try_from(number).unwrap()].position = to;
    }

    /// Delayed messages of a topic that wait.
    pub(crate) fn timers_of(&self, topic: &Topic) -> u64 {
        let waits = |timer: &&Timer| timer.fate == Fate::Waits;
        let here = self.timers.iter().filter(|timer| timer.topic.as_ref() == Some(topic));
        here.filter(waits).count() as u64
    }

    pub(crate) fn forget_timers(&mut self, topic: &Topic) {
        for timer in self.timers.iter_mut().filter(|timer| timer.topic.as_ref() == Some(topic)) {
            timer.topic = None;
        }
    }

    pub(crate) fn recall(&mut self, at: At, c: &Recall) -> Result<Outcome, Rejection> {
        self.topics.get(&c.topic).ok_or(Rejection::TopicNotFound)?;
        let number = usize::try_from(c.timer.number).unwrap();
        let ever_set = number < self.timers.len();
        let known = self.timers.get_mut(number);
        let known = known.filter(|timer| timer.due == c.timer.due.0);
        let forgotten = c.timer.due.0 + DAY_MS < at.stamp;
        let Some(timer) = known else {
            // An id that was made up cannot be told from one that fired: handles carry a checksum.
            let fired = ever_set && c.timer.due.0 <= at.stamp && !forgotten;
            let outcome = if fired { RecallOutcome::Delivered } else { RecallOutcome::Unknown };
            return Ok(Outcome::Recalled(outcome));
        };
        let own = timer.topic.as_ref() == Some(&c.topic);
        Ok(Outcome::Recalled(match timer.fate {
            Fate::Waits if own => {
                timer.fate = Fate::Recalled;
                RecallOutcome::Done
            }
            Fate::Waits | Fate::Dropped => RecallOutcome::Unknown,
            _ if forgotten => RecallOutcome::Unknown,
            Fate::Recalled if own => RecallOutcome::Done,
            Fate::Recalled => RecallOutcome::Unknown,
            Fate::Fired => RecallOutcome::Delivered,
        }))
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Each so long after the log time of the last entry; 0 for not delayed.
    Append {
        topic: usize,
        queue: u32,
        messages: Vec<(u64, MessageStep)>,
    },
    Fire {
        most: u32,
    },
    /// One of the timers that were ever set, or one with something wrong about it.
    Recall {
        which: Index,
        wrong_due: bool,
        wrong_number: bool,
        topic: Option<usize>,
    },
}

pub(crate) fn step(topics: BoxedStrategy<usize>) -> impl Strategy<Value = Step> {
    let after = prop::sample::select(vec![0_u64, 1, 50, 100, 60_000, 600_000, DAY_MS]);
    let messages = prop::collection::vec((after, message_step()), 1..5);
    let other = prop_oneof![9 => Just(None), 1 => (0..TOPICS.len()).prop_map(Some)];
    let seldom = || prop::bool::weighted(0.05);
    prop_oneof![
        4 => (topics, 0..QUEUES, messages)
            .prop_map(|(topic, queue, messages)| Step::Append { topic, queue, messages }),
        2 => (0..12_u32).prop_map(|most| Step::Fire { most }),
        2 => (any::<Index>(), seldom(), seldom(), other).prop_map(
            |(which, wrong_due, wrong_number, topic)| Step::Recall {
                which, wrong_due, wrong_number, topic,
            }
        ),
    ]
}

pub(crate) fn resolve(step: &Step, model: &Model, now: u64) -> Command {
    match step {
        Step::Append { topic: t, queue, messages } => {
            let delayed = |(after, step): &(u64, MessageStep)| DelayedMessage {
                due: Timestamp(if *after == 0 { 0 } else { now + after }),
                message: new_message(step),
            };
            let messages = messages.iter().map(delayed).collect();
            Command::AppendDelayed(AppendDelayed {
                topic: topic(*t),
                queue: QueueId(*queue),
                messages,
            })
        }
        Step::Fire { most } => Command::Fire(Fire { most: *most }),
        Step::Recall { which, wrong_due, wrong_number, topic: other } => {
            let (mut id, of) = match model.timers.is_empty() {
                true => (TimerId { due: Timestamp(now), number: 0 }, topic(0)),
                false => {
                    let number = which.index(model.timers.len());
                    let timer = &model.timers[number];
                    let (due, number) = (Timestamp(timer.due), number as u64);
                    (TimerId { due, number }, timer.topic.clone().unwrap_or(topic(0)))
                }
            };
            id.due.0 += u64::from(*wrong_due);
            id.number += u64::from(*wrong_number);
            Command::Recall(Recall { topic: other.map_or(of, topic), timer: id })
        }
    }
}

/// What waits can be listed, and is counted.
pub(crate) fn check(state: &State, model: &Model) {
    let all = || (0..).zip(&model.timers).filter(|(_, timer)| timer.fate == Fate::Waits);
    assert_eq!(state.timers_pending(), all().count() as u64);
    assert_eq!(state.next_timer().map(|due| due.0), all().map(|(_, timer)| timer.due).min());
    for topic in (0..TOPICS.len()).map(topic) {
        let mut expected: Vec<_> = all()
            .filter(|(_, timer)| timer.topic.as_ref() == Some(&topic))
            .map(|(number, timer)| (timer.due, number, timer))
            .collect();
        expected.sort_by_key(|(due, number, _)| (*due, *number));
        assert_eq!(state.timers_pending_of(&topic), expected.len() as u64);
        let mut found = vec![];
        let mut from = Some(TimerId { due: Timestamp(0), number: 0 });
        while let Some(next) = from {
            let page = state.timer_page(&topic, next, 3, 5).unwrap();
            found.extend(page.timers);
            from = page.next;
        }
        assert_eq!(found.len(), expected.len());
        for (found, (due, number, timer)) in found.iter().zip(expected) {
            assert_eq!(found.timer, TimerId { due: Timestamp(due), number });
            assert_eq!((found.queue, found.sent.0), (timer.queue, timer.sent));
            assert_eq!(found.position, LogOffset(timer.position));
            assert_eq!(found.len as usize, timer.message.bytes.len());
        }
    }
}
