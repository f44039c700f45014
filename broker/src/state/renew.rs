//! The leader extends what a live client holds.

use std::time::Duration;

use proto::limits::AUTO_RENEW_TOTAL;

use super::{At, State};
use crate::command::{Outcome, Rejection, Renew};
use crate::kv;
use crate::kv::in_flight::Place;

impl State {
    /// A delivery that has ended, but was not made again since, is extended too: its client is
    /// alive and still at work, and nobody else holds the message.
    pub(super) fn renew(&mut self, at: At, c: &Renew) -> Outcome {
        let Some(topic) = self.topics.id(&c.topic) else {
            return Outcome::Rejected(Rejection::TopicNotFound);
        };
        let Some(group) = self.groups.id(&c.group) else {
            return Outcome::Rejected(Rejection::GroupNotFound);
        };
        let client = self.subscriptions.find_client(&c.client);
        let (Some(client), Some(held)) = (client, self.subscriptions.get(group, topic)) else {
            return Outcome::Renewed { count: 0 };
        };
        let held: Vec<_> = held.in_flight.renewed_of_in(client, c.queue).collect();
        let asked = at.stamp.plus(Duration::from_millis(c.invisible_ms));
        let mut count = 0;
        for (queue, offset) in held {
            let place = Place { group, topic, queue, offset };
            let delivery = self.subscriptions.find(&place).expect("it is held").delivery;
            let due = asked.min(delivery.since.plus(AUTO_RENEW_TOTAL));
            if due <= delivery.due {
                continue;
            }
            let delivery = self.subscriptions.update(&place, |delivery| delivery.due = due);
            kv::in_flight::put(&mut self.change.batch, &place, &delivery, &c.client);
            count += 1;
        }
        self.unflushed.work += count as usize;
        Outcome::Renewed { count }
    }
}
