//! Messages are kept no longer.

use proto::{QueueId, QueueOffset};

use super::{At, State};
use crate::command::{Effect, Expire, Outcome, Rejection, is_dead_letter_topic};
use crate::kv::{self, TopicId};

impl State {
    /// Deliveries below end as if they were acknowledged, and whoever stands below goes on at the
    /// first message that is kept.
    pub(super) fn expire(&mut self, at: At, c: &Expire) -> Result<Outcome, kv::Error> {
        let Some((topic, state)) = self.topics.find(&c.topic) else {
            return Ok(Outcome::Rejected(Rejection::TopicNotFound));
        };
        let queues = state.readable();
        let Some(head) = state.head(c.queue).copied() else {
            return Ok(Outcome::Rejected(Rejection::QueueNotFound { queues }));
        };
        let to = c.to.min(head.max);
        if to <= head.min {
            return Ok(Outcome::Done);
        }
        self.release_entries(topic, c.queue, head.min, to)?;
        for group in self.subscriptions.groups_of(topic) {
            let place = (group, topic, c.queue);
            if self.end_deliveries(place, to) > 0 {
                // There is room again, and what waited for these waits no longer.
                self.change.effects.push(Effect::Visible {
                    group: self.groups.name(group).clone(),
                    topic: c.topic.clone(),
                    queue: c.queue,
                    at: at.stamp,
                });
            }
            let (next, known) = self.subscriptions.stands(group, topic, c.queue);
            if known && next < to {
                self.subscriptions.set_next(group, topic, c.queue, to);
                kv::progress::put(&mut self.change.batch, place, to);
            }
        }
        let head = self.topics.get_mut(topic).head_mut(c.queue).expect("it was found");
        head.min = to;
        kv::queue_head::put(&mut self.change.batch, topic, c.queue, head);
        kv::forget::entries(&mut self.change.batch, topic, c.queue, to);
        self.forget_origins(topic, c.queue, to);
        Ok(Outcome::Done)
    }

    /// Dead letters below `to` are kept no longer, and so nobody asks where they came from.
    pub(super) fn forget_origins(&mut self, topic: TopicId, queue: QueueId, to: QueueOffset) {
        if is_dead_letter_topic(self.topics.get(topic).name()) {
            kv::forget::origins(&mut self.change.batch, topic, queue, to);
            self.change
                .origins
                .retain(|(of, at, offset), _| (*of, *at) != (topic, queue) || to <= *offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, group, handle, message, topic};
    use super::*;
    use crate::command::{AckOutcome, Command};

    fn expire(to: u64) -> Command {
        let (topic, queue) = (topic(), QueueId(0));
        Command::Expire(Expire { topic, queue, to: QueueOffset(to) })
    }

    fn offsets(script: &Script) -> std::ops::Range<u64> {
        let held = script.state.topic(&topic()).unwrap().offsets(QueueId(0)).unwrap();
        held.start.0..held.end.0
    }

    #[test]
    fn what_is_not_kept_is_gone_for_everybody() {
        let mut script = Script::with_messages(6);
        let held = script.pops_range(0..2);
        assert_eq!(script.does(expire(4)), Outcome::Done);
        assert_eq!(offsets(&script), 4..6);
        assert_eq!(script.progress(), (4, 4, 0));
        let digest = script.state.digest();
        let mut script = script.restarted();
        assert_eq!(script.state.digest(), digest);
        assert_eq!(offsets(&script), 4..6);
        assert_eq!(script.acks(&[handle(&held[0])]), [AckOutcome::Acked], "nothing comes back");
        let entries = script.state.scan(&topic(), QueueId(0), QueueOffset(0), 9).unwrap();
        assert_eq!(entries.iter().map(|e| e.offset.0).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(script.pops_range(4..6).len(), 2);
    }

    #[test]
    fn a_group_that_comes_later_begins_with_what_is_kept() {
        let mut script = Script::with_messages(6);
        script.does(expire(4));
        let mut script = script.restarted();
        assert_eq!(script.state.next_offset(&group(), &topic(), QueueId(0)), QueueOffset(4));
        assert!(script.state.has_anything(&group(), &topic(), None, script.now()));
        assert_eq!(script.progress(), (4, 4, 0));
        assert_eq!(script.pops_range(4..6).len(), 2);
        assert_eq!(script.progress(), (6, 4, 2));
    }

    #[test]
    fn expiry_never_goes_back_nor_beyond_the_end() {
        let mut script = Script::with_messages(6);
        for (to, kept) in [(2, 2..6), (1, 2..6), (9, 6..6)] {
            assert_eq!(script.does(expire(to)), Outcome::Done);
            assert_eq!(offsets(&script), kept);
        }
        assert!(!script.state.has_anything(&group(), &topic(), None, script.now()));
        script.appends(0, &[message("next")]);
        assert_eq!(offsets(&script), 6..7);
        assert_eq!(script.pops_range(6..7).len(), 1);
    }
}
