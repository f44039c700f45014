//! A transaction ends: its message enters its queue, or is dropped.

use commitlog::Bug;

use super::{At, State};
use crate::command::{Effect, EndTransaction, Outcome, Rejection, Resolver, Verdict};
use crate::kv;
use crate::kv::consume_queue::Entry;
use crate::kv::half::Half;
use crate::kv::key_log::Keyed;
use crate::kv::resolution::Resolution;

impl State {
    pub(super) fn end_transaction(&mut self, at: At, c: EndTransaction) -> Outcome {
        let number = c.transaction;
        match self.transactions.get(number) {
            Some(half) if half.parked && c.by == Resolver::Producer => {
                return Outcome::Rejected(Rejection::TransactionParked);
            }
            Some(_) => {}
            None => return self.ended_before(at, c),
        }
        let half = self.transactions.take(number).expect("looked at just now");
        let resolution = Resolution { at: at.stamp, topic: half.topic, verdict: c.verdict };
        if !Bug::B11.is_sown() {
            kv::half::delete(&mut self.change.batch, number);
            kv::resolution::put(&mut self.change.batch, number, &resolution);
        }
        self.transactions.remember(number, resolution);
        for (ended, number) in self.transactions.forget(at.stamp) {
            kv::resolution::delete(&mut self.change.batch, ended, number);
        }
        match c.verdict {
            // What referred to it as a half message does so as an entry.
            Verdict::Commit => self.make_visible(at, &half),
            Verdict::Rollback => self.retained.release(half.topic, half.position, half.len.into()),
        }
        Outcome::TransactionEnded { repeated: false }
    }

    fn ended_before(&self, at: At, c: EndTransaction) -> Outcome {
        let rejected = match self.transactions.resolution(c.transaction, at.stamp) {
            Some(ended) if ended.verdict == c.verdict || Bug::B10.is_sown() => {
                return Outcome::TransactionEnded { repeated: true };
            }
            Some(Resolution { verdict: Verdict::Commit, .. }) => Rejection::TransactionCommitted,
            Some(Resolution { verdict: Verdict::Rollback, .. }) => Rejection::TransactionRolledBack,
            None => Rejection::TransactionNotFound,
        };
        Outcome::Rejected(rejected)
    }

    /// The message enters its queue now, and stays where it lies in the log.
    pub(super) fn make_visible(&mut self, at: At, half: &Half) {
        let topic = half.topic;
        let known = self.topics.get(topic);
        let queue = known.instead_of(half.queue);
        let before = known.head(queue).expect("it takes messages").max;
        let name = known.name().clone();
        self.change.grown.entry((topic, queue)).or_insert(before);
        let Half { position, len, tag_hash, .. } = *half;
        let offset =
            self.enqueue(topic, queue, Entry { position, len, tag_hash, visible: at.stamp });
        for hash in &half.key_hashes {
            self.keys.add(Keyed { topic, hash: *hash, queue, offset });
        }
        self.change.effects.push(Effect::Appended { topic: name, queue });
    }
}

#[cfg(test)]
mod tests {
    use proto::{QueueId, QueueOffset};

    use super::super::script::{Script, half, message, topic};
    use super::*;
    use crate::command::{Command, NewMessage};
    use crate::state::QueueEntry;

    fn queue(script: &Script) -> Vec<QueueEntry> {
        script.state.scan(&topic(), QueueId(0), QueueOffset(0), 9).unwrap()
    }

    fn ended(repeated: bool) -> Outcome {
        Outcome::TransactionEnded { repeated }
    }

    #[test]
    fn a_commit_adds_an_entry_that_points_at_the_half_message() {
        let mut script = Script::with_queues(1);
        let keyed = NewMessage { tag_hash: 7, key_hashes: vec![5], ..message("half") };
        let number = script.at(50).appends_half(keyed);
        let stored = script.state.transaction(number).unwrap();
        script.at(60).appends(0, &[message("between")]);
        assert_eq!(script.at(70).ends(number, Verdict::Commit), ended(false));
        let effect = Effect::Appended { topic: topic(), queue: QueueId(0) };
        assert_eq!(script.effects, [effect]);

        let script = script.restarted();
        let found = queue(&script);
        assert_eq!(found.len(), 2);
        let QueueEntry { offset, position, len, tag_hash, visible } = found[1];
        assert_eq!((offset, position, len), (QueueOffset(1), stored.position, stored.len));
        assert_eq!((tag_hash, visible), (7, script.now()));
        let by_key = script.state.find_by_key(&topic(), 5, 9).unwrap();
        assert_eq!(by_key, [(QueueId(0), QueueOffset(1))]);
        assert_eq!(script.state.transaction(number), None);
    }

    #[test]
    fn a_message_that_was_rolled_back_is_never_seen() {
        let mut script = Script::with_queues(1);
        let number = script.appends_half(message("half"));
        assert_eq!(script.ends(number, Verdict::Rollback), ended(false));
        assert!(script.effects.is_empty());
        let mut script = script.restarted();
        let conflict = Outcome::Rejected(Rejection::TransactionRolledBack);
        assert_eq!(script.ends(number, Verdict::Commit), conflict);
        assert!(queue(&script).is_empty());
    }

    #[test]
    fn the_first_verdict_holds_and_the_same_again_is_harmless() {
        let mut script = Script::with_queues(1);
        let number = script.appends_half(message("half"));
        assert_eq!(script.ends(number, Verdict::Commit), ended(false));
        assert_eq!(script.ends(number, Verdict::Commit), ended(true));
        let conflict = Outcome::Rejected(Rejection::TransactionCommitted);
        assert_eq!(script.ends(number, Verdict::Rollback), conflict);
        let mut script = script.restarted();
        assert_eq!(script.ends(number, Verdict::Commit), ended(true));
        assert_eq!(queue(&script).len(), 1);
    }

    #[test]
    fn after_a_day_an_end_is_forgotten_and_changes_nothing_any_more() {
        const DAY: u64 = 24 * 60 * 60 * 1000;
        let mut script = Script::with_queues(1);
        let number = script.at(5).appends_half(message("half"));
        let unknown = Outcome::Rejected(Rejection::TransactionNotFound);
        assert_eq!(script.ends(number + 1, Verdict::Commit), unknown);
        script.ends(number, Verdict::Commit);
        assert_eq!(script.at(DAY + 4).ends(number, Verdict::Commit), ended(true));
        assert_eq!(script.at(DAY + 5).ends(number, Verdict::Commit), unknown);
        assert_eq!(queue(&script).len(), 1);
    }

    #[test]
    fn a_send_that_is_repeated_after_the_end_names_the_same_transaction() {
        let mut script = Script::with_queues(1);
        let sent = NewMessage { dedupe: Some(1), ..message("half") };
        let number = script.appends_half(sent.clone());
        script.ends(number, Verdict::Commit);
        let outcome = script.does(Command::AppendHalf(half(sent)));
        let expected =
            Outcome::HalfAppended { stamp: script.now(), transaction: number, repeated: true };
        assert_eq!(outcome, expected);
        assert_eq!(script.state.unresolved().pending, 0);
    }
}
