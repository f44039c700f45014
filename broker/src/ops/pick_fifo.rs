//! Which messages to propose for a receive call of a group that keeps order.
//!
//! Blocks whose deliveries have all ended come first, each from its first message on, then what is
//! new and not held back, queue by queue. A queue that somebody proposes from is left alone until
//! the outcome is known. Knows no clock and no lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use commitlog::position::LogOffset;
use proto::{QueueId, QueueOffset};

use super::{
    pick::{Entry, Plan, Queues, Wish},
    receive_fifo::Blocks,
};
use crate::{
    Error,
    command::{FifoAgain, FifoFresh, FifoPick},
    delivery::{Marked, Marks},
    filter::Verdict,
};

/// A message that was handed out before, or passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    pub(crate) delivery: u64,
    /// Its attempts are used up: proposing it makes a dead letter of it.
    pub(crate) exhausted: bool,
}

/// Messages that can be delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) queue: QueueId,
    /// `None` for a message that was handed out while the group kept no order.
    pub(crate) block: Option<u64>,
    /// In order, from the first that is not acknowledged on, and not empty.
    pub(crate) messages: Vec<Held>,
    /// These are all of the block.
    pub(crate) whole: bool,
}

/// The queues of one topic as a consumer group that keeps order sees them.
pub(crate) trait OrderedQueues: Queues {
    /// Up to `most` blocks that are ready at `wish.now`, the longest ago first.
    fn ready(&self, wish: &Wish<'_>, most: usize) -> Result<Vec<Ready>, Error>;
    /// Whether a message of the block is in flight, or waits.
    fn is_held(&self, queue: QueueId, block: u64) -> bool;
}

/// What was read of messages: whether they are wanted, and the hash of their message group; by
/// where they lie in the log, which names them for ever.
#[derive(Debug, Default)]
pub(crate) struct Looked<'a> {
    messages: HashMap<LogOffset, (bool, u64)>,
    /// Message groups that were read for other calls; of use when every message is wanted whose
    /// tag is.
    kept: Option<&'a Blocks>,
}

impl<'a> Looked<'a> {
    pub(crate) fn beside(kept: Option<&'a Blocks>) -> Self {
        Self { messages: HashMap::new(), kept }
    }

    pub(crate) fn add(&mut self, message: LogOffset, wanted: bool, block: u64) {
        self.messages.insert(message, (wanted, block));
    }

    fn get(&self, message: LogOffset) -> Option<(bool, u64)> {
        let kept = || Some((true, self.kept?.get(message)?));
        self.messages.get(&message).copied().or_else(kept)
    }
}

/// What to propose.
#[derive(Debug, Default)]
pub(crate) struct OrderedPlan {
    pub(crate) plan: Plan,
    picks: BTreeMap<QueueId, FifoPick>,
    /// To be read before it can be said what to do with them.
    pub(crate) unread: Vec<(LogOffset, u32)>,
    /// Blocks that are delivered to their end: more of them can follow.
    open: BTreeSet<(QueueId, u64)>,
    /// Blocks of which something was passed over.
    passed: BTreeSet<(QueueId, u64)>,
}

/// Entries looked at in one queue for messages that are not held back by others.
const LOOK_AHEAD: usize = 1024;
/// Messages to be read in one round.
const UNREAD: usize = 64;
/// Blocks that one command repeats.
const BLOCKS_REPEATED: usize = 256;

/// Looks at what there is. An empty plan with nothing unread: nothing to be had now.
pub(crate) fn plan_in_order(
    queues: &impl OrderedQueues,
    marks: &Marks,
    looked: &Looked<'_>,
    wish: &Wish<'_>,
) -> Result<OrderedPlan, Error> {
    let mut plan = OrderedPlan::default();
    for ready in queues.ready(wish, BLOCKS_REPEATED)? {
        if plan.plan.full {
            return Ok(plan);
        }
        if !marks.is_pending(ready.queue) {
            plan.take_ready(queues, &ready, looked, wish);
        }
    }
    for queue in queues.backlogged(wish.first) {
        if plan.plan.full {
            break;
        }
        if !marks.is_pending(queue) {
            plan.take_fresh(queue, queues, looked, wish)?;
        }
    }
    Ok(plan)
}

impl OrderedPlan {
    pub(crate) fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// What to mark while the proposal is on its way: the queues.
    pub(crate) fn marked(&self) -> Vec<(QueueId, Marked)> {
        self.picks.keys().map(|queue| (*queue, Marked::default())).collect()
    }

    /// What to put into the command.
    pub(crate) fn take_picks(&mut self) -> Vec<FifoPick> {
        std::mem::take(&mut self.picks).into_values().collect()
    }

