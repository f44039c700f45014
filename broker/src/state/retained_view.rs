//! What the leader asks about what is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp, Topic};

use super::State;
use crate::command::{Reference, TimerId};
use crate::kv::retained::Live;
use crate::kv::{self, TopicId};

/// How much of the log is kept, and what for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Nothing that is kept lies below.
    pub floor: LogOffset,
    /// Where the segment begins in which the last command ended.
    pub end: LogOffset,
    /// Bytes of a segment.
    pub segment: u64,
    /// Segments that something refers into.
    pub segments: usize,
    /// Messages that are kept, and their bytes. One that is in two queues counts twice.
    pub messages: u64,
    pub bytes: u64,
    /// When the oldest segment that is kept began, in log time.
    pub since: Option<Timestamp>,
    /// Bytes of messages carried forward since the broker group exists.
    pub carried_bytes: u64,
}

/// Where a message lies, and one of those that refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lying {
    pub position: LogOffset,
    pub len: u32,
    pub reference: Reference,
}

/// How far a walk over everything that refers into a segment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Walk {
    /// Half messages after this one.
    Half(u64),
    /// Entries of a queue from an offset on, then those of the queues and topics after it.
    Entry(TopicId, QueueId, QueueOffset),
    /// Timers from this one on.
    Timer(TimerId),
    Done,
}

impl Walk {
    pub const BEGIN: Self = Self::Half(0);
    const TIMERS: Self = Self::Timer(TimerId { due: Timestamp(0), number: 0 });
}

impl State {
    /// Nothing that this state may still read of the log lies below. Never goes back; the same on
    /// all replicas that applied the same.
    #[must_use]
    pub fn floor(&self) -> LogOffset {
        self.retained.floor()
    }

