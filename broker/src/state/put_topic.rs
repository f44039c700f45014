//! Creating and changing topics.

use super::{State, limits};
use crate::command::{Effect, Outcome, PutTopic, Rejection};
use crate::kv;

impl State {
    pub(super) fn put_topic(&mut self, c: PutTopic) -> Outcome {
        let Some((id, known)) = self.topics.find(&c.topic) else {
            return self.create_topic(c);
        };
        let current = known.config();
        let unchanged = Outcome::TopicPut { created: false, version: current.version };
        if c.create_only || *current == c.config {
            return unchanged;
        }
        if c.config.version <= current.version {
            return Outcome::Rejected(Rejection::StaleVersion { current: current.version });
        }
        let Some(more) = c.config.queues.checked_sub(current.queues) else {
            return Outcome::Rejected(Rejection::QueuesShrink { current: current.queues });
        };
        if more > limits::QUEUES - self.topics.queues() {
            return Outcome::Rejected(Rejection::TooManyQueues { max: limits::QUEUES });
        }
        let version = c.config.version;
        kv::topic::put(&mut self.change.batch, id, &c.topic, &c.config);
        self.topics.replace(id, c.config);
        self.topics_version += 1;
        self.change.effects.push(Effect::TopicChanged { topic: c.topic });
        Outcome::TopicPut { created: false, version }
    }

    fn create_topic(&mut self, c: PutTopic) -> Outcome {
        if self.topics.len() >= limits::TOPICS as usize {
            return Outcome::Rejected(Rejection::TooManyTopics { max: limits::TOPICS });
        }
        if c.config.queues > limits::QUEUES - self.topics.queues() {
            return Outcome::Rejected(Rejection::TooManyQueues { max: limits::QUEUES });
        }
        let version = c.config.version;
        let id = self.topics.add(c.topic.clone(), c.config);
        let config = self.topics.get(id).config();
        kv::topic::put(&mut self.change.batch, id, &c.topic, config);
        self.topics_version += 1;
        self.change.effects.push(Effect::TopicChanged { topic: c.topic });
        Outcome::TopicPut { created: true, version }
    }
}
