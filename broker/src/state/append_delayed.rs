//! Messages that are to be delivered later are stored.

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp};

use super::append_half::HALF;
use super::{At, State, limits};
use crate::command::{
    Accepted, AppendDelayed, DelayedMessage, Effect, Outcome, Rejection, TimerId,
};
use crate::kv::TopicId;
use crate::kv::dedupe::Seen;
use crate::kv::timer::Timer;

/// Stands for the queue of a remembered send whose message got a timer: its place is the timer's
/// number. No queue has this id, see [`limits::QUEUES`]. Persisted with the remembered sends.
pub(super) const DELAYED: QueueId = QueueId(u32::MAX - 30);

const _: () = assert!(DELAYED.0 >= limits::QUEUES);

impl State {
    /// `end` is where the command ends in the log: its messages are its last bytes.
    pub(super) fn append_delayed(&mut self, at: At, c: &AppendDelayed, end: LogOffset) -> Outcome {
        let (topic, head) = match self.writable(&c.topic, c.queue) {
            Ok(found) => found,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        if self.timers.total() + c.messages.len() as u64 > limits::TIMERS {
            return Outcome::Rejected(Rejection::TooManyTimers { max: limits::TIMERS });
        }
        let bytes: u64 = c.messages.iter().map(|m| m.message.bytes.len() as u64).sum();
        let mut position = LogOffset(end.0 - bytes);
        let mut messages = Vec::with_capacity(c.messages.len());
        for delayed in &c.messages {
            messages.push(self.accept(at.stamp, topic, c.queue, delayed, position));
            position = position + delayed.message.bytes.len() as u64;
        }
        if messages.iter().any(|m| matches!(m, Accepted::Queued(placed) if !placed.repeated)) {
            self.change.grown.entry((topic, c.queue)).or_insert(head);
            let effect = Effect::Appended { topic: c.topic.clone(), queue: c.queue };
            self.change.effects.push(effect);
        }
        let due = |accepted: &Accepted| match accepted {
            Accepted::Waits { timer, repeated: false } => Some(timer.due),
            Accepted::Waits { .. } | Accepted::Queued(_) => None,
        };
        if let Some(due) = messages.iter().filter_map(due).min() {
            self.change.effects.push(Effect::Scheduled { due });
        }
        Outcome::Delayed { stamp: at.stamp, messages }
    }

    fn accept(
        &mut self,
        stamp: Timestamp,
        topic: TopicId,
        queue: QueueId,
        delayed: &DelayedMessage,
        position: LogOffset,
    ) -> Accepted {
        let DelayedMessage { due, message } = delayed;
        let due = *due;
        let earlier = message.dedupe.and_then(|id| self.dedupe.find(id, topic, stamp));
        if let Some((DELAYED, QueueOffset(number))) = earlier {
            return Accepted::Waits { timer: TimerId { due, number }, repeated: true };
        }
        let queued = earlier.is_some_and(|(queue, _)| queue != HALF);
        if due <= stamp || queued {
            let placed = self.append_once(stamp, topic, queue, message, position);
            if !placed.repeated {
                self.retained.add(topic, position, 1, message.bytes.len() as u64);
            }
            return Accepted::Queued(placed);
        }
        let timer = Timer {
            topic,
            queue,
            position,
            len: u32::try_from(message.bytes.len()).expect("a message is below 4 GiB"),
            tag_hash: message.tag_hash,
            sent: stamp,
            key_hashes: message.key_hashes.as_slice().into(),
        };
        self.retained.add(topic, position, 1, timer.len.into());
        let timer = self.timers.set(&mut self.change.batch, due, timer);
        if let Some(id) = message.dedupe {
            let offset = QueueOffset(timer.number);
            self.dedupe.remember(Seen { id, topic, queue: DELAYED, offset }, stamp);
        }
        Accepted::Waits { timer, repeated: false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, delayed, message, topic, waits};
    use super::*;
    use crate::command::{Append, Command, NewMessage, Placed};

    fn queue_end(script: &Script) -> u64 {
        script.state.topic(&topic()).unwrap().offsets(QueueId(0)).unwrap().end.0
    }

    #[test]
    fn a_delayed_message_is_in_no_queue_and_the_others_are() {
        let mut script = Script::with_queues(1);
        let outcome = script.at(100).delays(&[
            delayed(500, message("later")),
            delayed(100, message("now")),
            delayed(0, message("normal")),
            delayed(300, message("sooner")),
        ]);
        let queued = |offset| {
            let (queue, offset) = (QueueId(0), QueueOffset(offset));
            Accepted::Queued(Placed { queue, offset, repeated: false })
        };
        let messages = vec![waits(500, 0), queued(0), queued(1), waits(300, 1)];
        assert_eq!(outcome, Outcome::Delayed { stamp: Timestamp(100), messages });
        let appended = Effect::Appended { topic: topic(), queue: QueueId(0) };
        assert_eq!(script.effects, [appended, Effect::Scheduled { due: Timestamp(300) }]);
        let script = script.restarted();
        assert_eq!(queue_end(&script), 2);
        assert_eq!(script.state.next_timer(), Some(Timestamp(300)));
        assert_eq!(script.state.timers_pending(), 2);
    }

    #[test]
    fn a_repeated_send_gets_the_same_timer() {
        let mut script = Script::with_queues(1);
        let sent = |id| NewMessage { dedupe: Some(id), ..message("m") };
        let later = || delayed(500, sent(1));
        assert_eq!(script.delayed(&[later()]), [waits(500, 0)]);
        let repeated =
            Accepted::Waits { timer: TimerId { due: Timestamp(500), number: 0 }, repeated: true };
        assert_eq!(script.delayed(&[later()]), [repeated]);
        assert!(script.effects.is_empty());
        let mut script = script.restarted();
        // Even when it is due, and when it was delivered.
        assert_eq!(script.at(500).delayed(&[later()]), [repeated]);
        assert_eq!(script.fires(9), [500]);
        assert_eq!(script.delayed(&[later()]), [repeated]);
        assert_eq!((queue_end(&script), script.state.timers_pending()), (1, 0));

        // One that was delivered at once is not delayed the second time.
        let late = || delayed(400, sent(2));
        let placed = |repeated| {
            let (queue, offset) = (QueueId(0), QueueOffset(1));
            [Accepted::Queued(Placed { queue, offset, repeated })]
        };
        assert_eq!(script.delayed(&[late()]), placed(false));
        assert_eq!(script.delayed(&[late()]), placed(true));
        assert_eq!(script.delayed(&[delayed(9000, sent(2))]), placed(true));
    }

    #[test]
    fn a_timers_number_is_no_offset_of_a_plain_send() {
        let mut script = Script::with_queues(1);
        let sent = || NewMessage { dedupe: Some(1), ..message("m") };
        script.delays(&[delayed(500, sent())]);
        let (topic, queue) = (topic(), QueueId(0));
        let append = Append { topic, queue, messages: vec![sent()] };
        let messages = vec![Placed { queue, offset: QueueOffset(0), repeated: false }];
        let stamp = Timestamp(0);
        assert_eq!(script.does(Command::Append(append)), Outcome::Appended { stamp, messages });
    }

    #[test]
    fn what_cannot_be_stored_is_rejected() {
        let mut script = Script::new();
        let none = script.delays(&[delayed(5, message("x"))]);
        assert_eq!(none, Outcome::Rejected(Rejection::TopicNotFound));
    }
}
