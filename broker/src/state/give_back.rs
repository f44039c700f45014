//! An answer did not reach its client: what it carried is visible again at once.
//!
//! A message that its client cannot have seen was not attempted: it stands as it did before it was
//! handed out, and in a group that keeps order it waits for its turn.

use std::collections::BTreeSet;

use proto::{QueueId, Timestamp};

use super::{At, State};
use crate::command::{Effect, GiveBack, Outcome, Rejection, Returned};
use crate::kv;
use crate::kv::in_flight::{Delivery, Place};

impl State {
    pub(super) fn give_back(&mut self, at: At, c: &GiveBack) -> Outcome {
        let Some(topic) = self.topics.id(&c.topic) else {
            return Outcome::Rejected(Rejection::TopicNotFound);
        };
        let Some(group) = self.groups.id(&c.group) else {
            return Outcome::Rejected(Rejection::GroupNotFound);
        };
        let mut visible: BTreeSet<QueueId> = BTreeSet::new();
        let mut count = 0;
        for returned in &c.deliveries {
            let Returned { handle, since, attempt } = *returned;
            let place = Place { group, topic, queue: handle.queue, offset: handle.offset };
            let held = self.subscriptions.find(&place).filter(|record| {
                (record.delivery.id, record.delivery.since) == (handle.delivery, since)
            });
            let Some(record) = held else { continue };
            let delivery =
                self.subscriptions.update(&place, |delivery| end(delivery, at.stamp, attempt));
            let client = self.subscriptions.client(record.client);
            kv::in_flight::put(&mut self.change.batch, &place, &delivery, client);
            visible.insert(place.queue);
            count += 1;
        }
        for queue in visible {
            let (group, topic) = (c.group.clone(), c.topic.clone());
            self.change.effects.push(Effect::Visible { group, topic, queue, at: at.stamp });
        }
        Outcome::GivenBack { count }
    }
}

