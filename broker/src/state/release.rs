//! A client is gone: what the leader renewed for it becomes visible again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{At, State};
use crate::command::{Effect, Outcome, Rejection, Release};
use crate::kv;
use crate::kv::in_flight::Place;

impl State {
    pub(super) fn release(&mut self, at: At, c: &Release) -> Outcome {
        let Some(group) = self.groups.id(&c.group) else {
            return Outcome::Rejected(Rejection::GroupNotFound);
        };
        let Some(client) = self.subscriptions.find_client(&c.client) else {
            return Outcome::Released { count: 0 };
        };
        let mut places = Vec::new();
        for (topic, subscription) in self.subscriptions.of_group(group) {
            let held = subscription.in_flight.renewed_of(client);
            places.extend(held.map(|(queue, offset)| Place { group, topic, queue, offset }));
        }
        let latest = at.stamp.plus(Duration::from_millis(c.after_ms));
        let mut visible = BTreeSet::new();
        let mut count = 0;
        for place in places {
            let delivery = self.subscriptions.update(&place, |delivery| {
                delivery.due = delivery.due.min(latest);
                delivery.auto_renew = false;
            });
            kv::in_flight::put(&mut self.change.batch, &place, &delivery, &c.client);
            visible.insert((place.topic, place.queue));
            count += 1;
        }
        self.unflushed.work += count as usize;
        for (topic, queue) in visible {
            let topic = self.topics.get(topic).name().clone();
            let group = c.group.clone();
            self.change.effects.push(Effect::Visible { group, topic, queue, at: latest });
        }
        Outcome::Released { count }
    }
}
