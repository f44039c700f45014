//! Creating and changing topics.

use proto::Topic;

use super::{State, limits};
use crate::command::{Effect, Outcome, PutTopic, Rejection, TopicConfig};
use crate::kv::next_ids::NextIds;
use crate::kv::{self, TopicId};

impl State {
    pub(super) fn put_topic(&mut self, c: PutTopic) -> Result<Outcome, kv::Error> {
        let Some((id, known)) = self.topics.find(&c.topic) else {
            return Ok(self.create_topic(c));
        };
        let current = known.config();
        let unchanged = Outcome::TopicPut { created: false, version: current.version };
        if c.create_only || *current == c.config {
            return Ok(unchanged);
        }
        if c.config.version <= current.version {
            let current = current.version;
            return Ok(Outcome::Rejected(Rejection::StaleVersion { current }));
        }
        let had = u32::try_from(known.heads().len()).expect("queues are bounded");
        if c.config.queues.saturating_sub(had) > limits::QUEUES - self.topics.queues() {
            return Ok(Outcome::Rejected(Rejection::TooManyQueues { max: limits::QUEUES }));
        }
        let version = c.config.version;
        kv::topic::put(&mut self.change.batch, id, &c.topic, &c.config);
        self.topics.replace(id, c.config);
        self.close_drained(id)?;
        self.topics_version += 1;
        self.change.effects.push(Effect::TopicChanged { topic: c.topic });
        Ok(Outcome::TopicPut { created: false, version })
    }

    fn create_topic(&mut self, c: PutTopic) -> Outcome {
        if self.topics.len() >= limits::TOPICS as usize {
            return Outcome::Rejected(Rejection::TooManyTopics { max: limits::TOPICS });
        }
        if c.config.queues > limits::QUEUES - self.topics.queues() {
            return Outcome::Rejected(Rejection::TooManyQueues { max: limits::QUEUES });
        }
        let version = c.config.version;
        self.add_topic(c.topic, c.config);
        Outcome::TopicPut { created: true, version }
    }

    /// A topic that is new, and that there is room for.
    pub(super) fn add_topic(&mut self, name: Topic, config: TopicConfig) -> TopicId {
        let id = self.topics.add(name.clone(), config, self.change.command);
        let topic = self.topics.get(id);
        kv::topic::put(&mut self.change.batch, id, &name, topic.config());
        kv::topic_standing::put(&mut self.change.batch, id, topic.standing());
        self.write_next_ids();
        self.topics_version += 1;
        self.change.effects.push(Effect::TopicChanged { topic: name });
        id
    }

    pub(super) fn write_next_ids(&mut self) {
        let next = NextIds { topic: self.topics.next_id(), group: self.groups.next_id() };
        kv::next_ids::put(&mut self.change.batch, next);
    }
}

#[cfg(test)]
mod tests {
    use proto::{QueueId, QueueOffset};

    use super::super::script::{Script, config, message, put_topic, topic};
    use super::*;
    use crate::command::Command;

    fn put(queues: u32, version: u64) -> Command {
        put_topic("orders", config(queues, version))
    }

    fn stale(current: u64) -> Outcome {
        Outcome::Rejected(Rejection::StaleVersion { current })
    }

    #[test]
    fn a_topic_is_created_changed_and_never_goes_back() {
        let mut script = Script::new();
        let done = |created, version| Outcome::TopicPut { created, version };
        let steps = [
            (put(4, 7), done(true, 7), 1),
            (put(4, 7), done(false, 7), 1),
            (put(8, 7), stale(7), 1),
            (put(8, 6), stale(7), 1),
            (put(8, 9), done(false, 9), 2),
            (put(7, 10), done(false, 10), 3),
            (put(7, 10), done(false, 10), 3),
        ];
        for (number, (command, expected, version)) in steps.into_iter().enumerate() {
            let before = script.state.topics_version();
            assert_eq!(script.does(command), expected, "step {number}");
            assert_eq!(script.state.topics_version(), version, "step {number}");
            assert_eq!(script.effects.is_empty(), before == version, "step {number}");
        }
        assert_eq!(*script.state.topic(&topic()).unwrap().config(), config(7, 10));
    }

    #[test]
    fn creating_on_use_leaves_an_existing_topic_alone() {
        let mut script = Script::with_queues(4);
        let create =
            |config| Command::PutTopic(PutTopic { topic: topic(), config, create_only: true });
        let outcome = script.does(create(config(16, 99)));
        assert_eq!(outcome, Outcome::TopicPut { created: false, version: 1 });
        assert_eq!(script.state.topic(&topic()).unwrap().config().queues, 4);
    }

    #[test]
    fn new_queues_are_empty_and_old_ones_keep_their_messages() {
        let mut script = Script::with_messages(3);
        script.does(put(3, 2));
        script.appends(2, &[message("new")]);
        let script = script.restarted();
        let ends = (0..4).map(|q| script.state.topic(&topic()).unwrap().offsets(QueueId(q)));
        let expected = [Some(3), Some(0), Some(1), None]
            .map(|end| end.map(|end| QueueOffset(0)..QueueOffset(end)));
        assert_eq!(ends.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn queues_are_bounded_over_all_topics() {
        let mut script = Script::new();
        script.does(put_topic("large", config(limits::QUEUES - 2, 1)));
        let refused = Outcome::Rejected(Rejection::TooManyQueues { max: limits::QUEUES });
        assert_eq!(script.does(put(3, 1)), refused);
        assert_eq!(script.does(put(2, 1)), Outcome::TopicPut { created: true, version: 1 });
        assert_eq!(script.does(put(3, 2)), refused);
        assert_eq!(script.state.topic(&topic()).unwrap().config().queues, 2);
    }

    #[test]
    fn settings_survive_a_restart() {
        let mut script = Script::new();
        let custom = TopicConfig {
            permission: proto::v2::Permission::Read,
            accepts: vec![proto::v2::MessageType::Fifo, proto::v2::MessageType::Delay],
            ..config(5, 3)
        };
        script.does(put_topic("orders", custom.clone()));
        script.does(put_topic("bills", config(2, 2)));
        let digest = script.state.digest();
        let script = script.restarted();
        assert_eq!(*script.state.topic(&topic()).unwrap().config(), custom);
        let names: Vec<_> = script.state.topics().map(|t| t.name().to_string()).collect();
        assert_eq!(names, ["orders", "bills"]);
        assert_eq!(script.state.topics_version(), 2);
        assert_eq!(script.state.digest(), digest);
    }
}
