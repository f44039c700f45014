//! Messages are carried forward: what refers to them follows, so that the segment in which they
//! were can go. Nobody can tell that it happened.

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset};

use super::{QueueEntry, State};
use crate::command::{Carry, Outcome, Reference};
use crate::kv::{self, TopicId, consume_queue};

impl State {
    /// `end` is where the command ends in the log: the messages are its last bytes.
    pub(super) fn carry(&mut self, c: &Carry, end: LogOffset) -> Result<Outcome, kv::Error> {
        let bytes: u64 = c.messages.iter().map(|m| m.bytes.len() as u64).sum();
        let mut to = LogOffset(end.0 - bytes);
        let (mut references, mut carried) = (0, 0);
        for message in &c.messages {
            let len = u32::try_from(message.bytes.len()).expect("a message is below 4 GiB");
            let mut moved = 0;
            for reference in &message.references {
                let of = self.move_reference(reference, (message.from, len), to)?;
                if let Some(topic) = of {
                    self.retained.release(topic, message.from, len.into());
                    self.retained.add(topic, to, 1, len.into());
                    moved += 1;
                }
            }
            if moved > 0 {
                carried += u64::from(len);
            }
            references += moved;
            to = to + u64::from(len);
        }
        self.retained.carried(carried);
        Ok(Outcome::Carried { references, bytes: carried })
    }

    /// The topic of the reference, if it still points to where the message was, and to all of it.
    fn move_reference(
        &mut self,
        reference: &Reference,
        from: (LogOffset, u32),
        to: LogOffset,
    ) -> Result<Option<TopicId>, kv::Error> {
        match reference {
            Reference::Entry { topic, queue, offset } => {
                let Some(topic) = self.topics.id(topic) else { return Ok(None) };
                self.move_entry((topic, *queue, *offset), from, to)
            }
            Reference::Timer(id) => {
                let of = self.timers.carry(&*self.kv, &mut self.change.batch, *id, from, to)?;
                // A timer outlives its topic, and then refers to nothing.
                Ok(of.filter(|topic| self.topics.find_id(*topic).is_some()))
            }
            Reference::Half(number) => {
                let half = self.transactions.get(*number);
                let here = half.is_some_and(|half| (half.position, half.len) == from);
                if !here {
                    return Ok(None);
                }
                let half = self.transactions.update(*number, |half| half.position = to);
                kv::half::put(&mut self.change.batch, *number, &half);
                Ok(Some(half.topic))
            }
        }
    }

    fn move_entry(
        &mut self,
        (topic, queue, offset): (TopicId, QueueId, QueueOffset),
        from: (LogOffset, u32),
        to: LogOffset,
    ) -> Result<Option<TopicId>, kv::Error> {
        let head = self.topics.get(topic).head(queue).copied();
        let Some(head) = head.filter(|head| head.min <= offset && offset < head.max) else {
            return Ok(None);
        };
        let entry = self.entries_at(topic, queue, &[offset])?[0];
        if (entry.position, entry.len) != from {
            return Ok(None);
        }
        self.tails.carry(topic, queue, head.max.0 - offset.0 - 1, to);
        self.change.moved.insert((topic, queue, offset), to);
        Ok(Some(topic))
    }

    /// Entries that were read from the store lie where they were carried to since.
    pub(super) fn follow_carried(
        &self,
        topic: TopicId,
        queue: QueueId,
        entries: &mut [QueueEntry],
    ) {
        if self.change.moved.is_empty() {
            return;
        }
        for entry in entries {
            if let Some(position) = self.change.moved.get(&(topic, queue, entry.offset)) {
                entry.position = *position;
            }
        }
    }

