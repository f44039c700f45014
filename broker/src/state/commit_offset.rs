//! A consumer group says how far it has consumed a queue.

use proto::QueueOffset;

use super::{At, State};
use crate::command::{CommitOffset, Effect, FollowReset, Outcome, Rejection};
use crate::kv::{self, TopicId};

impl State {
    pub(super) fn commit_offset(&mut self, at: At, c: &CommitOffset) -> Outcome {
        let accepted = self.committable(c).and_then(|t| Ok((t, self.ensure_group(&c.group)?)));
        let (topic, group) = match accepted {
            Ok(found) => found,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        let place = (group, topic, c.queue);
        let ended = self.end_deliveries(place, c.offset);
        let (next, known) = self.subscriptions.stands(group, topic, c.queue);
        if next < c.offset || !known {
            let next = next.max(c.offset);
            self.subscriptions.set_next(group, topic, c.queue, next);
            kv::progress::put(&mut self.change.batch, place, next);
        }
        if ended > 0 {
            // There is room again, and what waited for these waits no longer: pops go on.
            self.change.effects.push(Effect::Visible {
                group: c.group.clone(),
                topic: c.topic.clone(),
                queue: c.queue,
                at: at.stamp,
            });
        }
        Outcome::OffsetCommitted { offset: self.committed(place) }
    }

    /// Everything of a queue below this is consumed by the group, or not kept any more.
    pub(super) fn committed(&self, (group, topic, queue): kv::progress::Place) -> QueueOffset {
        let committed = self.subscriptions.get(group, topic).map(|s| s.committed(queue));
        let min = self.topics.get(topic).head(queue).map(|head| head.min);
        committed.max(min).unwrap_or_default()
    }

    /// The topic, if its queue can have this offset committed.
    fn committable(&self, c: &CommitOffset) -> Result<TopicId, Rejection> {
        let (id, topic) = self.topics.find(&c.topic).ok_or(Rejection::TopicNotFound)?;
        let queues = topic.readable();
        let head = topic.head(c.queue).ok_or(Rejection::QueueNotFound { queues })?;
        if c.offset > head.max {
            return Err(Rejection::OffsetOutOfRange { min: head.min, max: head.max });
        }
        let group = self.groups.id(&c.group);
        match group.and_then(|group| self.subscriptions.reset(group, id, c.queue)) {
            Some(reset) if reset.pending => Err(Rejection::OffsetReset { to: reset.to }),
            Some(_) | None => Ok(id),
        }
    }

    /// Ends the deliveries of a queue below an offset, as if they were acknowledged. How many
    /// there were.
    pub(super) fn end_deliveries(&mut self, place: kv::progress::Place, below: QueueOffset) -> u32 {
        let (group, topic, queue) = place;
        let held = self.subscriptions.get(group, topic);
        let held: Vec<_> =
            held.into_iter().flat_map(|s| s.in_flight.of_queue(queue, below)).collect();
        for offset in &held {
            let place = kv::in_flight::Place { group, topic, queue, offset: *offset };
            self.subscriptions.remove(&place);
            kv::in_flight::delete(&mut self.change.batch, &place);
        }
        self.unflushed.work += held.len();
        u32::try_from(held.len()).expect("deliveries in flight are bounded")
    }

    pub(super) fn follow_reset(&mut self, c: &FollowReset) -> Outcome {
        let Some(topic) = self.topics.id(&c.topic) else {
            return Outcome::Rejected(Rejection::TopicNotFound);
        };
        let Some(group) = self.groups.id(&c.group) else {
            return Outcome::Rejected(Rejection::GroupNotFound);
        };
        let reset = self.subscriptions.reset(group, topic, c.queue);
        if let Some(mut reset) = reset.filter(|reset| reset.id == c.reset && reset.pending) {
            reset.pending = false;
            self.subscriptions.put_reset(group, topic, c.queue, reset);
            kv::reset::put(&mut self.change.batch, (group, topic, c.queue), &reset);
        }
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use proto::QueueId;

    use super::super::script::{Script, commit, group, handle, topic};
    use super::*;
    use crate::command::{AckOutcome, Command};

    fn committed(outcome: &Outcome) -> u64 {
        match outcome {
            Outcome::OffsetCommitted { offset } => offset.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_commit_moves_the_group_ahead_and_never_back() {
        let mut script = Script::with_messages(9);
        assert_eq!(script.state.committed_offset(&group(), &topic(), QueueId(0)), None);
        assert_eq!(committed(&script.does(commit(0, 4))), 4);
        assert_eq!(script.progress(), (4, 4, 0));
        assert_eq!(committed(&script.does(commit(0, 2))), 4);
        assert_eq!(committed(&script.does(commit(0, 9))), 9);
        let out_of_range = Rejection::OffsetOutOfRange { min: QueueOffset(0), max: QueueOffset(9) };
        assert_eq!(script.does(commit(0, 10)), Outcome::Rejected(out_of_range));
        let no_queue = Rejection::QueueNotFound { queues: 1 };
        assert_eq!(script.does(commit(1, 0)), Outcome::Rejected(no_queue));
        let script = script.restarted();
        assert_eq!(script.progress(), (9, 9, 0));
    }

    #[test]
    fn a_commit_of_zero_is_a_commit() {
        let mut script = Script::with_messages(1);
        let before = script.state.digest();
        assert_eq!(committed(&script.does(commit(0, 0))), 0);
        assert_ne!(script.state.digest(), before);
        let digest = script.state.digest();
        let script = script.restarted();
        assert_eq!(script.state.digest(), digest);
        let known = script.state.committed_offset(&group(), &topic(), QueueId(0));
        assert_eq!(known, Some(QueueOffset(0)));
    }

    #[test]
    fn deliveries_below_a_commit_end_and_the_others_do_not() {
        let mut script = Script::with_messages(9);
        let granted = script.pops_range(0..6);
        assert_eq!(committed(&script.does(commit(0, 4))), 4);
        assert_eq!(script.progress(), (6, 4, 2));
        let handles: Vec<_> = granted.iter().map(handle).collect();
        assert_eq!(script.acks(&handles[3..5]), [AckOutcome::Acked; 2]);
        assert_eq!(script.progress(), (6, 5, 1));
        let digest = script.state.digest();
        let mut script = script.restarted();
        assert_eq!(script.state.digest(), digest);
        assert_eq!(committed(&script.does(commit(0, 8))), 8);
        assert_eq!(script.progress(), (8, 8, 0));
        assert_eq!(script.pops_range(8..9).len(), 1, "pops go on after it");
    }

    #[test]
    fn a_commit_for_no_topic_is_rejected_and_makes_no_group() {
        let mut script = Script::new();
        let rejected = Outcome::Rejected(Rejection::TopicNotFound);
        assert_eq!(script.does(commit(0, 0)), rejected);
        let follow = FollowReset { group: group(), topic: topic(), queue: QueueId(0), reset: 1 };
        assert_eq!(script.does(Command::FollowReset(follow)), rejected);
        assert_eq!(script.state.groups().count(), 0);
    }
}