    /// Looks at every segment.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let (floor, mark) = (self.retained.floor(), self.retained.mark());
        let none = Kept {
            floor,
            end: mark.end,
            segment: mark.segment,
            since: self.retained.started(floor),
            carried_bytes: mark.carried,
            ..Kept::default()
        };
        self.retained.segments().fold(none, |kept, (_, live)| Kept {
            segments: kept.segments + 1,
            messages: kept.messages + live.references,
            bytes: kept.bytes + live.bytes,
            ..kept
        })
    }

    /// Segments that something refers into, oldest first, with what does.
    pub fn live_segments(&self) -> impl Iterator<Item = (LogOffset, Live)> {
        self.retained.segments()
    }

    /// When the segment at `base` began, or the first one after it.
    #[must_use]
    pub fn segment_started(&self, base: LogOffset) -> Option<Timestamp> {
        self.retained.started(base)
    }

    /// What refers to messages of a topic: entries of its queues, timers, half messages.
    #[must_use]
    pub fn kept_of(&self, topic: &Topic) -> Live {
        self.topics.id(topic).map(|id| self.retained.of_topic(id)).unwrap_or_default()
    }

    /// Up to where a queue holds only messages that entered it before `since`, looking at its first
    /// `most` messages; `None` when there are none such. What is next may be of the same age.
    ///
    /// # Errors
    /// The store failed.
    pub fn older_than(
        &self,
        topic: &Topic,
        queue: QueueId,
        since: Timestamp,
        most: u64,
    ) -> Result<Option<QueueOffset>, kv::Error> {
        let Some((id, known)) = self.topics.find(topic) else { return Ok(None) };
        let Some(head) = known.head(queue) else { return Ok(None) };
        let (mut low, mut high) = (head.min.0, head.max.0.min(head.min.0.saturating_add(most)));
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entries_at(id, queue, &[QueueOffset(middle)])?[0];
            match entry.visible < since {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok((head.min.0 < low).then_some(QueueOffset(low)))
    }

    /// Up to where the queues of a topic must go so that at least `excess` bytes of messages do,
    /// the oldest first; of `most` messages at most.
    ///
    /// # Errors
    /// The store failed.
    pub fn oldest_of(
        &self,
        topic: &Topic,
        excess: u64,
        most: usize,
    ) -> Result<Vec<(QueueId, QueueOffset)>, kv::Error> {
        /// Entries read from a queue at a time.
        const PAGE: usize = 64;
        let Some((id, known)) = self.topics.find(topic) else { return Ok(vec![]) };
        let read = |queue, from| self.entries(id, queue, from, PAGE).map(VecDeque::from);
        let mut pages = BTreeMap::new();
        let mut oldest = BTreeSet::new();
        for queue in (0..known.readable()).map(QueueId) {
            let page = read(queue, QueueOffset(0))?;
            if let Some(first) = page.front() {
                oldest.insert((first.visible, queue));
                pages.insert(queue, page);
            }
        }
        let (mut gone, mut to) = (0, BTreeMap::new());
        for _ in 0..most {
            let Some((_, queue)) = oldest.pop_first().filter(|_| gone < excess) else { break };
            let page = pages.get_mut(&queue).expect("it has an oldest message");
            let entry = page.pop_front().expect("it has an oldest message");
            gone += u64::from(entry.len);
            to.insert(queue, entry.offset.next());
            if page.is_empty() {
                *page = read(queue, entry.offset.next())?;
            }
            if let Some(next) = page.front() {
                oldest.insert((next.visible, queue));
            }
        }
        Ok(to.into_iter().collect())
    }

    /// The oldest segment, if so little of it is kept that it is worth while to store that again:
    /// less than one part in `share`, and the same for the segment after it, because what is left
    /// of one segment alone is about to expire. `pressed` waits for no other segment.
    #[must_use]
    pub fn worth_carrying(&self, share: u64, pressed: bool) -> Option<(LogOffset, Live)> {
        let (segment, end) = (self.retained.segment(), self.retained.mark().end);
        let mut segments = self.retained.segments();
        let (base, live) = segments.next()?;
        let is_little = |live: Live| live.bytes.saturating_mul(share) < segment;
        let next = LogOffset(base.0.saturating_add(segment));
        let after = segments.next().filter(|(after, _)| *after == next).map(|(_, live)| live);
        // The last segment still grows, and what is stored again goes there.
        let alone = next < end && after.is_none_or(is_little);
        (base < end && is_little(live) && (alone || pressed)).then_some((base, live))
    }

    /// Transactions that were given up before `until(topic)`, at most `most`.
    pub fn parked_before(
        &self,
        most: usize,
        until: impl Fn(&Topic) -> Option<Timestamp>,
    ) -> Vec<u64> {
        let old = self.transactions.iter().filter(|(_, half)| {
            let until = until(self.topics.get(half.topic).name());
            half.parked && until.is_some_and(|until| half.next_check < until)
        });
        old.map(|(number, _)| number).take(most).collect()
    }

    /// Walks over what may refer into the segment at `base` and returns what does, looking at
    /// about `most` things; where to go on.
    ///
    /// # Errors
    /// The store failed.
    pub fn lying_in(
        &self,
        base: LogOffset,
        from: Walk,
        most: usize,
    ) -> Result<(Vec<Lying>, Walk), kv::Error> {
        let mut found = Vec::new();
        let next = match from {
            Walk::Half(after) => self.halves_in(base, after, most, &mut found),
            Walk::Entry(topic, queue, offset) => {
                self.entries_in(base, (topic, queue, offset), most, &mut found)?
            }
            Walk::Timer(from) => self.timers_in(base, from, most, &mut found)?,
            Walk::Done => Walk::Done,
        };
        Ok((found, next))
    }

    fn is_in(&self, base: LogOffset, position: LogOffset) -> bool {
        base <= position && position < base + self.retained.segment()
    }

    fn halves_in(&self, base: LogOffset, after: u64, most: usize, found: &mut Vec<Lying>) -> Walk {
        let mut last = None;
        for (number, half) in self.transactions.after(after).take(most) {
            last = Some(number);
            if self.is_in(base, half.position) {
                let (position, len) = (half.position, half.len);
                found.push(Lying { position, len, reference: Reference::Half(number) });
            }
        }
        match last {
            Some(last) => Walk::Half(last),
            None => self.next_topic(base, TopicId(0)),
        }
    }

    /// The first topic from this one on that refers into the segment.
    fn next_topic(&self, base: LogOffset, from: TopicId) -> Walk {
        let topic = self.retained.topics_of(base).map(|(topic, _)| topic).find(|id| from <= *id);
        match topic {
            Some(topic) => Walk::Entry(topic, QueueId(0), QueueOffset(0)),
            None => Walk::TIMERS,
        }
    }

    fn entries_in(
        &self,
        base: LogOffset,
        (id, queue, offset): (TopicId, QueueId, QueueOffset),
        most: usize,
        found: &mut Vec<Lying>,
    ) -> Result<Walk, kv::Error> {
        let after = |id: TopicId| self.next_topic(base, TopicId(id.0.saturating_add(1)));
        let Some(topic) = self.topics.find_id(id) else { return Ok(after(id)) };
        let Some(head) = topic.head(queue) else { return Ok(after(id)) };
        let offset = offset.max(head.min);
        let entries = self.entries(id, queue, offset, most)?;
        let next = QueueOffset(offset.0 + entries.len() as u64);
        for entry in entries {
            if self.is_in(base, entry.position) {
                let reference =
                    Reference::Entry { topic: topic.name().clone(), queue, offset: entry.offset };
                found.push(Lying { position: entry.position, len: entry.len, reference });
            }
        }
        Ok(match next < head.max {
            true => Walk::Entry(id, queue, next),
            false => Walk::Entry(id, QueueId(queue.0 + 1), QueueOffset(0)),
        })
    }

    fn timers_in(
        &self,
        base: LogOffset,
        from: TimerId,
        most: usize,
        found: &mut Vec<Lying>,
    ) -> Result<Walk, kv::Error> {
        let (mut left, mut next) = (most, Walk::Done);
        kv::timer::scan(&*self.kv, from, |id, timer| {
            if left == 0 {
                next = Walk::Timer(id);
                return ControlFlow::Break(());
            }
            left -= 1;
            let wanted = self.topics.find_id(timer.topic).is_some();
            if wanted && self.is_in(base, timer.position) {
                let (position, len) = (timer.position, timer.len);
                found.push(Lying { position, len, reference: Reference::Timer(id) });
            }
            ControlFlow::Continue(())
        })?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, delayed, message, topic};
    use super::*;

    #[test]
    fn the_oldest_go_first_whatever_their_queue() {
        let mut script = Script::with_queues(2);
        for n in 0..200 {
            script.at(n).appends(u32::from(n % 3 == 0), &[message("12345")]);
        }
        let oldest = |excess| script.state.oldest_of(&topic(), excess, 150).unwrap();
        let at = |queue, offset| (QueueId(queue), QueueOffset(offset));
        assert_eq!(oldest(0), []);
        assert_eq!(oldest(1), [at(1, 1)]);
        assert_eq!(oldest(11), [at(0, 2), at(1, 1)]);
        assert_eq!(oldest(9999), [at(0, 100), at(1, 50)], "no more than was asked for");
        let older = |since, most| {
            script.state.older_than(&topic(), QueueId(1), Timestamp(since), most).unwrap()
        };
        assert_eq!(older(0, 9), None);
        assert_eq!(older(7, 99), Some(QueueOffset(3)));
        assert_eq!(older(7, 2), Some(QueueOffset(2)));
        assert_eq!(older(999, 999), Some(QueueOffset(67)));
    }

    #[test]
    fn little_is_carried_when_the_next_segment_has_little_too() {
        let mut script = Script::with_queues(1);
        script.appends(0, &[message("first")]);
        let worth = |script: &Script, pressed| script.state.worth_carrying(5, pressed);
        assert_eq!(worth(&script, true), None, "it still grows");
        script.appends(0, &[message("second")]);
        let live = Live { references: 1, bytes: 5 };
        assert_eq!(worth(&script, false), None, "the next one still grows");
        assert_eq!(worth(&script, true), Some((LogOffset(1000), live)));
        script.appends(0, &[message("third")]);
        assert_eq!(worth(&script, false), Some((LogOffset(1000), live)));
        assert_eq!(script.state.worth_carrying(200, true), None, "it is a 200th");
        assert_eq!(script.state.worth_carrying(190, false), None, "six are more than a 190th");
        assert!(script.state.worth_carrying(190, true).is_some());
    }

    #[test]
    fn a_walk_finds_what_is_counted() {
        let mut script = Script::with_queues(2);
        script.appends(1, &[message("a"), message("b")]);
        script.delays(&[delayed(500, message("later"))]);
        script.appends(0, &[message("c"), message("d")]);
        script.appends_half(message("half"));
        let script = script.restarted();
        let state = &script.state;
        for (base, live) in state.live_segments() {
            for most in [1, 2, 99] {
                let (mut all, mut walk, mut steps) = (vec![], Walk::BEGIN, 0);
                while walk != Walk::Done {
                    let (found, next) = state.lying_in(base, walk, most).unwrap();
                    all.extend(found);
                    assert!(walk < next, "{walk:?} {next:?}");
                    walk = next;
                    steps += 1;
                    assert!(steps < 99);
                }
                assert_eq!(all.len() as u64, live.references);
                assert_eq!(all.iter().map(|l| u64::from(l.len)).sum::<u64>(), live.bytes);
            }
        }
        let kept = state.kept();
        assert_eq!((kept.floor, kept.end), (LogOffset(1000), LogOffset(4000)));
        assert_eq!((kept.segments, kept.messages, kept.bytes), (4, 6, 13));
        assert_eq!(state.kept_of(&topic()).references, 6);
    }
}