    /// Carried entries that the store has already are written anew; the others are written with
    /// the queues that grew.
    pub(super) fn write_moved_entries(&mut self) -> Result<(), kv::Error> {
        let mut moved: Vec<_> = Vec::with_capacity(self.change.moved.len());
        for ((topic, queue, offset), to) in &self.change.moved {
            // Its topic is there; the queue may have been closed and the entry may have expired.
            let head = self.topics.get(*topic).head(*queue).filter(|head| head.min <= *offset);
            let stored = self.change.grown.get(&(*topic, *queue)).is_none_or(|end| offset < end);
            if head.is_some() && stored {
                moved.push(((*topic, *queue), (*offset, *to)));
            }
        }
        for of_queue in moved.chunk_by(|a, b| a.0 == b.0) {
            let place = of_queue[0].0;
            let offsets: Vec<_> = of_queue.iter().map(|(_, moved)| *moved).collect();
            let mut left = &offsets[..];
            while !left.is_empty() {
                let done = consume_queue::carry(&*self.kv, &mut self.change.batch, place, left)?;
                left = &left[done..];
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::Timestamp;

    use super::super::script::{Script, delayed, group, handle, message, topic};
    use super::*;
    use crate::command::{
        CarriedMessage, Command, DeadLetter, DeleteTopic, Expire, NewMessage, Verdict,
    };

    fn entry(offset: u64) -> Reference {
        Reference::Entry { topic: topic(), queue: QueueId(0), offset: QueueOffset(offset) }
    }

    fn carried(from: u64, references: Vec<Reference>, body: &'static str) -> CarriedMessage {
        let bytes = Bytes::from_static(body.as_bytes());
        CarriedMessage { from: LogOffset(from), references, bytes }
    }

    fn carries(script: &mut Script, messages: Vec<CarriedMessage>) -> (u32, u64) {
        match script.does(Command::Carry(Carry { messages })) {
            Outcome::Carried { references, bytes } => (references, bytes),
            other => panic!("{other:?}"),
        }
    }

    fn entries(script: &Script) -> Vec<QueueEntry> {
        script.state.scan(&topic(), QueueId(0), QueueOffset(0), 99).unwrap()
    }

    #[test]
    fn entries_move_and_keep_everything_else() {
        let mut script = Script::with_queues(1);
        let keyed = NewMessage { key_hashes: vec![7], tag_hash: 3, ..message("hello") };
        script.at(5).appends(0, &[keyed, message("world")]);
        let before = entries(&script);
        assert_eq!(script.state.floor(), LogOffset(1000));
        let plan = vec![carried(before[0].position.0, vec![entry(0)], "hello")];
        assert_eq!(carries(script.at(9), plan.clone()), (1, 5));
        assert_eq!(carries(&mut script, plan), (0, 0), "it lies there no more");
        let after = entries(&script);
        assert_eq!(after[1], before[1]);
        assert_eq!(after[0].position.0 / 1000, 2);
        assert_eq!(after[0], QueueEntry { position: after[0].position, ..before[0] });
        assert_eq!(script.state.floor(), LogOffset(1000), "the other one is there");

        let mut script = script.restarted();
        assert_eq!(entries(&script), after);
        let plan = vec![carried(before[1].position.0, vec![entry(1)], "world")];
        assert_eq!(carries(&mut script, plan), (1, 5));
        assert_eq!(script.state.floor(), LogOffset(2000));
        let found = script.state.find_by_key(&topic(), 7, 9).unwrap();
        assert_eq!(found, [(QueueId(0), QueueOffset(0))]);
        assert_eq!(script.restarted().state.kept().carried_bytes, 10);
    }

    #[test]
    fn a_body_moves_once_for_all_that_refer_to_it() {
        let mut script = Script::with_messages(1);
        let held = script.pops_range(0..1);
        let dead = DeadLetter { group: group(), topic: topic(), handle: handle(&held[0]) };
        script.does(Command::DeadLetter(dead));
        let from = entries(&script)[0].position;
        let graves: proto::Topic = "%DLQ%audit".parse().unwrap();
        let grave =
            Reference::Entry { topic: graves.clone(), queue: QueueId(0), offset: QueueOffset(0) };
        let plan = vec![carried(from.0, vec![entry(0), grave], "hello")];
        assert_eq!(carries(&mut script, plan), (2, 5));
        let script = script.restarted();
        let dead = script.state.entry(&graves, QueueId(0), QueueOffset(0)).unwrap().unwrap();
        assert_eq!(dead.position, entries(&script)[0].position);
        assert_ne!(dead.position, from);
        let expire = Expire { topic: topic(), queue: QueueId(0), to: QueueOffset(1) };
        let mut script = script;
        script.does(Command::Expire(expire));
        assert_eq!(script.state.floor(), LogOffset(dead.position.0 / 1000 * 1000));
        script.does(Command::Expire(Expire {
            topic: graves,
            queue: QueueId(0),
            to: QueueOffset(1),
        }));
        assert!(script.state.floor() > dead.position, "nothing is left");
    }

    #[test]
    fn timers_and_half_messages_move_too() {
        let mut script = Script::with_queues(1);
        script.delays(&[delayed(500, message("later"))]);
        let number = script.appends_half(message("half"));
        let page = script.state.timer_page(
            &topic(),
            crate::command::TimerId { due: Timestamp(0), number: 0 },
            9,
            9,
        );
        let timer = page.unwrap().timers[0];
        let half = script.state.transaction(number).unwrap().position;
        let plan = vec![
            carried(timer.position.0, vec![Reference::Timer(timer.timer)], "later"),
            carried(half.0, vec![Reference::Half(number)], "half"),
        ];
        assert_eq!(carries(&mut script, plan), (2, 9));
        let digest = script.state.digest();
        let mut script = script.restarted();
        assert_eq!(script.state.digest(), digest);
        assert_eq!(script.state.floor(), LogOffset(3000));
        assert_eq!(script.at(500).fires(9), [500]);
        script.ends(number, Verdict::Commit);
        let places: Vec<_> =
            entries(&script).iter().map(|e| (e.position.0 / 1000, e.len)).collect();
        assert_eq!(places, [(3, 5), (3, 4)]);
        script.does(Command::DeleteTopic(DeleteTopic { topic: topic() }));
        assert_eq!(script.restarted().state.kept().segments, 0);
    }

    #[test]
    fn what_is_gone_is_not_carried() {
        let mut script = Script::with_messages(3);
        let at: Vec<_> = entries(&script).iter().map(|e| e.position.0).collect();
        let expire = Expire { topic: topic(), queue: QueueId(0), to: QueueOffset(1) };
        script.does(Command::Expire(expire));
        let unknown = Reference::Entry {
            topic: "unknown".parse().unwrap(),
            queue: QueueId(0),
            offset: QueueOffset(2),
        };
        let no_queue =
            Reference::Entry { topic: topic(), queue: QueueId(1), offset: QueueOffset(2) };
        let plan = vec![
            carried(at[0], vec![entry(0)], "hello"),
            carried(at[2], vec![unknown, no_queue, entry(3), entry(2)], "hello"),
            carried(at[1], vec![entry(1)], "hell"),
            carried(at[1], vec![Reference::Half(9), Reference::Half(0)], "hello"),
        ];
        assert_eq!(carries(&mut script, plan), (1, 5));
    }
}
