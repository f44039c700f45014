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
            if delivery.is_doubtful(c.trusted_since) {
                continue;
            }
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

#[cfg(test)]
mod tests {
    use proto::{ClientId, QueueId, Timestamp};

    use super::super::script::{Script, group, handle, message, pick, pop, renew, topic};
    use super::*;
    use crate::command::{AckOutcome, Command, Pop};

    const HOUR: u64 = 3_600_000;

    /// Two queues; the worker holds 0 of the first and 0, 1 of the second, another client 1 of the
    /// first, and 2 of the first was popped without renewal.
    fn held() -> Script {
        let mut script = Script::with_queues(2);
        script.appends(0, &vec![message("x"); 3]);
        script.appends(1, &vec![message("y"); 2]);
        let auto = |client, picks| Pop { auto_renew: true, ..pop(client, picks) };
        script.pops(auto("worker", vec![pick(0, 0..1, &[0]), pick(1, 0..2, &[0, 1])]));
        script.pops(auto("other", vec![pick(0, 1..2, &[1])]));
        script.pops(pop("worker", vec![pick(0, 2..3, &[2])]));
        script
    }

    fn holdings(script: &Script, until: u64) -> Vec<(u32, String, u64)> {
        let found = script.state.holdings(Timestamp(until), 100, |_| Timestamp(0));
        found.iter().map(|h| (h.queue.0, h.client.to_string(), h.due.0)).collect()
    }

    #[test]
    fn what_one_client_holds_in_one_queue_is_extended() {
        let mut script = held();
        assert_eq!(
            script.at(50_000).does(renew("worker", 0, 60_000)),
            Outcome::Renewed { count: 1 }
        );
        let script = &mut script.restarted();
        script.at(60_000);
        assert_eq!(script.due().len(), 4);
        let due = script.state.due(&group(), &topic(), Some(QueueId(0)), script.now(), 9);
        assert_eq!(due.iter().map(|d| d.offset.0).collect::<Vec<_>>(), [1, 2]);
        // It is never shortened.
        assert_eq!(script.does(renew("worker", 0, 1_000)), Outcome::Renewed { count: 0 });
        assert_eq!(script.does(renew("worker", 1, 60_000)), Outcome::Renewed { count: 2 });
        assert_eq!(script.does(renew("nobody", 1, 60_000)), Outcome::Renewed { count: 0 });
    }

    #[test]
    fn a_delivery_is_not_held_longer_than_three_hours() {
        let mut script = held();
        for half_hour in 1..7 {
            let now = half_hour * HOUR / 2 - 1;
            script.at(now).does(renew("worker", 0, 40 * 60_000));
        }
        assert_eq!(script.state.next_due(&group(), &topic()), Some(Timestamp(60_000)));
        let first = script.state.due(&group(), &topic(), Some(QueueId(0)), Timestamp(u64::MAX), 9);
        let mine = first.iter().find(|d| d.offset.0 == 0).unwrap();
        assert_eq!(mine.due, Timestamp(3 * HOUR));
        // Nothing is left to propose for it.
        assert!(!holdings(&script, u64::MAX).contains(&(0, "worker".into(), 3 * HOUR)));
        let late = script.at(3 * HOUR).does(renew("worker", 0, 60_000));
        assert_eq!(late, Outcome::Renewed { count: 0 });
    }

    #[test]
    fn an_ended_delivery_that_nobody_got_yet_goes_on() {
        let mut script = Script::with_messages(1);
        let auto = Pop { auto_renew: true, ..pop("worker", vec![pick(0, 0..1, &[0])]) };
        let handle = handle(&script.pops(auto)[0]);
        script.at(70_000);
        assert_eq!(script.due(), [0]);
        assert_eq!(script.does(renew("worker", 0, 60_000)), Outcome::Renewed { count: 1 });
        assert!(script.due().is_empty());
        assert_eq!(script.acks(&[handle]), [AckOutcome::Acked]);
    }

    #[test]
    fn the_leader_is_told_whom_to_renew_for() {
        let mut script = held();
        assert_eq!(holdings(&script, 59_999), []);
        let all = [
            (0, "worker".into(), 60_000),
            (0, "other".into(), 60_000),
            (1, "worker".into(), 60_000),
        ];
        let mut found = holdings(&script, 60_000);
        found.sort();
        let mut expected = all.to_vec();
        expected.sort();
        assert_eq!(found, expected);
        script.at(50_000).does(renew("worker", 1, 60_000));
        assert_eq!(holdings(&script, 60_000).len(), 2);
        assert_eq!(script.state.holdings(Timestamp(60_000), 1, |_| Timestamp(0)).len(), 1);
    }

    #[test]
    fn what_may_never_have_arrived_is_not_renewed() {
        let mut script = Script::with_messages(2);
        let auto = |pick| Pop { auto_renew: true, ..pop("worker", vec![pick]) };
        script.pops(auto(pick(0, 0..1, &[0])));
        assert_eq!(
            script.at(15_000).does(renew("worker", 0, 60_000)),
            Outcome::Renewed { count: 1 }
        );
        script.at(20_000).pops(auto(pick(0, 1..2, &[1])));
        let doubtful =
            |client: &ClientId| Timestamp(if client.as_str() == "worker" { 20_001 } else { 0 });
        // The first was renewed by a leader that had reason to.
        let held = script.state.holdings(Timestamp(80_000), 9, doubtful);
        assert_eq!(held.iter().map(|h| h.due.0).collect::<Vec<_>>(), [75_000]);
        assert_eq!(held[0].trusted_since, Timestamp(20_001));
        let Command::Renew(asked) = renew("worker", 0, 60_000) else { unreachable!() };
        let asked = Renew { trusted_since: Timestamp(20_001), ..asked };
        let script = &mut script.restarted();
        script.at(30_000);
        assert_eq!(script.does(Command::Renew(asked)), Outcome::Renewed { count: 1 });
        script.at(80_000);
        assert_eq!(script.due(), [1]);
    }
}