    fn take_ready(
        &mut self,
        queues: &impl OrderedQueues,
        ready: &Ready,
        looked: &Looked<'_>,
        wish: &Wish<'_>,
    ) {
        let queue = ready.queue;
        let Some(first) = ready.messages.first() else { return };
        let known = looked.get(first.entry.position).map(|(_, block)| block);
        let Some(block) = ready.block.or(known) else {
            self.is_unread(&first.entry);
            return;
        };
        if ready.block.is_none() && queues.is_held(queue, block) {
            // It is older than the order; when the block is empty it takes its place.
            return;
        }
        let count = ready.messages.len();
        for (number, held) in ready.messages.iter().enumerate() {
            if self.plan.full {
                return;
            }
            if !held.exhausted {
                self.plan.count(queue, &held.entry, wish);
            }
            let Held { entry, delivery, .. } = *held;
            let again = FifoAgain { offset: entry.offset, delivery, block };
            self.pick(queue, queues.next(queue)).again.push(again);
            if ready.whole && number + 1 == count {
                self.open.insert((queue, block));
            }
        }
    }

    fn take_fresh(
        &mut self,
        queue: QueueId,
        queues: &impl OrderedQueues,
        looked: &Looked<'_>,
        wish: &Wish<'_>,
    ) -> Result<(), Error> {
        let from = queues.next(queue);
        let read_before = self.unread.len();
        let mut to = from;
        let mut fresh = Vec::new();
        // Passed over, if something behind them is delivered; else there is no need to.
        let mut passed = Vec::new();
        for entry in queues.entries(queue, from, LOOK_AHEAD)? {
            if self.plan.full {
                break;
            }
            let verdict = wish.sieve.verdict(entry.position, entry.tag_hash);
            let (wanted, block) = match (verdict, looked.get(entry.position)) {
                (Verdict::Unwanted, _) => (false, 0),
                (Verdict::Wanted | Verdict::Unknown, Some(known)) => known,
                (Verdict::Wanted | Verdict::Unknown, None) => {
                    if !self.is_unread(&entry) {
                        break;
                    }
                    continue;
                }
            };
            if self.unread.len() > read_before {
                // What comes before must be known first.
                continue;
            }
            if !wanted {
                if passed.is_empty() {
                    to = entry.offset.next();
                }
            } else if self.is_free(queue, block, queues) {
                fresh.append(&mut passed);
                fresh.push(FifoFresh { offset: entry.offset, block, deliver: true });
                self.open.insert((queue, block));
                self.plan.count(queue, &entry, wish);
                to = entry.offset.next();
            } else {
                self.passed.insert((queue, block));
                passed.push(FifoFresh { offset: entry.offset, block, deliver: false });
            }
        }
        if from < to {
            let pick = self.pick(queue, from);
            (pick.from, pick.to, pick.fresh) = (from, to, fresh);
        }
        Ok(())
    }

    fn is_free(&self, queue: QueueId, block: u64, queues: &impl OrderedQueues) -> bool {
        let place = (queue, block);
        !self.passed.contains(&place)
            && (self.open.contains(&place) || !queues.is_held(queue, block))
    }

    /// Notes a message to be read; false when there are enough of them.
    fn is_unread(&mut self, entry: &Entry) -> bool {
        self.unread.push((entry.position, entry.len));
        self.unread.len() < UNREAD
    }

    /// The part of the command for a queue, empty at first: nothing new from `at` on.
    fn pick(&mut self, queue: QueueId, at: QueueOffset) -> &mut FifoPick {
        self.picks.entry(queue).or_insert_with(|| FifoPick {
            queue,
            from: at,
            to: at,
            again: Vec::new(),
            fresh: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::Timestamp;

    use super::*;
    use crate::{delivery::Lane, filter::Sieve};

    /// One queue; the block of a message is its tag hash, and everything was read.
    #[derive(Default)]
    struct Fake {
        blocks: Vec<u64>,
        next: u64,
        held: Vec<u64>,
        ready: Vec<Ready>,
    }

    fn entry(offset: u64, tag_hash: u64) -> Entry {
        let position = LogOffset(1000 + offset);
        Entry { offset: QueueOffset(offset), position, len: 100, tag_hash, stamp: Timestamp(7) }
    }

    impl Fake {
        fn looked(&self) -> Looked<'static> {
            let mut looked = Looked::default();
            for (offset, block) in (0..).zip(&self.blocks) {
                looked.add(LogOffset(1000 + offset), true, *block);
            }
            looked
        }
    }

    impl Queues for Fake {
        fn backlogged(&self, _: QueueId) -> Box<dyn Iterator<Item = QueueId> + '_> {
            Box::new((self.next < self.blocks.len() as u64).then_some(QueueId(0)).into_iter())
        }

        fn next(&self, _: QueueId) -> QueueOffset {
            QueueOffset(self.next)
        }

        fn entries(&self, _: QueueId, from: QueueOffset, most: usize) -> Result<Vec<Entry>, Error> {
            let all = (0..).zip(&self.blocks).map(|(offset, block)| entry(offset, *block));
            Ok(all.filter(|entry| from <= entry.offset).take(most).collect())
        }

        fn overdue(
            &self,
            _: Timestamp,
            _: usize,
        ) -> Result<Vec<super::super::pick::Overdue>, Error> {
            Ok(vec![])
        }
    }

    impl OrderedQueues for Fake {
        fn ready(&self, _: &Wish<'_>, _: usize) -> Result<Vec<Ready>, Error> {
            Ok(self.ready.clone())
        }

        fn is_held(&self, _: QueueId, block: u64) -> bool {
            self.held.contains(&block)
        }
    }

    fn wish(messages: usize) -> Wish<'static> {
        let (first, sieve) = (QueueId(0), Sieve::All);
        Wish { first, messages, bytes: u64::MAX, sieve, now: Timestamp(0) }
    }

