//! Dead letters go back to the queues that they come from.

use proto::{QueueId, QueueOffset, Topic};

use super::{At, State};
use crate::command::{Outcome, Redrive, Rejection};
use crate::kv;
use crate::kv::consume_queue::Entry;
use crate::kv::dead_letter::{Origin, Place};

impl State {
    pub(super) fn redrive(&mut self, at: At, c: &Redrive) -> Result<Outcome, kv::Error> {
        let Some((topic, graves)) = self.topics.find(&c.topic) else {
            return Ok(Outcome::Rejected(Rejection::TopicNotFound));
        };
        let queues = graves.readable();
        let Some(head) = graves.head(c.queue) else {
            return Ok(Outcome::Rejected(Rejection::QueueNotFound { queues }));
        };
        let (min, max) = (head.min, head.max);
        let next = self.redriven.get(&(topic, c.queue)).copied().unwrap_or_default();
        if c.from != next {
            return Ok(Outcome::Rejected(Rejection::StaleRedrive { next }));
        }
        let first = next.max(min);
        let end = QueueOffset(first.0.saturating_add(c.count.into()).min(max.0));
        let mut count = 0;
        for offset in (first.0..end.0).map(QueueOffset) {
            count += u32::from(self.put_back(at, (topic, c.queue, offset))?);
        }
        let end = end.max(next);
        self.redriven.insert((topic, c.queue), end);
        kv::redrive::put(&mut self.change.batch, topic, c.queue, end);
        Ok(Outcome::Redriven { count, next: end })
    }

    /// Whether the message came from a topic that still exists. If its queue takes no messages any
    /// more, another one does.
    fn put_back(&mut self, at: At, place: Place) -> Result<bool, kv::Error> {
        let Some(Origin { topic, queue, .. }) = self.origin(place)? else {
            return Ok(false);
        };
        let Some(queue) = self.topics.find_id(topic).map(|topic| topic.instead_of(queue)) else {
            return Ok(false);
        };
        let found = self.entries_at(place.0, place.1, &[place.2])?[0];
        let (position, len, tag_hash) = (found.position, found.len, found.tag_hash);
        self.retained.add(topic, position, 1, len.into());
        self.enqueue_late(topic, queue, Entry { position, len, tag_hash, visible: at.stamp });
        Ok(true)
    }

    fn origin(&self, place: Place) -> Result<Option<Origin>, kv::Error> {
        match self.change.origins.get(&place) {
            Some(origin) => Ok(Some(*origin)),
            None => kv::dead_letter::get(&*self.kv, place),
        }
    }

    /// How far the dead letters of a queue were put back.
    #[must_use]
    pub fn redriven_to(&self, topic: &Topic, queue: QueueId) -> QueueOffset {
        let id = self.topics.id(topic);
        id.and_then(|id| self.redriven.get(&(id, queue)).copied()).unwrap_or_default()
    }
}
