//! Queues that a topic is to lose go when nobody needs them any more.

use proto::{QueueId, Topic};

use super::{State, TopicState};
use crate::command::{CloseQueues, Effect, Outcome, Rejection};
use crate::kv::{self, TopicId};

impl State {
    pub(super) fn close_queues(&mut self, c: CloseQueues) -> Result<Outcome, kv::Error> {
        let Some(id) = self.topics.id(&c.topic) else {
            return Ok(Outcome::Rejected(Rejection::TopicNotFound));
        };
        if self.close_drained(id)? {
            self.topics_version += 1;
            self.change.effects.push(Effect::TopicChanged { topic: c.topic });
        }
        Ok(Outcome::Done)
    }

    /// Makes queues beyond the topic's number unreadable, from the last one on as far as they are
    /// drained. Whether there was one.
    pub(super) fn close_drained(&mut self, id: TopicId) -> Result<bool, kv::Error> {
        let before = self.topics.get(id).readable();
        while let Some(last) = surplus(self.topics.get(id))
            && self.is_drained(id, last)
        {
            let kept = *self.topics.get(id).head(last).expect("it is readable");
            self.release_entries(id, last, kept.min, kept.max)?;
            let (queue, head) = self.topics.close_last(id);
            kv::queue_head::put(&mut self.change.batch, id, queue, &head);
            kv::forget::entries(&mut self.change.batch, id, queue, head.max);
            self.forget_origins(id, queue, head.max);
        }
        let topic = self.topics.get(id);
        kv::topic_standing::put(&mut self.change.batch, id, topic.standing());
        Ok(topic.readable() < before)
    }

    /// Topics whose last queue can be closed.
    pub fn closable(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().filter_map(|topic| {
            let last = surplus(topic)?;
            let id = self.topics.id(topic.name())?;
            self.is_drained(id, last).then_some(topic.name())
        })
    }

    /// Whether any topic has queues that it is to lose.
    #[must_use]
    pub fn is_shrinking(&self) -> bool {
        self.topics.iter().any(|topic| surplus(topic).is_some())
    }

    /// Whether the queue is empty, or was consumed by every group that consumes the topic. While
    /// no group does, messages wait for one.
    pub(super) fn is_drained(&self, id: TopicId, queue: QueueId) -> bool {
        let head = self.topics.get(id).head(queue).expect("it is readable");
        let groups = self.subscriptions.groups_of(id);
        let consumed = groups.iter().all(|group| {
            let subscription = self.subscriptions.get(*group, id).expect("it was listed");
            let progress = subscription.of(queue);
            head.max <= progress.next && progress.in_flight == 0
        });
        head.min == head.max || (consumed && !groups.is_empty())
    }
}

/// The last readable queue, if the topic is to lose it.
fn surplus(topic: &TopicState) -> Option<QueueId> {
    (topic.readable() > topic.config().queues.max(1)).then(|| QueueId(topic.readable() - 1))
}

#[cfg(test)]
mod tests {
    use super::super::script::{
        Script, append, config, handle, message, pick, pop, put_topic, topic,
    };
    use super::*;
    use crate::command::Command;

    fn put(queues: u32, version: u64) -> Command {
        put_topic("orders", config(queues, version))
    }

    fn close() -> Command {
        Command::CloseQueues(CloseQueues { topic: topic() })
    }

    fn readable(script: &Script) -> u32 {
        script.state.topic(&topic()).unwrap().readable()
    }

    #[test]
    fn a_queue_that_is_to_go_takes_nothing_and_is_read_until_it_is_drained() {
        let mut script = Script::with_queues(3);
        (0..3).for_each(|queue| drop(script.appends(queue, &[message("m")])));
        assert_eq!(script.does(put(1, 2)), Outcome::TopicPut { created: false, version: 2 });
        let refused = Outcome::Rejected(Rejection::QueueNotFound { queues: 1 });
        assert_eq!(script.appends(1, &[message("late")]), refused);
        script.does(close());
        assert_eq!(readable(&script), 3, "nobody has consumed it");

        let picks = vec![pick(1, 0..1, &[0]), pick(2, 0..1, &[0])];
        let granted = script.pops(pop("worker", picks));
        script.does(close());
        assert_eq!(readable(&script), 3, "it is in flight");
        script.acks(&[handle(&granted[1])]);
        assert_eq!(script.state.closable().collect::<Vec<_>>(), [&topic()]);
        script.does(close());
        assert_eq!(readable(&script), 2, "the other one is in flight");
        let mut script = script.restarted();
        assert_eq!(readable(&script), 2);
        assert!(script.state.is_shrinking() && script.state.closable().next().is_none());
        script.acks(&[handle(&granted[0])]);
        script.does(close());
        assert_eq!(readable(&script), 1);
        assert!(!script.state.is_shrinking());
        assert_eq!(script.state.topic(&topic()).unwrap().offsets(QueueId(1)), None);
    }

    #[test]
    fn empty_queues_go_at_once() {
        let mut script = Script::with_queues(8);
        script.does(put(2, 2));
        assert_eq!(readable(&script), 2);
        assert_eq!(readable(&script.restarted()), 2);
    }

    #[test]
    fn a_queue_that_comes_back_goes_on_where_it_ended() {
        let mut script = Script::with_queues(2);
        script.appends(1, &[message("a"), message("b")]);
        let granted = script.pops(pop("worker", vec![pick(1, 0..2, &[0, 1])]));
        script.acks(&[handle(&granted[0]), handle(&granted[1])]);
        script.does(put(1, 2));
        assert_eq!(readable(&script), 1);
        let mut script = script.restarted();
        script.does(put(2, 3));
        script.does(append(1, &[message("c")]));
        let offsets = script.state.topic(&topic()).unwrap().offsets(QueueId(1)).unwrap();
        assert_eq!(offsets.start.0..offsets.end.0, 2..3);
        assert_eq!(script.pops(pop("worker", vec![pick(1, 2..3, &[2])])).len(), 1);
    }
}
