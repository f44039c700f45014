//! Which messages to propose for a receive call: the leader looks, the log decides.
//!
//! Deliveries whose invisible duration ended come first, the longest ago before others, then what
//! is new, queue by queue, until the batch is full. Messages that the filter does not want are part of the range: they count as
//! consumed. Knows no clock and no lock.

use std::collections::{BTreeMap, HashMap};

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset, Timestamp};

use crate::{
    Error,
    command::{Again, Pick},
    delivery::{Marked, Marks},
    filter::{Sieve, Verdict},
    state::QueueEntry,
};

/// A message's entry in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offset: QueueOffset,
    /// Where the message lies in the log.
    pub(crate) position: LogOffset,
    pub(crate) len: u32,
    pub(crate) tag_hash: u64,
    /// Log time of its append.
    pub(crate) stamp: Timestamp,
}

impl Entry {
    pub(crate) fn of(entry: &QueueEntry) -> Self {
        let QueueEntry { offset, position, len, tag_hash, visible } = *entry;
        Entry { offset, position, len, tag_hash, stamp: visible }
    }
}

/// A delivery that ended without an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) queue: QueueId,
    pub(crate) entry: Entry,
    pub(crate) delivery: u64,
}

/// The queues of one topic as one consumer group sees them.
pub(crate) trait Queues {
    /// Queues that may hold something new, `first` before others.
    fn backlogged(&self, first: QueueId) -> Box<dyn Iterator<Item = QueueId> + '_>;
    /// Where the group's progress stands.
    fn next(&self, queue: QueueId) -> QueueOffset;
    /// Up to `most` entries from an offset on.
    fn entries(&self, queue: QueueId, from: QueueOffset, most: usize) -> Result<Vec<Entry>, Error>;
    /// Up to `most` deliveries that ended at or before `now`, the longest ago first.
    fn overdue(&self, now: Timestamp, most: usize) -> Result<Vec<Overdue>, Error>;
}

/// What a receive call wants.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// Looked at first.
    pub(crate) first: QueueId,
    /// Messages at most.
    pub(crate) messages: usize,
    /// Bytes at most, after the first message.
    pub(crate) bytes: u64,
    /// Which messages.
    pub(crate) sieve: Sieve<'a>,
    pub(crate) now: Timestamp,
}

/// What to propose.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    picks: BTreeMap<QueueId, Pick>,
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
    /// As much as was wished for.
    pub(crate) full: bool,
    /// There may be more for others.
    pub(crate) more: bool,
    /// There is something that the sieve says nothing about.
    pub(crate) unknown: bool,
    /// When each message was stored.
    pub(crate) stamps: HashMap<(QueueId, QueueOffset), Timestamp>,
}

/// Entries looked at in one queue for one call. What lies behind is found by the next.
const ENTRIES_LOOKED_AT: usize = 1024;
/// Queues that one command takes from.
const QUEUES_TAKEN_FROM: usize = 256;