fn end(delivery: &mut Delivery, now: Timestamp, attempt: u32) {
    delivery.due = delivery.due.min(now);
    delivery.auto_renew = false;
    delivery.attempt = delivery.attempt.min(attempt);
    if let Some(order) = &mut delivery.order {
        // Whoever repeats the call gets what is free then.
        order.attempt_id = None;
        if delivery.attempt == 0 {
            delivery.due = Timestamp(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::QueueOffset;

    use super::super::script::{Script, ack, group, handle, pick, pop, topic};
    use super::*;
    use crate::command::{
        AckOutcome, Again, Backoff, Command, FifoAgain, FifoFresh, FifoPick, Granted, GroupConfig,
        Pick, Pop, PopFifo, PutGroup,
    };

    fn returned(granted: &Granted, attempt: u32) -> Returned {
        Returned { handle: handle(granted), since: granted.since, attempt }
    }

    fn keeps_order(script: &mut Script, max_attempts: u32) {
        let config = GroupConfig { fifo: true, max_attempts, backoff: Backoff::default() };
        script.does(Command::PutGroup(PutGroup { group: group(), config }));
    }

    /// A pick of what is new from an offset on, of one block.
    fn fresh(from: u64, count: u64) -> FifoPick {
        let new = |offset| FifoFresh { offset: QueueOffset(offset), block: 1, deliver: true };
        FifoPick {
            queue: QueueId(0),
            from: QueueOffset(from),
            to: QueueOffset(from + count),
            again: vec![],
            fresh: (from..from + count).map(new).collect(),
        }
    }

    /// The same behind everything of the block that was handed out before.
    fn whole(script: &Script, from: u64, count: u64) -> FifoPick {
        let held = script.state.block_of(&group(), &topic(), QueueId(0), 1);
        let again = |held: &crate::state::DueDelivery| FifoAgain {
            offset: held.offset,
            delivery: held.delivery,
            block: 1,
        };
        FifoPick { again: held.iter().map(again).collect(), ..fresh(from, count) }
    }

    fn pops_in_order(
        script: &mut Script,
        client: &str,
        attempt_id: Option<u64>,
        pick: FifoPick,
    ) -> Vec<Granted> {
        let pop = PopFifo {
            group: group(),
            topic: topic(),
            client: client.parse().unwrap(),
            auto_renew: false,
            invisible_ms: 60_000,
            attempt_id,
            picks: vec![pick],
        };
        match script.does(Command::PopFifo(pop)) {
            Outcome::Popped { granted } => granted,
            other => panic!("{other:?}"),
        }
    }

    fn gives_back(script: &mut Script, deliveries: Vec<Returned>) -> Outcome {
        script.does(Command::GiveBack(GiveBack { group: group(), topic: topic(), deliveries }))
    }

    const ONE: Outcome = Outcome::GivenBack { count: 1 };
    const NONE: Outcome = Outcome::GivenBack { count: 0 };

    fn again(of: &Granted) -> Pop {
        let again = vec![Again { offset: of.offset, delivery: of.delivery }];
        pop("other", vec![Pick { again, ..pick(0, 0..0, &[]) }])
    }

    #[test]
    fn what_was_not_seen_is_there_at_once_as_if_it_had_never_been_handed_out() {
        let mut script = Script::with_messages(2);
        let both = pop("worker", vec![pick(0, 0..2, &[0, 1])]);
        let first = script.at(5).pops(Pop { auto_renew: true, ..both });
        assert_eq!(gives_back(script.at(9), vec![returned(&first[0], 0)]), ONE);
        let visible =
            Effect::Visible { group: group(), topic: topic(), queue: QueueId(0), at: Timestamp(9) };
        assert_eq!(script.effects, [visible]);
        assert_eq!(script.due(), [0], "the other one is held");
        let progress = script.state.progress(&group(), &topic(), QueueId(0)).unwrap();
        assert_eq!((progress.in_flight, progress.waiting), (1, 1));
        assert_eq!(script.does(ack(&[handle(&first[0])])), acked(AckOutcome::InvalidHandle));
        let mut script = script.restarted();
        let second = script.pops(again(&first[0]));
        assert_eq!((second[0].attempt, second[0].before), (1, 0));
        assert_eq!(script.releases("worker", 0), Outcome::Released { count: 1 });
    }

    fn acked(outcome: AckOutcome) -> Outcome {
        Outcome::Acked(vec![outcome])
    }

    #[test]
    fn what_may_have_been_seen_counts() {
        let mut script = Script::with_messages(1);
        let first = script.pops_range(0..1)[0];
        assert_eq!(gives_back(&mut script, vec![returned(&first, first.attempt)]), ONE);
        let second = script.pops(again(&first))[0];
        assert_eq!((second.attempt, second.before), (2, 1));
        assert_eq!(gives_back(&mut script, vec![returned(&second, second.before)]), ONE);
        assert_eq!(script.pops(again(&second))[0].attempt, 2, "as if there had been no second");
    }

    #[test]
    fn what_is_consumed_or_in_other_hands_is_left_alone() {
        let mut script = Script::with_messages(2);
        let first = script.pops_range(0..2);
        script.acks(&[handle(&first[0])]);
        assert_eq!(gives_back(&mut script, vec![returned(&first[0], 0)]), NONE);
        script.changes_invisible(handle(&first[1]), 0);
        let second = script.pops(again(&first[1]));
        assert_eq!(gives_back(&mut script, vec![returned(&first[1], 0)]), NONE);
        assert_eq!(script.acks(&[handle(&second[0])]), [AckOutcome::Acked]);
        let elsewhere = GiveBack {
            group: "nobody".parse().unwrap(),
            topic: topic(),
            deliveries: vec![returned(&first[1], 0)],
        };
        let outcome = script.does(Command::GiveBack(elsewhere));
        assert_eq!(outcome, Outcome::Rejected(Rejection::GroupNotFound));
    }

    #[test]
    fn a_repeated_call_keeps_what_the_first_one_lost() {
        let mut script = Script::with_messages(2);
        keeps_order(&mut script, 9);
        let first = pops_in_order(&mut script, "a", Some(7), fresh(0, 2));
        let repeated = pops_in_order(&mut script, "a", Some(7), fresh(2, 0));
        assert_eq!(handle(&first[0]), handle(&repeated[0]), "the same delivery, in the same ms");
        let lost = first.iter().map(|granted| returned(granted, 0)).collect();
        assert_eq!(gives_back(&mut script, lost), NONE);
        let lost = repeated.iter().map(|granted| returned(granted, granted.before)).collect();
        assert_eq!(gives_back(&mut script, lost), Outcome::GivenBack { count: 2 });
        // From now on the same call is one like any other.
        assert_eq!(pops_in_order(&mut script, "a", Some(7), fresh(2, 0)), []);
    }

    #[test]
    fn order_is_kept() {
        let mut script = Script::with_messages(4);
        keeps_order(&mut script, 9);
        let got = pops_in_order(&mut script, "a", None, fresh(0, 3));
        // The client has the first one.
        let rest = got[1..].iter().map(|granted| returned(granted, granted.before)).collect();
        assert_eq!(gives_back(&mut script, rest), Outcome::GivenBack { count: 2 });
        let mut script = script.restarted();
        assert!(script.due().is_empty(), "the first of the block is held");
        assert_eq!(pops_in_order(&mut script, "b", None, fresh(3, 1)), []);
        assert_eq!(script.acks(&[handle(&got[0])]), [AckOutcome::Acked]);
        assert_eq!(script.due(), [1]);
        let block = whole(&script, 4, 0);
        let next = pops_in_order(&mut script, "b", None, block);
        let facts: Vec<_> = next.iter().map(|g| (g.offset.0, g.attempt)).collect();
        assert_eq!(facts, [(1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn what_was_seen_too_often_is_a_dead_letter_all_the_same() {
        let mut script = Script::with_messages(1);
        keeps_order(&mut script, 1);
        let got = pops_in_order(&mut script, "a", None, fresh(0, 1));
        gives_back(&mut script, vec![returned(&got[0], 0)]);
        let block = whole(&script, 1, 0);
        let got = pops_in_order(&mut script, "a", None, block);
        assert_eq!(got[0].attempt, 1, "nobody had seen it");
        gives_back(&mut script, vec![returned(&got[0], 1)]);
        let block = whole(&script, 1, 0);
        assert_eq!(pops_in_order(&mut script, "a", None, block), []);
        assert_eq!(script.progress(), (1, 1, 0));
    }
}
