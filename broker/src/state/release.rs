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

#[cfg(test)]
mod tests {
    use proto::{QueueId, Timestamp};

    use super::super::script::{Script, group, message, pick, pop, topic};
    use super::*;
    use crate::command::{Command, Pop};

    #[test]
    fn what_a_gone_client_was_renewed_becomes_visible_soon() {
        let mut script = Script::with_queues(2);
        script.appends(0, &vec![message("x"); 3]);
        script.appends(1, &[message("y")]);
        let auto = |client, picks| Pop { auto_renew: true, ..pop(client, picks) };
        script.pops(auto("worker", vec![pick(0, 0..1, &[0]), pick(1, 0..1, &[0])]));
        script.pops(auto("other", vec![pick(0, 1..2, &[1])]));
        script.pops(pop("worker", vec![pick(0, 2..3, &[2])]));

        assert_eq!(script.at(10).releases("worker", 1_000), Outcome::Released { count: 2 });
        let visible = |queue| Effect::Visible {
            group: group(),
            topic: topic(),
            queue: QueueId(queue),
            at: Timestamp(1_010),
        };
        assert_eq!(script.effects, [visible(0), visible(1)]);
        let mut script = script.restarted();
        script.at(1_010);
        let due = script.state.due(&group(), &topic(), None, script.now(), 9);
        let facts: Vec<_> = due.iter().map(|d| (d.queue.0, d.offset.0)).collect();
        assert_eq!(facts, [(0, 0), (1, 0)]);
        // Nothing is renewed for it any more, and what is due already stays so.
        assert_eq!(script.releases("worker", 1_000), Outcome::Released { count: 0 });
    }

    #[test]
    fn a_release_never_postpones() {
        let mut script = Script::with_messages(1);
        let pop = Pop { auto_renew: true, ..pop("worker", vec![pick(0, 0..1, &[0])]) };
        script.pops(pop);
        assert_eq!(script.at(59_500).releases("worker", 1_000), Outcome::Released { count: 1 });
        script.at(60_000);
        assert_eq!(script.due(), [0]);
    }

    #[test]
    fn only_the_group_named_is_touched() {
        let mut script = Script::with_messages(1);
        let auto = Pop { auto_renew: true, ..pop("worker", vec![pick(0, 0..1, &[0])]) };
        script.pops(auto.clone());
        let billing = Pop { group: "billing".parse().unwrap(), ..auto };
        script.pops(billing);
        assert_eq!(script.releases("worker", 0), Outcome::Released { count: 1 });
        let release = Release {
            client: "worker".parse().unwrap(),
            group: "nobody".parse().unwrap(),
            after_ms: 0,
        };
        let outcome = script.does(Command::Release(release));
        assert_eq!(outcome, Outcome::Rejected(Rejection::GroupNotFound));
        let next_due = script.state.next_due(&"billing".parse().unwrap(), &topic());
        assert_eq!(next_due, Some(Timestamp(60_000)));
    }
}