/// Looks at what there is. An empty plan: nothing to be had now.
pub(crate) fn plan(queues: &impl Queues, marks: &Marks, wish: &Wish<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    plan.take_overdue(queues, marks, wish)?;
    if plan.full {
        return Ok(plan);
    }
    for queue in queues.backlogged(wish.first) {
        let from = marks.fresh_from(queue, queues.next(queue));
        plan.take_fresh(queue, from, queues, wish)?;
        plan.more |= plan.picks.len() >= QUEUES_TAKEN_FROM;
        if plan.full || plan.more {
            break;
        }
    }
    Ok(plan)
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// What to mark while the proposal is on its way.
    pub(crate) fn marked(&self) -> Vec<(QueueId, Marked)> {
        let mark = |pick: &Pick| Marked {
            fresh_to: (pick.from < pick.to).then_some(pick.to),
            again: pick.again.iter().map(|again| again.offset).collect(),
        };
        self.picks.iter().map(|(queue, pick)| (*queue, mark(pick))).collect()
    }

    /// What to put into the command.
    pub(crate) fn take_picks(&mut self) -> Vec<Pick> {
        std::mem::take(&mut self.picks).into_values().collect()
    }

    fn take_overdue(
        &mut self,
        queues: &impl Queues,
        marks: &Marks,
        wish: &Wish<'_>,
    ) -> Result<(), Error> {
        for overdue in queues.overdue(wish.now, wish.messages + marks.again_count())? {
            let Overdue { queue, entry, delivery } = overdue;
            if self.full {
                break;
            }
            if !marks.is_marked_again(queue, entry.offset) {
                self.count(queue, &entry, wish);
                let again = Again { offset: entry.offset, delivery };
                self.pick(queue, queues.next(queue)).again.push(again);
            }
        }
        Ok(())
    }

    /// The part of the command for a queue, empty at first: nothing new from `at` on.
    fn pick(&mut self, queue: QueueId, at: QueueOffset) -> &mut Pick {
        self.picks.entry(queue).or_insert_with(|| Pick {
            queue,
            from: at,
            to: at,
            fresh: Vec::new(),
            again: Vec::new(),
        })
    }

    fn take_fresh(
        &mut self,
        queue: QueueId,
        from: QueueOffset,
        queues: &impl Queues,
        wish: &Wish<'_>,
    ) -> Result<(), Error> {
        let most = match wish.sieve.takes_all() {
            true => wish.messages - self.messages,
            false => ENTRIES_LOOKED_AT,
        };
        let mut to = from;
        let mut fresh = Vec::new();
        let entries = queues.entries(queue, from, most)?;
        self.more |= entries.len() == ENTRIES_LOOKED_AT;
        for entry in entries {
            if self.full {
                break;
            }
            match wish.sieve.verdict(entry.position, entry.tag_hash) {
                Verdict::Unwanted => (),
                Verdict::Wanted => {
                    self.count(queue, &entry, wish);
                    fresh.push(entry.offset);
                }
                // What lies behind waits for its turn.
                Verdict::Unknown => {
                    self.unknown = true;
                    self.more = true;
                    break;
                }
            }
            to = entry.offset.next();
        }
        if from < to {
            let pick = self.pick(queue, from);
            (pick.from, pick.to, pick.fresh) = (from, to, fresh);
        }
        Ok(())
    }

    pub(super) fn count(&mut self, queue: QueueId, entry: &Entry, wish: &Wish<'_>) {
        self.messages += 1;
        self.bytes += u64::from(entry.len);
        self.full = self.messages >= wish.messages || self.bytes >= wish.bytes;
        self.more |= self.full;
        self.stamps.insert((queue, entry.offset), entry.stamp);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{delivery::Lane, filter::Verdicts};

    /// Two queues of messages whose tag hash is their offset modulo 3.
    struct Fake {
        lengths: [u64; 2],
        next: [u64; 2],
        overdue: Vec<(u32, u64)>,
    }

    fn entry(offset: u64) -> Entry {
        let stamp = Timestamp(1000 + offset);
        let position = LogOffset(1000 + offset);
        Entry { offset: QueueOffset(offset), position, len: 100, tag_hash: offset % 3, stamp }
    }

    impl Queues for Fake {
        fn backlogged(&self, first: QueueId) -> Box<dyn Iterator<Item = QueueId> + '_> {
            let order = (0..2).map(move |step| (first.0 + step) % 2);
            let behind = |queue: &u32| {
                let place = *queue as usize;
                self.next[place] < self.lengths[place]
            };
            Box::new(order.filter(behind).map(QueueId))
        }

        fn next(&self, queue: QueueId) -> QueueOffset {
            QueueOffset(self.next[queue.0 as usize])
        }

        fn entries(
            &self,
            queue: QueueId,
            from: QueueOffset,
            most: usize,
        ) -> Result<Vec<Entry>, Error> {
            Ok((from.0..self.lengths[queue.0 as usize]).take(most).map(entry).collect())
        }

        fn overdue(&self, _: Timestamp, most: usize) -> Result<Vec<Overdue>, Error> {
            let overdue = |(queue, at): &(u32, u64)| Overdue {
                queue: QueueId(*queue),
                entry: entry(*at),
                delivery: 7,
            };
            Ok(self.overdue.iter().map(overdue).take(most).collect())
        }
    }

    fn wish(messages: usize) -> Wish<'static> {
        Wish { first: QueueId(0), messages, bytes: u64::MAX, sieve: Sieve::All, now: Timestamp(0) }
    }

    fn offsets(pick: &Pick) -> Vec<u64> {
        pick.fresh.iter().map(|offset| offset.0).collect()
    }

    fn look(queues: &Fake, marks: &Marks, wish: &Wish<'_>) -> (Plan, Vec<Pick>) {
        let mut plan = plan(queues, marks, wish).expect("readable");
        let picks = plan.take_picks();
        (plan, picks)
    }

    #[test]
    fn a_batch_is_filled_from_queue_after_queue() {
        let queues = Fake { lengths: [3, 9], next: [1, 0], overdue: Vec::new() };
        let (plan, picks) = look(&queues, &Marks::default(), &wish(4));
        assert_eq!(plan.messages, 4);
        assert!(plan.full);
        assert_eq!(offsets(&picks[0]), [1, 2]);
        assert_eq!(offsets(&picks[1]), [0, 1]);
        assert_eq!(picks[1].to, QueueOffset(2));
        assert_eq!(plan.stamps[&(QueueId(0), QueueOffset(2))], Timestamp(1002));
    }

    #[test]
    fn the_queue_asked_for_comes_first_and_the_others_after_it() {
        let queues = Fake { lengths: [5, 1], next: [0, 0], overdue: Vec::new() };
        let (_, picks) = look(&queues, &Marks::default(), &Wish { first: QueueId(1), ..wish(3) });
        assert_eq!(offsets(&picks[1]), [0], "all of queue 1");
        assert_eq!(offsets(&picks[0]), [0, 1], "and of queue 0 what there was room for");
    }

    #[test]
    fn what_the_filter_does_not_want_is_part_of_the_range() {
        let queues = Fake { lengths: [7, 0], next: [0, 0], overdue: Vec::new() };
        let wish = Wish { sieve: Sieve::Tags(&[2]), ..wish(10) };
        let (plan, picks) = look(&queues, &Marks::default(), &wish);
        assert_eq!(offsets(&picks[0]), [2, 5]);
        assert_eq!((picks[0].from.0, picks[0].to.0), (0, 7));
        assert!(!plan.full);
    }

    #[test]
    fn what_was_not_judged_is_neither_handed_out_nor_passed_over() {
        let queues = Fake { lengths: [7, 0], next: [0, 0], overdue: Vec::new() };
        let mut verdicts = Verdicts::default();
        [(0, true), (1, false), (3, true)]
            .into_iter()
            .for_each(|(offset, wanted)| verdicts.add(LogOffset(1000 + offset), wanted));
        let wish = Wish { sieve: Sieve::Judged(&verdicts), ..wish(10) };
        let (plan, picks) = look(&queues, &Marks::default(), &wish);
        assert_eq!(offsets(&picks[0]), [0]);
        assert_eq!((picks[0].from.0, picks[0].to.0), (0, 2));
        assert!(plan.unknown && plan.more && !plan.full);

        let queues = Fake { next: [2, 0], ..queues };
        let (plan, picks) = look(&queues, &Marks::default(), &wish);
        assert!(plan.unknown && picks.is_empty());
    }

    #[test]
    fn repeats_come_first_unless_somebody_proposed_them() {
        let queues = Fake { lengths: [9, 0], next: [6, 0], overdue: vec![(0, 3), (0, 4)] };
        let lane = Arc::<Lane>::default();
        let marked = Marked { fresh_to: Some(QueueOffset(8)), again: vec![QueueOffset(3)] };
        let _held = lane.reserve(&mut lane.lock(), vec![(QueueId(0), marked)]);
        let (_, picks) = look(&queues, &lane.lock(), &wish(10));
        assert_eq!(picks[0].again, [Again { offset: QueueOffset(4), delivery: 7 }]);
        assert_eq!(offsets(&picks[0]), [8], "behind what is proposed");
    }

    #[test]
    fn a_full_batch_of_repeats_takes_nothing_new() {
        let queues = Fake { lengths: [9, 0], next: [6, 0], overdue: vec![(0, 3), (0, 4)] };
        let (plan, picks) = look(&queues, &Marks::default(), &wish(2));
        assert!(plan.full);
        assert_eq!(picks[0].again.len(), 2);
        assert!(picks[0].fresh.is_empty() && picks[0].from == picks[0].to);
    }

    #[test]
    fn bytes_end_a_batch_after_the_first_message() {
        let queues = Fake { lengths: [9, 9], next: [0, 0], overdue: Vec::new() };
        let (plan, _) = look(&queues, &Marks::default(), &Wish { bytes: 150, ..wish(10) });
        assert_eq!(plan.messages, 2);
        assert!(plan.full);
    }

    #[test]
    fn an_empty_topic_gives_an_empty_plan() {
        let queues = Fake { lengths: [2, 0], next: [2, 0], overdue: Vec::new() };
        assert!(plan(&queues, &Marks::default(), &wish(1)).expect("readable").is_empty());
    }
}
