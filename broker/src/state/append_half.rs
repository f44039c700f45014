//! A transactional message is stored, and enters no queue.

use std::time::Duration;

use commitlog::Bug;
use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset};

use super::{At, State, limits};
use crate::command::{AppendHalf, Effect, Outcome, Rejection};
use crate::kv::dedupe::Seen;
use crate::kv::half::Half;
use crate::kv::{self, TopicId};

/// In the table of sends seen lately: the message is a half one, and the offset is the number of
/// its transaction. No topic has so many queues.
pub(super) const HALF: QueueId = QueueId(u32::MAX - 40);

impl State {
    /// `end` is where the command ends in the log: the message is its last bytes.
    pub(super) fn append_half(&mut self, at: At, c: &AppendHalf, end: LogOffset) -> Outcome {
        let topic = match self.writable(&c.topic, c.queue) {
            Ok((topic, _)) => topic,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        let answer = |transaction, repeated| Outcome::HalfAppended {
            stamp: at.stamp,
            transaction,
            repeated,
        };
        let earlier = c.message.dedupe.and_then(|id| self.dedupe.find(id, topic, at.stamp));
        if let Some((_, number)) = earlier.filter(|(queue, _)| *queue == HALF) {
            return answer(number.0, true);
        }
        if self.transactions.len() >= limits::TRANSACTIONS as usize {
            return Outcome::Rejected(Rejection::TooManyTransactions { max: limits::TRANSACTIONS });
        }
        let transaction = at.delivery;
        let half = half_of(at, topic, c, end);
        self.change.effects.push(Effect::Orphaned { at: half.next_check });
        self.retained.add(topic, half.position, 1, half.len.into());
        kv::half::put(&mut self.change.batch, transaction, &half);
        if Bug::B09.is_sown() {
            self.make_visible(at, &half);
        }
        self.transactions.insert(transaction, half);
        if let Some(id) = c.message.dedupe {
            let seen = Seen { id, topic, queue: HALF, offset: QueueOffset(transaction) };
            self.dedupe.remember(seen, at.stamp);
        }
        answer(transaction, false)
    }
}

fn half_of(at: At, topic: TopicId, c: &AppendHalf, end: LogOffset) -> Half {
    let message = &c.message;
    Half {
        topic,
        queue: c.queue,
        position: LogOffset(end.0 - message.bytes.len() as u64),
        len: u32::try_from(message.bytes.len()).expect("a message is below 4 GiB"),
        tag_hash: message.tag_hash,
        born: at.stamp,
        next_check: at.stamp.plus(Duration::from_millis(c.first_check_ms)),
        checks: 0,
        parked: false,
        key_hashes: message.key_hashes.clone(),
        client: c.client.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proto::Timestamp;

    use super::super::script::{Script, half, message, topic};
    use super::*;
    use crate::command::{Command, NewMessage};

    #[test]
    fn a_half_message_is_stored_and_in_no_queue() {
        let mut script = Script::with_queues(1);
        let keyed = NewMessage { tag_hash: 7, key_hashes: vec![5], ..message("half") };
        let number = script.at(50).appends_half(keyed);
        assert_eq!(script.effects, [Effect::Orphaned { at: Timestamp(6_050) }]);
        let script = script.restarted();
        let state = &script.state;
        let stored = state.transaction(number).unwrap();
        assert_eq!((stored.born.0, stored.next_check.0, stored.checks), (50, 6_050, 0));
        assert_eq!((stored.topic, stored.len, stored.parked), (topic(), 4, false));
        assert_eq!(stored.client.as_str(), "worker");
        let header = 1 + (2 + 6) + 4 + (2 + 6) + 8 + 14 + 8;
        assert_eq!(stored.position, LogOffset(1000 + header));

        assert_eq!(state.scan(&topic(), QueueId(0), QueueOffset(0), 9).unwrap(), []);
        assert_eq!(state.find_by_key(&topic(), 5, 9).unwrap(), []);
        assert!(!state.has_anything(&super::super::script::group(), &topic(), None, script.now()));
    }

    #[test]
    fn a_repeated_send_names_the_first_transaction() {
        let mut script = Script::with_queues(2);
        let sent = |id| NewMessage { dedupe: Some(id), ..message("half") };
        let first = script.appends_half(sent(1));
        let repeated = |transaction, repeated| Outcome::HalfAppended {
            stamp: Timestamp(0),
            transaction,
            repeated,
        };
        let mut elsewhere = half(sent(1));
        elsewhere.queue = QueueId(1);
        assert_eq!(
            script.does(Command::AppendHalf(elsewhere.clone())),
            repeated(first, true),
            "whatever queue it is for"
        );
        let mut script = script.restarted();
        assert_eq!(script.does(Command::AppendHalf(elsewhere)), repeated(first, true));
        assert_ne!(script.appends_half(sent(2)), first);
        assert_eq!(script.state.unresolved().pending, 2);
    }

    #[test]
    fn what_cannot_be_stored_is_rejected() {
        let mut script = Script::new();
        let append = Command::AppendHalf(half(message("x")));
        let rejected = Outcome::Rejected(Rejection::TopicNotFound);
        assert_eq!(script.does(append), rejected);
    }
}