    fn look(queues: &Fake, messages: usize) -> Option<FifoPick> {
        let marks = Marks::default();
        let looked = queues.looked();
        let mut plan = plan_in_order(queues, &marks, &looked, &wish(messages)).expect("readable");
        plan.take_picks().pop()
    }

    fn fresh(pick: &FifoPick) -> Vec<(u64, bool)> {
        pick.fresh.iter().map(|fresh| (fresh.offset.0, fresh.deliver)).collect()
    }

    #[test]
    fn messages_of_held_groups_are_passed_over_only_for_others_behind_them() {
        let queues = Fake { blocks: vec![1, 2, 1, 3, 1], held: vec![1], ..Fake::default() };
        let pick = look(&queues, 9).expect("2 and 3 are free");
        assert_eq!(fresh(&pick), [(0, false), (1, true), (2, false), (3, true)]);
        assert_eq!((pick.from.0, pick.to.0), (0, 4), "the last one of 1 stays where it is");
        let queues = Fake { blocks: vec![1, 1], held: vec![1], ..Fake::default() };
        assert_eq!(look(&queues, 9), None);
    }

    #[test]
    fn a_batch_holds_several_messages_of_a_group_in_order() {
        let queues = Fake { blocks: vec![1, 2, 1, 1], ..Fake::default() };
        let pick = look(&queues, 3).expect("all are free");
        assert_eq!(fresh(&pick), [(0, true), (1, true), (2, true)]);
    }

    fn ready(offsets: &[u64], block: u64) -> Ready {
        let held =
            |offset: &u64| Held { entry: entry(*offset, block), delivery: 5, exhausted: false };
        Ready {
            queue: QueueId(0),
            block: Some(block),
            messages: offsets.iter().map(held).collect(),
            whole: true,
        }
    }

    #[test]
    fn what_is_new_follows_a_repeat_that_reached_its_end() {
        let blocks = vec![1, 1, 1];
        let queues = Fake { blocks, next: 2, held: vec![1], ready: vec![ready(&[0, 1], 1)] };
        let pick = look(&queues, 9).expect("ready");
        assert_eq!(pick.again.iter().map(|a| a.offset.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(fresh(&pick), [(2, true)]);
        let pick = look(&queues, 1).expect("ready");
        assert_eq!((pick.again.len(), pick.fresh.len()), (1, 0));
    }

    #[test]
    fn what_was_not_read_is_asked_for_in_order() {
        let queues = Fake { blocks: vec![1; 200], ..Fake::default() };
        let mut looked = Looked::default();
        looked.add(LogOffset(1000), true, 1);
        looked.add(LogOffset(1002), true, 1);
        let plan = plan_in_order(&queues, &Marks::default(), &looked, &wish(9)).expect("readable");
        assert_eq!(plan.unread.len(), UNREAD);
        assert_eq!(plan.unread[0], (LogOffset(1001), 100));
        assert_eq!(plan.plan.messages, 1, "the first one is known");
    }

    #[test]
    fn a_queue_that_is_proposed_from_is_left_alone() {
        let queues = Fake { blocks: vec![1], ready: vec![ready(&[0], 2)], ..Fake::default() };
        let lane = Arc::<Lane>::default();
        let held = lane.reserve(&mut lane.lock(), vec![(QueueId(0), Marked::default())]);
        let look = || {
            let looked = queues.looked();
            plan_in_order(&queues, &lane.lock(), &looked, &wish(9)).expect("readable").is_empty()
        };
        assert!(look());
        drop(held);
        assert!(!look());
    }
}
