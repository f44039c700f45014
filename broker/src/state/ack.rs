//! Deliveries end well: the message is consumed.

use proto::QueueId;

use super::{At, State};
use crate::command::{Ack, AckOutcome, Effect, Handle, Outcome, Rejection};
use crate::kv::in_flight::Place;
use crate::kv::{self, ConsumerGroupId, TopicId};

impl State {
    pub(super) fn ack(&mut self, at: At, c: &Ack) -> Outcome {
        let Some(topic) = self.topics.id(&c.topic) else {
            return Outcome::Rejected(Rejection::TopicNotFound);
        };
        let Some(group) = self.groups.id(&c.group) else {
            return Outcome::Rejected(Rejection::GroupNotFound);
        };
        let mut outcomes = Vec::with_capacity(c.handles.len());
        for handle in &c.handles {
            let was_full = self.subscriptions.room(group, topic, handle.queue) == 0;
            let place = Place { group, topic, queue: handle.queue, offset: handle.offset };
            let order = self.subscriptions.find(&place).and_then(|r| r.delivery.order);
            let outcome = self.ack_one(at, group, topic, handle);
            outcomes.push(outcome);
            if outcome != AckOutcome::Acked {
                continue;
            }
            // There is room again: pops that found none go on.
            let room = was_full.then_some(at.stamp);
            if let Some(visible) = room.or_else(|| self.block_moved(at.stamp, &place, order)) {
                self.change.effects.push(Effect::Visible {
                    group: c.group.clone(),
                    topic: c.topic.clone(),
                    queue: handle.queue,
                    at: visible,
                });
            }
        }
        Outcome::Acked(outcomes)
    }

    fn ack_one(
        &mut self,
        at: At,
        group: ConsumerGroupId,
        topic: TopicId,
        handle: &Handle,
    ) -> AckOutcome {
        let place = Place { group, topic, queue: handle.queue, offset: handle.offset };
        match self.subscriptions.find(&place) {
            Some(record) => {
                let delivery = record.delivery;
                if delivery.id != handle.delivery || delivery.due <= at.stamp {
                    return AckOutcome::InvalidHandle;
                }
                self.subscriptions.remove(&place);
                kv::in_flight::delete(&mut self.change.batch, &place);
                AckOutcome::Acked
            }
            // A delivery from before a reset is none any more, and one by another topic or to
            // another group of the name never was.
            None if handle.delivery < self.oldest_delivery(group, topic, handle.queue) => {
                AckOutcome::InvalidHandle
            }
            // Whoever acknowledged it held a delivery of it: a repeated ack finds it done.
            None if handle.offset < self.subscriptions.next(group, topic, handle.queue) => {
                AckOutcome::Acked
            }
            None => AckOutcome::InvalidHandle,
        }
    }
}

impl State {
    /// Deliveries named below this are not of this group on this topic, or from before a reset.
    pub(super) fn oldest_delivery(
        &self,
        group: ConsumerGroupId,
        topic: TopicId,
        queue: QueueId,
    ) -> u64 {
        let reset = self.subscriptions.reset_id(group, topic, queue);
        reset.max(self.topics.get(topic).born()).max(self.groups.standing(group).born)
    }
}

#[cfg(test)]
mod tests {
    use proto::QueueOffset;

    use super::super::script::{Script, ack, group, handle, message, topic};
    use super::AckOutcome::{Acked, InvalidHandle};
    use super::*;
    use crate::command::{Command, Pick};

    #[test]
    fn acks_come_in_any_order_and_can_be_repeated() {
        let mut script = Script::with_messages(4);
        let handles: Vec<_> = script.pops_range(0..4).iter().map(handle).collect();
        let steps =
            [(2, (4, 0, 3)), (0, (4, 1, 2)), (0, (4, 1, 2)), (1, (4, 3, 1)), (3, (4, 4, 0))];
        for (which, progress) in steps {
            assert_eq!(script.acks(&[handles[which]]), [Acked]);
            assert_eq!(script.progress(), progress);
        }
        let all = script.restarted().acks(&handles);
        assert_eq!(all, [Acked; 4]);
    }

    #[test]
    fn a_handle_is_invalid_once_its_delivery_has_ended() {
        let mut script = Script::with_messages(2);
        let first = script.pops_range(0..2);
        assert_eq!(script.at(59_999).acks(&[handle(&first[0])]), [Acked]);
        assert_eq!(script.at(60_000).acks(&[handle(&first[1])]), [InvalidHandle]);

        let again = crate::command::Again { offset: QueueOffset(1), delivery: first[1].delivery };
        let repeat = Pick { again: vec![again], ..super::super::script::pick(0, 0..0, &[]) };
        let second = script.pops(super::super::script::pop("other", vec![repeat]));
        assert_eq!(script.acks(&[handle(&first[1]), handle(&second[0])]), [InvalidHandle, Acked]);
        // Consumed is consumed, whoever asks.
        assert_eq!(script.acks(&[handle(&first[1])]), [Acked]);
        assert_eq!(script.progress(), (2, 2, 0));
    }

    #[test]
    fn what_was_never_delivered_cannot_be_acknowledged() {
        let mut script = Script::with_messages(2);
        let granted = script.pops_range(0..1);
        let at = |queue, offset| Handle {
            queue: QueueId(queue),
            offset: QueueOffset(offset),
            delivery: granted[0].delivery,
        };
        assert_eq!(script.acks(&[at(0, 1), at(0, 9), at(7, 0)]), [InvalidHandle; 3]);
        let wrong = Handle { delivery: 1, ..at(0, 0) };
        assert_eq!(script.acks(&[wrong, at(0, 0)]), [InvalidHandle, Acked]);
    }

    #[test]
    fn an_ack_for_nobody_is_rejected() {
        let mut script = Script::with_queues(1);
        script.appends(0, &[message("x")]);
        let rejected = Outcome::Rejected(Rejection::GroupNotFound);
        assert_eq!(script.does(ack(&[])), rejected);
        script.pops_range(0..1);
        let elsewhere = Ack { group: group(), topic: "bills".parse().unwrap(), handles: vec![] };
        let rejected = Outcome::Rejected(Rejection::TopicNotFound);
        assert_eq!(script.does(Command::Ack(elsewhere)), rejected);
        assert!(script.state.topic(&topic()).is_some());
    }
}
