//! A topic goes, with everything that refers to it.

use super::State;
use crate::command::{DeleteTopic, Effect, Limited, Outcome, Rejection, SettingKind};
use crate::kv;

impl State {
    pub(super) fn delete_topic(&mut self, c: DeleteTopic) -> Outcome {
        let Some(id) = self.topics.id(&c.topic) else {
            return Outcome::Rejected(Rejection::TopicNotFound);
        };
        for group in self.subscriptions.groups_of(id) {
            self.subscriptions.end(group, id);
            kv::forget::subscription(&mut self.change.batch, group, id);
        }
        // What was not committed is not known any more, and nobody is asked about it.
        for number in self.transactions.of_topic(id) {
            self.transactions.take(number);
            kv::half::delete(&mut self.change.batch, number);
        }
        self.forget_quota(&Limited::Topic(c.topic.clone()));
        self.retained.forget(id);
        self.forget_setting(SettingKind::Retention, c.topic.to_string());
        self.change.grown.retain(|(topic, _), _| *topic != id);
        self.change.moved.retain(|(topic, ..), _| *topic != id);
        self.change.origins.retain(|(graves, ..), _| *graves != id);
        self.redriven.retain(|(graves, _), _| *graves != id);
        self.topics.remove(id);
        kv::forget::topic(&mut self.change.batch, id);
        self.topics_version += 1;
        self.change.effects.push(Effect::TopicChanged { topic: c.topic });
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use proto::{QueueId, QueueOffset};

    use super::super::script::{
        Script, ack, config, group, handle, message, pick, pop, put_topic, topic,
    };
    use super::*;
    use crate::command::{AckOutcome, Command, NewMessage, PutQuota, Quota, TopicConfig};

    fn delete() -> Command {
        Command::DeleteTopic(DeleteTopic { topic: topic() })
    }

    #[test]
    fn a_topic_goes_with_all_that_refers_to_it() {
        let mut script = Script::new();
        let empty = script.state.digest();
        script.does(put_topic("orders", config(2, 1)));
        let keyed = NewMessage { key_hashes: vec![7], dedupe: Some(1), ..message("m") };
        script.appends(0, &[keyed, message("n")]);
        script.pops_range(0..2);
        assert_eq!(script.does(delete()), Outcome::Done);
        assert_eq!(script.effects, [Effect::TopicChanged { topic: topic() }]);
        let mut script = script.restarted();
        let state = &script.state;
        assert!(state.topic(&topic()).is_none());
        assert_eq!(state.topics().count(), 0);
        assert_eq!(state.all_progress(&group()).count(), 0);
        assert!(state.find_by_key(&topic(), 7, 9).unwrap().is_empty());
        assert_eq!(state.earliest_due(), None);
        assert_ne!(state.digest(), empty);
        let rejected = Outcome::Rejected(Rejection::TopicNotFound);
        assert_eq!(script.does(delete()), rejected);
        assert_eq!(script.does(ack(&[])), rejected);
    }

    #[test]
    fn a_topic_of_the_same_name_is_another_one() {
        let mut script = Script::with_messages(3);
        let old: Vec<_> = script.pops_range(0..3).iter().map(handle).collect();
        script.acks(&old[..1]);
        script.does(delete());
        script.does(put_topic("orders", config(1, 1)));
        assert_eq!(script.progress(), (0, 0, 0));
        let repeated = NewMessage { dedupe: Some(5), ..message("new") };
        script.appends(0, &vec![repeated; 1]);
        script.appends(0, &[message("new"), message("new")]);
        let new = script.pops_range(0..3);
        assert_eq!(script.acks(&old), [AckOutcome::InvalidHandle; 3]);
        let new: Vec<_> = new.iter().map(handle).collect();
        assert_eq!(script.acks(&new), [AckOutcome::Acked; 3]);
        assert_eq!(script.acks(&old), [AckOutcome::InvalidHandle; 3], "consumed, but not theirs");
        let mut script = script.restarted();
        assert_eq!(script.acks(&old), [AckOutcome::InvalidHandle; 3]);
        assert_eq!(script.acks(&new), [AckOutcome::Acked; 3]);
    }

    #[test]
    fn sends_to_the_old_topic_are_not_remembered_for_the_new_one() {
        let mut script = Script::with_queues(1);
        let sent = NewMessage { dedupe: Some(5), ..message("m") };
        script.appends(0, std::slice::from_ref(&sent));
        script.does(delete());
        script.does(put_topic("orders", config(1, 1)));
        script.appends(0, &[sent]);
        let offsets = script.state.topic(&topic()).unwrap().offsets(QueueId(0)).unwrap();
        assert_eq!(offsets.end, QueueOffset(1));
    }

    #[test]
    fn deleting_gives_its_queues_back() {
        use crate::state::limits;
        let mut script = Script::new();
        for version in 1..4 {
            let all = TopicConfig { queues: limits::QUEUES, ..config(1, version) };
            let outcome = script.does(put_topic("orders", all));
            assert_eq!(outcome, Outcome::TopicPut { created: true, version });
            script.does(delete());
        }
    }

    #[test]
    fn an_append_and_a_deletion_in_one_go_leave_nothing() {
        let mut script = Script::with_queues(1);
        let append = super::super::script::append(0, &[message("m")]);
        script.does_all(vec![append.clone(), delete(), put_topic("orders", config(1, 1)), append]);
        let script = script.restarted();
        let entries = script.state.scan(&topic(), QueueId(0), QueueOffset(0), 9).unwrap();
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn other_topics_keep_what_they_have() {
        let mut script = Script::with_messages(2);
        script.does(put_topic("bills", config(1, 1)));
        let of = Limited::Topic("bills".parse().unwrap());
        let quota = Quota { messages_per_second: 1, bytes_per_second: 0 };
        script.does(Command::PutQuota(PutQuota { of: of.clone(), quota }));
        script.pops(pop("worker", vec![pick(0, 0..2, &[1])]));
        let other = Command::DeleteTopic(DeleteTopic { topic: "bills".parse().unwrap() });
        assert_eq!(script.does(other), Outcome::Done);
        assert_eq!(script.state.quota(&of), Quota::default());
        assert_eq!(script.restarted().progress(), (2, 1, 1));
    }
}
