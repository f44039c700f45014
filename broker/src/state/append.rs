//! Messages enter their queue.

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp, v2};

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
        let (topic, head) = match self.writable(c) {
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
        if messages.iter().any(|placed| !placed.repeated) {
            self.change.grown.entry((topic, c.queue)).or_insert(head);
            let effect = Effect::Appended { topic: c.topic.clone(), queue: c.queue };
            self.change.effects.push(effect);
        }
        Outcome::Appended { stamp: at.stamp, messages }
    }

    /// The topic to append to, and where the queue ends now.
    fn writable(&self, c: &Append) -> Result<(TopicId, QueueOffset), Rejection> {
        let (id, topic) = self.topics.find(&c.topic).ok_or(Rejection::TopicNotFound)?;
        match topic.config().permission {
            v2::Permission::Write | v2::Permission::ReadWrite => {}
            v2::Permission::Unspecified | v2::Permission::None | v2::Permission::Read => {
                return Err(Rejection::TopicNotWritable);
            }
        }
        let queues = topic.config().queues;
        let head = topic.head(c.queue).ok_or(Rejection::QueueNotFound { queues })?;
        Ok((id, head.max))
    }

    /// Appends a message, unless an earlier attempt of the same send did.
    fn append_once(
        &mut self,
        stamp: Timestamp,
        topic: TopicId,
        queue: QueueId,
        message: &NewMessage,
        position: LogOffset,
    ) -> Placed {
        let earlier = message.dedupe.and_then(|id| self.dedupe.find(id, topic, stamp));
        if let Some((queue, offset)) = earlier {
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
    fn enqueue(&mut self, topic: TopicId, queue: QueueId, entry: Entry) -> QueueOffset {
        let head = self.topics.get_mut(topic).head_mut(queue).expect("the queue was checked");
        let offset = head.max;
        head.max = offset.next();
        let fold = Fold(head.digest).word(entry.position.0).word(entry.len.into());
        head.digest = fold.word(entry.tag_hash).word(entry.visible.0).0;
        self.tails.push(topic, queue, entry);
        offset
    }
}
