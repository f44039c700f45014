//! A delayed message is taken back.

use super::timers::Waiting;
use super::{At, State, limits};
use crate::command::{Outcome, Recall, RecallOutcome, Rejection};
use crate::kv;

/// Recalls forgotten by each recall: more than one, so that they never add up.
const FORGOTTEN_AT_ONCE: usize = 2;

impl State {
    pub(super) fn recall(&mut self, at: At, c: &Recall) -> Result<Outcome, kv::Error> {
        let Some(topic) = self.topics.id(&c.topic) else {
            return Ok(Outcome::Rejected(Rejection::TopicNotFound));
        };
        let known_from = at.stamp.minus(limits::RECALL_KNOWN);
        for old in kv::recalled::due_before(&*self.kv, known_from, FORGOTTEN_AT_ONCE)? {
            kv::recalled::delete(&mut self.change.batch, old);
        }
        let timer = c.timer;
        let outcome = match self.timers.recall(&*self.kv, &mut self.change.batch, timer, topic)? {
            Waiting::Recalled(timer) => {
                self.retained.release(topic, timer.position, timer.len.into());
                RecallOutcome::Done
            }
            Waiting::OfAnotherTopic => RecallOutcome::Unknown,
            // What is forgotten must look the same whether it was deleted already or not.
            Waiting::No if timer.due < known_from => RecallOutcome::Unknown,
            Waiting::No => match self.timers.recalled(&*self.kv, timer)? {
                Some(of) if of == topic => RecallOutcome::Done,
                Some(_) => RecallOutcome::Unknown,
                None if timer.due <= at.stamp && self.timers.was_set(timer.number) => {
                    RecallOutcome::Delivered
                }
                None => RecallOutcome::Unknown,
            },
        };
        Ok(Outcome::Recalled(outcome))
    }
}

#[cfg(test)]
mod tests {
    use proto::{QueueId, QueueOffset, Timestamp};

    use super::super::script::{Script, config, delayed, message, put_topic, topic};
    use super::*;
    use crate::command::{Command, TimerId};
    use crate::kv::{Family, Kv as _};

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn queue_len(script: &Script) -> usize {
        script.state.scan(&topic(), QueueId(0), QueueOffset(0), 9).unwrap().len()
    }

    #[test]
    fn a_recalled_message_never_appears() {
        let mut script = Script::with_queues(1);
        script.delays(&[delayed(500, message("m")), delayed(500, message("n"))]);
        assert_eq!(script.recalls(500, 0), RecallOutcome::Done);
        assert_eq!(script.recalls(500, 0), RecallOutcome::Done, "again");
        assert_eq!(script.at(900).fires(9), [500]);
        let mut script = script.restarted();
        assert_eq!(queue_len(&script), 1);
        assert_eq!(script.recalls(500, 0), RecallOutcome::Done, "after its time");
        assert_eq!(script.recalls(500, 1), RecallOutcome::Delivered);
    }

    #[test]
    fn a_message_that_is_due_is_recalled_until_it_fires() {
        let mut script = Script::with_queues(1);
        script.delays(&[delayed(500, message("m"))]);
        assert_eq!(script.at(600).recalls(500, 0), RecallOutcome::Done);
        assert!(script.fires(9).is_empty());
        assert_eq!(queue_len(&script), 0);
    }

    #[test]
    fn what_never_was_is_unknown() {
        let mut script = Script::with_queues(1);
        script.does(put_topic("others", config(1, 1)));
        script.delays(&[delayed(500, message("m"))]);
        assert_eq!(script.recalls(500, 1), RecallOutcome::Unknown, "no such number");
        assert_eq!(script.recalls(501, 0), RecallOutcome::Unknown, "another time");
        let other = "others".parse().unwrap();
        let timer = TimerId { due: Timestamp(500), number: 0 };
        let foreign = Command::Recall(Recall { topic: other, timer });
        assert_eq!(script.does(foreign), Outcome::Recalled(RecallOutcome::Unknown));
        assert_eq!(script.at(500).fires(9), [500], "none of them did anything");
        let nowhere = Recall { topic: "nowhere".parse().unwrap(), timer };
        let rejected = Outcome::Rejected(Rejection::TopicNotFound);
        assert_eq!(script.does(Command::Recall(nowhere)), rejected);
    }

    #[test]
    fn a_day_after_its_time_nobody_remembers() {
        let mut script = Script::with_queues(1);
        script.delays(&[delayed(500, message("m")), delayed(500, message("n"))]);
        script.recalls(500, 0);
        script.at(500).fires(9);
        assert_eq!(script.at(500 + DAY).recalls(500, 0), RecallOutcome::Done);
        assert_eq!(script.recalls(500, 1), RecallOutcome::Delivered);
        assert_eq!(script.at(501 + DAY).recalls(500, 0), RecallOutcome::Unknown);
        assert_eq!(script.recalls(500, 1), RecallOutcome::Unknown);
        // The store does not keep what was forgotten.
        let id = TimerId { due: Timestamp(500), number: 0 };
        let kv = script.kv();
        assert_eq!(kv::recalled::get(&*kv, id).unwrap(), None);
        assert!(kv.get(Family::State, &[0x19]).unwrap().is_some());
    }
}
