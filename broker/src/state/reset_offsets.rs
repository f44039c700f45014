//! A consumer group is put somewhere else in its queues.

use proto::{QueueId, QueueOffset};

use super::{At, State};
use crate::command::{Effect, Outcome, QueueReset, Rejection, ResetOffsets, ResetTo};
use crate::kv::reset::Reset;
use crate::kv::{self, ConsumerGroupId, TopicId};

impl State {
    pub(super) fn reset_offsets(&mut self, at: At, c: &ResetOffsets) -> Outcome {
        let (topic, group, targets) = match self.targets(c) {
            Ok(found) => found,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        let mut queues = Vec::with_capacity(targets.len());
        for (queue, to) in targets {
            queues.push(self.reset_queue(at, (group, topic, queue), to));
            // Whoever waits looks again: there may be more for it, or something else.
            self.change.effects.push(Effect::Reset {
                group: c.group.clone(),
                topic: c.topic.clone(),
                queue,
                at: at.stamp,
            });
        }
        Outcome::OffsetsReset { queues }
    }

    /// Where each queue goes, if all of them can.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn targets(
        &self,
        c: &ResetOffsets,
    ) -> Result<(TopicId, ConsumerGroupId, Vec<(QueueId, QueueOffset)>), Rejection> {
        let (id, topic) = self.topics.find(&c.topic).ok_or(Rejection::TopicNotFound)?;
        let group = self.groups.id(&c.group).ok_or(Rejection::GroupNotFound)?;
        let queues = topic.readable();
        let mut targets = Vec::with_capacity(c.queues.len());
        for (queue, to) in &c.queues {
            let head = topic.head(*queue).ok_or(Rejection::QueueNotFound { queues })?;
            let to = match to {
                ResetTo::Begin => head.min,
                ResetTo::End => head.max,
                ResetTo::Offset(offset) if (head.min..=head.max).contains(offset) => *offset,
                ResetTo::Offset(_) => {
                    return Err(Rejection::OffsetOutOfRange { min: head.min, max: head.max });
                }
            };
            targets.push((*queue, to));
        }
        Ok((id, group, targets))
    }

    fn reset_queue(&mut self, at: At, place: kv::progress::Place, to: QueueOffset) -> QueueReset {
        let (group, topic, queue) = place;
        let from = self.committed(place);
        let ended = self.end_deliveries(place, QueueOffset(u64::MAX));
        let reset = Reset { id: at.delivery, to, pending: true };
        self.subscriptions.reset_to(group, topic, queue, reset);
        kv::progress::put(&mut self.change.batch, place, to);
        kv::reset::put(&mut self.change.batch, place, &reset);
        QueueReset { queue, from, to, ended }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, commit, group, handle, message, pick, pop, reset, topic};
    use super::*;
    use crate::command::{AckOutcome, Command, FollowReset};

