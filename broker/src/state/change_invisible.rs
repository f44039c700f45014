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
