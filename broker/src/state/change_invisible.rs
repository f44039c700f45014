//! A consumer asks for more time, or gives a message back.

use std::time::Duration;

use super::{At, State};
use crate::command::{ChangeInvisible, Effect, Outcome, Rejection};
use crate::kv;
use crate::kv::in_flight::Place;

impl State {
    pub(super) fn change_invisible(&mut self, at: At, c: &ChangeInvisible) -> Outcome {
        let Some(topic) = self.topics.id(&c.topic) else {
            return Outcome::Rejected(Rejection::TopicNotFound);
        };
        let Some(group) = self.groups.id(&c.group) else {
            return Outcome::Rejected(Rejection::GroupNotFound);
        };
        let place = Place { group, topic, queue: c.handle.queue, offset: c.handle.offset };
        let held = self.subscriptions.find(&place).filter(|record| {
            record.delivery.id == c.handle.delivery && at.stamp < record.delivery.due
        });
        let Some(record) = held else {
            return Outcome::Rejected(Rejection::InvalidHandle);
        };
        let due = at.stamp.plus(Duration::from_millis(c.invisible_ms));
        let delivery = self.subscriptions.update(&place, |delivery| {
            delivery.due = due;
            // The consumer has said when; renewing would overrule it.
            delivery.auto_renew = false;
        });
        let client = self.subscriptions.client(record.client);
        kv::in_flight::put(&mut self.change.batch, &place, &delivery, client);
        self.change.effects.push(Effect::Visible {
            group: c.group.clone(),
            topic: c.topic.clone(),
            queue: c.handle.queue,
            at: due,
        });
        Outcome::InvisibleChanged { due }
    }
}

#[cfg(test)]
mod tests {
    use proto::{QueueId, Timestamp};

    use super::super::script::{Script, group, handle, pick, pop, renew, topic};
    use super::*;
    use crate::command::{AckOutcome, Again, Command, Handle, Pick, Pop};

    fn changed(due: u64) -> Outcome {
        Outcome::InvisibleChanged { due: Timestamp(due) }
    }

    const INVALID: Outcome = Outcome::Rejected(Rejection::InvalidHandle);

    #[test]
    fn the_handle_stays_good_until_the_new_end() {
        let mut script = Script::with_messages(1);
        let held = handle(&script.pops_range(0..1)[0]);
        assert_eq!(script.at(59_000).changes_invisible(held, 10_000), changed(69_000));
        assert_eq!(script.at(68_999).changes_invisible(held, 1_000), changed(69_999));
        assert_eq!(script.at(69_998).acks(&[held]), [AckOutcome::Acked]);
        assert_eq!(script.changes_invisible(held, 1_000), INVALID);
    }

    #[test]
    fn zero_gives_the_message_back_at_once() {
        let mut script = Script::with_messages(1);
        let first = script.pops_range(0..1)[0];
        assert_eq!(script.at(5).changes_invisible(handle(&first), 0), changed(5));
        let visible =
            Effect::Visible { group: group(), topic: topic(), queue: QueueId(0), at: Timestamp(5) };
        assert_eq!(script.effects, [visible]);
        assert_eq!(script.due(), [0]);
        assert_eq!(script.changes_invisible(handle(&first), 10), INVALID);
        assert_eq!(script.acks(&[handle(&first)]), [AckOutcome::InvalidHandle]);
        let again = vec![Again { offset: first.offset, delivery: first.delivery }];
        let second = script.pops(pop("other", vec![Pick { again, ..pick(0, 0..0, &[]) }]));
        assert_eq!(second[0].attempt, 2);
    }

    #[test]
    fn a_handle_of_another_delivery_changes_nothing() {
        let mut script = Script::with_messages(1);
        let held = handle(&script.pops_range(0..1)[0]);
        let wrong = Handle { delivery: held.delivery + 1, ..held };
        assert_eq!(script.changes_invisible(wrong, 1), INVALID);
        let never = Handle { queue: QueueId(9), ..held };
        assert_eq!(script.changes_invisible(never, 1), INVALID);
        assert_eq!(script.at(60_000).changes_invisible(held, 1), INVALID);
    }

    #[test]
    fn it_ends_automatic_renewal() {
        let mut script = Script::with_messages(1);
        let auto = Pop { auto_renew: true, ..pop("worker", vec![pick(0, 0..1, &[0])]) };
        let held = handle(&script.pops(auto)[0]);
        script.changes_invisible(held, 5_000);
        let script = &mut script.restarted();
        assert_eq!(script.does(renew("worker", 0, 60_000)), Outcome::Renewed { count: 0 });
        assert_eq!(script.releases("worker", 0), Outcome::Released { count: 0 });
        script.at(5_000);
        assert_eq!(script.due(), [0]);
    }

    #[test]
    fn a_group_or_topic_that_is_not_there_is_rejected() {
        let mut script = Script::with_messages(1);
        let held = handle(&script.pops_range(0..1)[0]);
        let change = ChangeInvisible {
            group: "nobody".parse().unwrap(),
            topic: topic(),
            handle: held,
            invisible_ms: 1,
        };
        let outcome = script.does(Command::ChangeInvisible(change.clone()));
        assert_eq!(outcome, Outcome::Rejected(Rejection::GroupNotFound));
        let change = ChangeInvisible { topic: "bills".parse().unwrap(), ..change };
        let outcome = script.does(Command::ChangeInvisible(change));
        assert_eq!(outcome, Outcome::Rejected(Rejection::TopicNotFound));
    }
}
