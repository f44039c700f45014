//! Messages whose time has come enter their queues.

use std::collections::BTreeSet;

use commitlog::Bug;
use proto::{QueueId, Topic};

use super::{At, State};
use crate::command::{Effect, Fire, Outcome};
use crate::kv;
use crate::kv::consume_queue::Entry;
use crate::kv::key_log::Keyed;
use crate::kv::timer::Timer;

impl State {
    pub(super) fn fire(&mut self, at: At, c: Fire) -> Result<Outcome, kv::Error> {
        let (mut due, mut dropped) = (Vec::new(), 0);
        let mut reached = BTreeSet::new();
        let now = if Bug::B12.is_sown() { proto::clock::wall_now() } else { at.stamp };
        for _ in 0..c.most {
            let first = self.timers.take_due(&*self.kv, &mut self.change.batch, now)?;
            let Some((id, timer)) = first else { break };
            if let Some(place) = self.fire_one(at, &timer) {
                due.push(id.due);
                reached.insert(place);
            } else {
                self.timers.remember(&mut self.change.batch, id, timer.topic);
                dropped += 1;
            }
        }
        let appended = |(topic, queue)| Effect::Appended { topic, queue };
        self.change.effects.extend(reached.into_iter().map(appended));
        Ok(Outcome::Fired { stamp: at.stamp, due, dropped })
    }

    /// The message stays where it lies in the log; its queue gets an entry. Where that is; nowhere
    /// when the topic was deleted.
    fn fire_one(&mut self, at: At, timer: &Timer) -> Option<(Topic, QueueId)> {
        let Timer { topic, queue, position, len, tag_hash, .. } = *timer;
        let known = self.topics.find_id(topic)?;
        // A topic may have lost queues since. One that it is about to lose must not grow.
        let queue = known.instead_of(queue);
        let before = known.head(queue).expect("a topic has the queues that take messages").max;
        let name = known.name().clone();
        self.change.grown.entry((topic, queue)).or_insert(before);
        let entry = Entry { position, len, tag_hash, visible: at.stamp };
        let offset = self.enqueue(topic, queue, entry);
        for hash in &timer.key_hashes {
            self.keys.add(Keyed { topic, hash: *hash, queue, offset });
        }
        Some((name, queue))
    }
}

#[cfg(test)]
mod tests {
    use proto::{QueueOffset, Timestamp};

    use super::super::script::{Script, config, delayed, message, put_topic, topic};
    use super::*;
    use crate::command::{AppendDelayed, Command, DeleteTopic, NewMessage, RecallOutcome};
    use crate::state::QueueEntry;

    fn queue(script: &Script) -> Vec<QueueEntry> {
        script.state.scan(&topic(), QueueId(0), QueueOffset(0), 99).unwrap()
    }

    #[test]
    fn nothing_fires_before_its_time() {
        let mut script = Script::with_queues(1);
        script.delays(&[delayed(500, message("m"))]);
        assert!(script.at(499).fires(9).is_empty());
        assert!(script.effects.is_empty());
        assert_eq!(script.at(500).fires(9), [500]);
        let effect = Effect::Appended { topic: topic(), queue: QueueId(0) };
        assert_eq!(script.effects, [effect]);
        assert!(script.at(600).fires(9).is_empty(), "it fires once");
        assert_eq!(queue(&script.restarted()).len(), 1);
    }

    #[test]
    fn they_fire_in_the_order_of_their_times_and_then_as_they_were_sent() {
        let mut script = Script::with_queues(1);
        let tagged = |tag_hash| NewMessage { tag_hash, key_hashes: vec![tag_hash], ..message("m") };
        for (due, tag) in [(300, 1), (200, 2), (300, 3)] {
            script.delays(&[delayed(due, tagged(tag)), delayed(200, tagged(10 + tag))]);
        }
        script = script.restarted();
        script.appends(0, &[message("plain")]);
        assert_eq!(script.at(900).fires(3), [200; 3]);
        assert_eq!(script.at(950).fires(9), [200, 300, 300]);
        let script = script.restarted();
        let entries = queue(&script);
        let tags: Vec<_> = entries.iter().map(|e| e.tag_hash).collect();
        assert_eq!(tags, [0, 11, 2, 12, 13, 1, 3]);
        let visible: Vec<_> = entries.iter().map(|e| e.visible.0).collect();
        assert_eq!(visible, [0, 900, 900, 900, 950, 950, 950]);
        let by_key = script.state.find_by_key(&topic(), 13, 9).unwrap();
        assert_eq!(by_key, [(QueueId(0), QueueOffset(4))]);
        assert_eq!(script.state.next_timer(), None);
    }

    #[test]
    fn messages_go_with_their_topic_and_into_the_queues_that_are_left() {
        let mut script = Script::with_queues(2);
        script.delays(&[delayed(500, message("m"))]);
        script.does(Command::DeleteTopic(DeleteTopic { topic: topic() }));
        script.does(put_topic("orders", config(2, 2)));
        assert_eq!(script.recalls(500, 0), RecallOutcome::Unknown, "of the topic that was");
        let (queue_one, messages) = (QueueId(1), vec![delayed(600, message("n"))]);
        let append = AppendDelayed { topic: topic(), queue: queue_one, messages };
        script.does(Command::AppendDelayed(append));
        script.does(put_topic("orders", config(1, 3)));
        let fired = script.at(900).does(Command::Fire(Fire { most: 9 }));
        let (stamp, due) = (Timestamp(900), vec![Timestamp(600)]);
        assert_eq!(fired, Outcome::Fired { stamp, due, dropped: 1 });
        assert_eq!(script.recalls(500, 0), RecallOutcome::Unknown, "it was not delivered");
        let script = script.restarted();
        assert_eq!((queue(&script).len(), script.state.timers_pending()), (1, 0));
    }

    #[test]
    fn the_entry_points_at_the_original_bytes() {
        let mut script = Script::with_queues(1);
        let two = [delayed(500, message("first")), delayed(400, message("second"))];
        script.delays(&two);
        script.at(500).fires(9);
        // The command is the second entry: it starts at 1000 and ends with its messages.
        let header = 1 + (2 + 5 + 1) + 4 + 2 + 2 * 22;
        let found: Vec<_> = queue(&script).iter().map(|e| (e.position.0, e.len)).collect();
        assert_eq!(found, [(1000 + header + 5, 6), (1000 + header, 5)]);
        assert_eq!(script.state.log_time(), Timestamp(500));
    }
}
