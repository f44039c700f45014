//! Deliveries end well: the message is consumed.

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
            let outcome = self.ack_one(at, group, topic, handle);
            outcomes.push(outcome);
            if was_full && outcome == AckOutcome::Acked {
                // There is room again: pops that found none go on.
                self.change.effects.push(Effect::Visible {
                    group: c.group.clone(),
                    topic: c.topic.clone(),
                    queue: handle.queue,
                    at: at.stamp,
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
            // Whoever acknowledged it held a delivery of it: a repeated ack finds it done.
            None if handle.offset < self.subscriptions.next(group, topic, handle.queue) => {
                AckOutcome::Acked
            }
            None => AckOutcome::InvalidHandle,
        }
    }
}