    fn done(outcome: Outcome) -> Vec<(u32, u64, u64, u32)> {
        match outcome {
            Outcome::OffsetsReset { queues } => {
                queues.iter().map(|q| (q.queue.0, q.from.0, q.to.0, q.ended)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn follow(script: &mut Script, id: u64) -> Outcome {
        let (group, topic, queue) = (group(), topic(), QueueId(0));
        script.does(Command::FollowReset(FollowReset { group, topic, queue, reset: id }))
    }

    #[test]
    fn a_reset_back_delivers_again_from_the_first_attempt() {
        let mut script = Script::with_messages(6);
        let granted = script.pops_range(0..6);
        script.acks(&[handle(&granted[0]), handle(&granted[1])]);
        let outcome = script.does(reset(&[(0, ResetTo::Offset(QueueOffset(1)))]));
        assert_eq!(done(outcome), [(0, 2, 1, 4)]);
        assert_eq!(script.progress(), (1, 1, 0));
        assert!(matches!(script.effects[..], [Effect::Reset { .. }]));

        let again = script.pops_range(1..6);
        assert!(again.iter().all(|g| g.attempt == 1));
        let old: Vec<_> = granted.iter().map(handle).collect();
        assert_eq!(script.acks(&old), [AckOutcome::InvalidHandle; 6], "also of what was acked");
        assert_eq!(script.acks(&[handle(&again[0])]), [AckOutcome::Acked]);
        assert_eq!(script.progress(), (6, 2, 4));
    }

    #[test]
    fn a_reset_ahead_skips_and_old_handles_are_stale() {
        let mut script = Script::with_messages(6);
        let granted = script.pops_range(0..3);
        assert_eq!(done(script.does(reset(&[(0, ResetTo::End)]))), [(0, 0, 6, 3)]);
        assert_eq!(script.progress(), (6, 6, 0));
        assert_eq!(script.acks(&[handle(&granted[0])]), [AckOutcome::InvalidHandle]);
        assert!(script.pops_range(0..6).is_empty());
        script.appends(0, &[message("next")]);
        let granted = script.pops_range(6..7);
        assert_eq!(script.acks(&[handle(&granted[0])]), [AckOutcome::Acked]);
        assert_eq!(script.acks(&[handle(&granted[0])]), [AckOutcome::Acked], "repeated");
    }

    #[test]
    fn one_bad_queue_leaves_all_as_they_are() {
        let mut script = Script::with_queues(2);
        script.appends(0, &[message("a"), message("b")]);
        script.pops_range(0..2);
        let digest = script.state.digest();
        let far = (1, ResetTo::Offset(QueueOffset(1)));
        let out_of_range = Rejection::OffsetOutOfRange { min: QueueOffset(0), max: QueueOffset(0) };
        let outcome = script.does(reset(&[(0, ResetTo::Begin), far]));
        assert_eq!(outcome, Outcome::Rejected(out_of_range));
        let outcome = script.does(reset(&[(0, ResetTo::Begin), (2, ResetTo::Begin)]));
        assert_eq!(outcome, Outcome::Rejected(Rejection::QueueNotFound { queues: 2 }));
        assert_eq!(script.state.digest(), digest);

        let mut nobody = Script::with_queues(1);
        let outcome = nobody.does(reset(&[(0, ResetTo::Begin)]));
        assert_eq!(outcome, Outcome::Rejected(Rejection::GroupNotFound));
    }

    #[test]
    fn commits_count_again_once_a_pull_has_followed() {
        let mut script = Script::with_messages(6);
        script.does(commit(0, 5));
        script.does(reset(&[(0, ResetTo::Begin)]));
        let pending = |script: &Script| script.state.pending_reset(&group(), &topic(), QueueId(0));
        let first = pending(&script).unwrap();
        let refused = Outcome::Rejected(Rejection::OffsetReset { to: QueueOffset(0) });
        assert_eq!(script.does(commit(0, 6)), refused);

        script.does(reset(&[(0, ResetTo::Offset(QueueOffset(2)))]));
        assert_eq!(follow(&mut script, first.id), Outcome::Done);
        let second = pending(&script).expect("the first reset is not the one to follow");
        let digest = script.state.digest();
        let mut script = script.restarted();
        assert_eq!(script.state.digest(), digest);
        assert_eq!(pending(&script), Some(second));
        assert_eq!(follow(&mut script, second.id), Outcome::Done);
        assert_ne!(script.state.digest(), digest);
        assert_eq!(pending(&script), None);
        assert!(matches!(script.does(commit(0, 6)), Outcome::OffsetCommitted { .. }));
        let script = script.restarted();
        assert_eq!(script.progress(), (6, 6, 0));
    }

    #[test]
    fn only_the_queues_named_are_reset() {
        let mut script = Script::with_queues(2);
        for queue in 0..2 {
            script.appends(queue, &[message("a"), message("b")]);
        }
        let granted = script.pops(pop("worker", vec![pick(0, 0..2, &[0, 1]), pick(1, 0..2, &[1])]));
        assert_eq!(done(script.does(reset(&[(1, ResetTo::Begin)]))), [(1, 1, 0, 1)]);
        assert_eq!(script.progress(), (2, 0, 2));
        assert_eq!(script.acks(&[handle(&granted[0])]), [AckOutcome::Acked]);
    }
}
