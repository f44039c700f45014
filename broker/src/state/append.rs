//! Messages enter their queue.

use commitlog::Bug;
use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp, Topic, v2};

use super::append_delayed::DELAYED;
use super::append_half::HALF;
use super::digest::Fold;
use super::{At, State};
use crate::command::{Append, Effect, NewMessage, Outcome, Placed, Rejection};
use crate::kv::TopicId;
use crate::kv::consume_queue::Entry;
use crate::kv::dedupe::Seen;
use crate::kv::key_log::Keyed;

impl State {
    /// `end` is where the command ends in the log: its messages are its last bytes.
    pub(super) fn append(&mut self, at: At, c: &Append, end: LogOffset) -> Outcome {
        let (topic, head) = match self.writable(&c.topic, c.queue) {
            Ok(found) => found,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        let bytes: u64 = c.messages.iter().map(|m| m.bytes.len() as u64).sum();
        let mut position = LogOffset(end.0 - bytes);
        let mut messages = Vec::with_capacity(c.messages.len());
        for message in &c.messages {
            messages.push(self.append_once(at.stamp, topic, c.queue, message, position));
            position = position + message.bytes.len() as u64;
        }
        let fresh = c.messages.iter().zip(&messages).filter(|(_, placed)| !placed.repeated);
        let (count, kept) =
            fresh.fold((0, 0), |(count, kept), (m, _)| (count + 1, kept + m.bytes.len() as u64));
        if count > 0 {
            // One frame holds them all, and so does one segment.
            self.retained.add(topic, LogOffset(end.0 - bytes), count, kept);
            self.change.grown.entry((topic, c.queue)).or_insert(head);
            let effect = Effect::Appended { topic: c.topic.clone(), queue: c.queue };
            self.change.effects.push(effect);
        }
        Outcome::Appended { stamp: at.stamp, messages }
    }

    /// The topic to append to, and where the queue ends now.
    pub(super) fn writable(
        &self,
        topic: &Topic,
        queue: QueueId,
    ) -> Result<(TopicId, QueueOffset), Rejection> {
        let (id, topic) = self.topics.find(topic).ok_or(Rejection::TopicNotFound)?;
        match topic.config().permission {
            v2::Permission::Write | v2::Permission::ReadWrite => {}
            v2::Permission::Unspecified | v2::Permission::None | v2::Permission::Read => {
                return Err(Rejection::TopicNotWritable);
            }
        }
        let queues = topic.config().queues;
        let taken = queue.0 < queues;
        let head = topic.head(queue).filter(|_| taken);
        let head = head.ok_or(Rejection::QueueNotFound { queues })?;
        Ok((id, head.max))
    }

    /// Appends a message, unless an earlier attempt of the same send did.
    pub(super) fn append_once(
        &mut self,
        stamp: Timestamp,
        topic: TopicId,
        queue: QueueId,
        message: &NewMessage,
        position: LogOffset,
    ) -> Placed {
        let earlier = message.dedupe.and_then(|id| self.dedupe.find(id, topic, stamp));
        if let Some((queue, offset)) = earlier.filter(|(queue, _)| ![HALF, DELAYED].contains(queue))
        {
            let end = self.topics.get(topic).head(queue).map(|head| head.max);
            let offset = end.filter(|_| Bug::B30.is_sown()).unwrap_or(offset);
            return Placed { queue, offset, repeated: true };
        }
        let len = u32::try_from(message.bytes.len()).expect("a message is below 4 GiB");
        let entry = Entry { position, len, tag_hash: message.tag_hash, visible: stamp };
        let offset = self.enqueue(topic, queue, entry);
        for hash in &message.key_hashes {
            self.keys.add(Keyed { topic, hash: *hash, queue, offset });
        }
        if let Some(id) = message.dedupe {
            self.dedupe.remember(Seen { id, topic, queue, offset }, stamp);
        }
        Placed { queue, offset, repeated: false }
    }

    /// Adds an entry at the end of a queue.
    pub(super) fn enqueue(&mut self, topic: TopicId, queue: QueueId, entry: Entry) -> QueueOffset {
        let head = self.topics.get_mut(topic).head_mut(queue).expect("the queue was checked");
        let offset = head.max;
        head.max = offset.next();
        let fold = Fold(head.digest).word(entry.position.0).word(entry.len.into());
        head.digest = fold.word(entry.tag_hash).word(entry.visible.0).0;
        self.tails.push(topic, queue, entry);
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, config, message, put_topic, topic};
    use super::*;
    use crate::command::TopicConfig;

    fn placed(offset: u64) -> Placed {
        Placed { queue: QueueId(0), offset: QueueOffset(offset), repeated: false }
    }

    fn sent(id: u128, body: &'static str) -> NewMessage {
        NewMessage { dedupe: Some(id), ..message(body) }
    }

    fn placed_by(outcome: Outcome) -> Vec<(u32, u64, bool)> {
        match outcome {
            Outcome::Appended { messages, .. } => {
                messages.iter().map(|m| (m.queue.0, m.offset.0, m.repeated)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn offsets_are_dense_and_entries_say_where_the_bytes_are() {
        let mut script = Script::with_queues(2);
        let tagged = NewMessage { tag_hash: 77, ..message("second") };
        let outcome = script.at(50).appends(0, &[message("first"), tagged]);
        let messages = vec![placed(0), placed(1)];
        assert_eq!(outcome, Outcome::Appended { stamp: Timestamp(50), messages });
        let effect = Effect::Appended { topic: topic(), queue: QueueId(0) };
        assert_eq!(script.effects, [effect]);
        script.at(60).appends(0, &[message("third")]);

        // The command is the second entry: it starts at 1000 and ends with its messages.
        let header = 1 + (2 + 6) + 4 + 2 + 2 * 14;
        let entries = script.state.scan(&topic(), QueueId(0), QueueOffset(0), 9).unwrap();
        let facts = entries.iter().map(|e| (e.position.0, e.len, e.tag_hash, e.visible.0));
        let third = 2000 + header - 14;
        let expected =
            [(1000 + header, 5, 0, 50), (1000 + header + 5, 6, 77, 50), (third, 5, 0, 60)];
        assert_eq!(facts.collect::<Vec<_>>(), expected);
        assert_eq!(
            script.restarted().state.scan(&topic(), QueueId(0), QueueOffset(0), 9).unwrap(),
            entries
        );
    }

    #[test]
    fn what_cannot_be_appended_is_rejected() {
        let mut script = Script::new();
        let rejected = Outcome::Rejected;
        assert_eq!(script.appends(0, &[message("x")]), rejected(Rejection::TopicNotFound));
        let read_only = TopicConfig { permission: v2::Permission::Read, ..config(2, 1) };
        script.does(put_topic("orders", read_only));
        assert_eq!(script.appends(0, &[message("x")]), rejected(Rejection::TopicNotWritable));
        script.does(put_topic("orders", config(2, 2)));
        let no_queue = Rejection::QueueNotFound { queues: 2 };
        assert_eq!(script.appends(2, &[message("x")]), rejected(no_queue));
        assert_eq!(placed_by(script.appends(1, &[message("x")])), [(1, 0, false)]);
    }

    #[test]
    fn a_repeated_send_gets_the_first_answer_and_appends_nothing() {
        let mut script = Script::with_queues(2);
        assert_eq!(
            placed_by(script.appends(0, &[sent(1, "a"), sent(2, "b")])),
            [(0, 0, false), (0, 1, false)]
        );
        // The retry may ask for another queue, and may be grouped in another way.
        assert_eq!(placed_by(script.appends(1, &[sent(2, "b")])), [(0, 1, true)]);
        assert!(script.effects.is_empty());
        let again = script.appends(1, &[sent(1, "a"), sent(3, "c"), sent(3, "c")]);
        assert_eq!(placed_by(again), [(0, 0, true), (1, 0, false), (1, 0, true)]);

        let mut script = script.restarted();
        assert_eq!(placed_by(script.appends(0, &[sent(3, "c")])), [(1, 0, true)]);
        let ends =
            [0, 1].map(|q| script.state.topic(&topic()).unwrap().offsets(QueueId(q)).unwrap().end);
        assert_eq!(ends, [QueueOffset(2), QueueOffset(1)]);
    }

    #[test]
    fn a_send_is_new_again_after_the_window() {
        let mut script = Script::with_queues(1);
        script.at(1000).appends(0, &[sent(1, "a")]);
        assert_eq!(placed_by(script.at(600_999).appends(0, &[sent(1, "a")])), [(0, 0, true)]);
        assert_eq!(placed_by(script.at(601_000).appends(0, &[sent(1, "a")])), [(0, 1, false)]);
        assert_eq!(placed_by(script.at(601_001).appends(0, &[sent(1, "a")])), [(0, 1, true)]);
    }

    #[test]
    fn messages_are_found_by_key_and_by_time() {
        let mut script = Script::with_queues(1);
        for n in 0..300_u64 {
            let keyed = NewMessage { key_hashes: vec![n % 7, 1000 + n], ..message("m") };
            script.at(n / 3 * 10).appends(0, &[keyed]);
            if n % 100 == 50 {
                script = script.restarted();
            }
        }
        let state = &script.state;
        let found = state.find_by_key(&topic(), 1123, 10).unwrap();
        assert_eq!(found, [(QueueId(0), QueueOffset(123))]);
        assert_eq!(state.find_by_key(&topic(), 3, 1000).unwrap().len(), 43);
        assert_eq!(state.find_by_key(&topic(), 3, 5).unwrap().len(), 5);
        let offset_at = |time| state.offset_at(&topic(), QueueId(0), Timestamp(time)).unwrap();
        let expected = [(0, 0), (1, 3), (10, 3), (11, 6), (990, 297), (991, 300)];
        for (time, offset) in expected {
            assert_eq!(offset_at(time), Some(QueueOffset(offset)), "{time}");
        }
        assert_eq!(state.offset_at(&topic(), QueueId(1), Timestamp(0)).unwrap(), None);
    }
}
