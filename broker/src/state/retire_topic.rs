//! A topic leaves this broker group once nothing is left of it here.

use proto::QueueId;

use super::{State, TopicState};
use crate::command::{DeleteTopic, Outcome, Rejection, RetireTopic};
use crate::kv::TopicId;

impl State {
    pub(super) fn retire_topic(&mut self, c: RetireTopic) -> Outcome {
        let Some((id, topic)) = self.topics.find(&c.topic) else {
            return Outcome::Rejected(Rejection::TopicNotFound);
        };
        if topic.config().queues > 0 {
            return Outcome::Rejected(Rejection::TopicOpen);
        }
        let messages = self.undrained(id, topic);
        let delayed = self.timers.pending(id);
        let half = self.transactions.of_topic(id).len() as u64;
        if messages + delayed + half > 0 {
            return Outcome::Rejected(Rejection::TopicNotDrained { messages, delayed, half });
        }
        self.delete_topic(DeleteTopic { topic: c.topic })
    }

    /// Messages in the queues that somebody has yet to consume; all of a queue of which that is so.
    fn undrained(&self, id: TopicId, topic: &TopicState) -> u64 {
        let queues = (0..topic.readable()).map(QueueId);
        let left = queues.filter(|queue| !self.is_drained(id, *queue));
        left.filter_map(|queue| topic.head(queue)).map(|head| head.max.0 - head.min.0).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, config, delayed, handle, message, put_topic, topic};
    use super::*;
    use crate::command::{AppendDelayed, Command, Fire};

    fn retire() -> Command {
        Command::RetireTopic(RetireTopic { topic: topic() })
    }

    fn not_drained(messages: u64, delayed: u64) -> Outcome {
        Outcome::Rejected(Rejection::TopicNotDrained { messages, delayed, half: 0 })
    }

    #[test]
    fn a_topic_leaves_when_it_is_closed_and_consumed() {
        let mut script = Script::with_messages(2);
        assert_eq!(script.does(retire()), Outcome::Rejected(Rejection::TopicOpen));
        script.does(put_topic("orders", config(0, 2)));
        assert_eq!(script.does(retire()), not_drained(2, 0));
        let refused = Outcome::Rejected(Rejection::QueueNotFound { queues: 0 });
        assert_eq!(script.appends(0, &[message("late")]), refused);
        let mut script = script.restarted();
        let held = script.pops_range(0..2);
        script.acks(&[handle(&held[0])]);
        assert_eq!(script.does(retire()), not_drained(2, 0), "one is in flight");
        script.acks(&[handle(&held[1])]);
        assert_eq!(script.does(retire()), Outcome::Done);
        assert!(script.state.topic(&topic()).is_none());
        assert_eq!(script.does(retire()), Outcome::Rejected(Rejection::TopicNotFound));
    }

    #[test]
    fn what_was_accepted_before_it_was_closed_still_comes() {
        let mut script = Script::with_queues(3);
        script.does(delayed_append(2, 50));
        script.does(put_topic("orders", config(0, 2)));
        assert_eq!(script.does(retire()), not_drained(0, 1));
        script.at(50).does(Command::Fire(Fire { most: 9 }));
        let mut script = script.restarted();
        assert_eq!(script.does(retire()), not_drained(1, 0), "it is in the first queue");
        let held = script.pops_range(0..1);
        script.acks(&[handle(&held[0])]);
        assert_eq!(script.does(retire()), Outcome::Done);
    }

    fn delayed_append(queue: u32, due: u64) -> Command {
        let messages = vec![delayed(due, message("later"))];
        Command::AppendDelayed(AppendDelayed { topic: topic(), queue: QueueId(queue), messages })
    }
}
