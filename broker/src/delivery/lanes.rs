//! What this leader has proposed to hand out and does not know the outcome of yet.
//!
//! Two receive calls that look at one queue at the same time would both propose its first
//! messages, and one would get nothing. So each marks what it proposes, and the next looks behind
//! it. The marks are volatile and only save work: what is granted is decided when the proposal is
//! applied.
//!
//! Invariant: a mark stands as long as its [`Reservation`] lives.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use proto::{QueueId, QueueOffset};

use super::long_poll::Place;

/// The marks of every group and topic.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Mutex<HashMap<Place, Arc<Lane>>>,
}

/// The marks of one group in one topic.
#[derive(Debug, Default)]
pub struct Lane {
    marks: Mutex<Marks>,
}

/// What is marked, and where the next call starts looking.
#[derive(Debug, Default)]
pub struct Marks {
    queues: BTreeMap<QueueId, QueueMarks>,
    turn: u32,
}

#[derive(Debug, Default)]
struct QueueMarks {
    /// Everything before is proposed; `None` when the group's own progress says where to start.
    fresh_to: Option<QueueOffset>,
    again: BTreeSet<QueueOffset>,
    pending: usize,
}

/// Offsets of one queue to be marked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    /// End of the range of new messages; `None` when the proposal takes none.
    pub fresh_to: Option<QueueOffset>,
    /// Deliveries to be repeated.
    pub again: Vec<QueueOffset>,
}

/// Marks that stand until dropped.
#[derive(Debug)]
pub struct Reservation {
    lane: Arc<Lane>,
    marked: Vec<(QueueId, Marked)>,
    kept: bool,
}

impl Lanes {
    /// The marks at `place`.
    pub fn at(&self, place: &Place) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().expect("no holder panics");
        if let Some(lane) = lanes.get(place) {
            return Arc::clone(lane);
        }
        let lane = Arc::<Lane>::default();
        lanes.insert(place.clone(), Arc::clone(&lane));
        lane
    }

    /// Forgets everything: another node leads now. Reservations that still stand keep their own.
    pub fn clear(&self) {
        self.lanes.lock().expect("no holder panics").clear();
    }
}

impl Lane {
    /// Looking and marking happen under one lock.
    pub fn lock(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().expect("no holder panics")
    }

    /// Marks what was found while `marks`, this lane's own, was held.
    pub fn reserve(
        self: &Arc<Self>,
        marks: &mut Marks,
        marked: Vec<(QueueId, Marked)>,
    ) -> Reservation {
        for (queue, what) in &marked {
            let queue = marks.queues.entry(*queue).or_default();
            queue.pending += 1;
            queue.fresh_to = what.fresh_to.max(queue.fresh_to);
            queue.again.extend(&what.again);
        }
        Reservation { lane: Arc::clone(self), marked, kept: false }
    }
}

impl Marks {
    /// Where new messages of the queue start that nobody proposed, given the group's progress.
    pub fn fresh_from(&self, queue: QueueId, next: QueueOffset) -> QueueOffset {
        let marked = self.queues.get(&queue).and_then(|marks| marks.fresh_to);
        marked.map_or(next, |to| to.max(next))
    }

    /// Whether somebody proposed to deliver this one again.
    pub fn is_marked_again(&self, queue: QueueId, offset: QueueOffset) -> bool {
        self.queues.get(&queue).is_some_and(|marks| marks.again.contains(&offset))
    }

    /// Whether anything is proposed from the queue.
    pub fn is_pending(&self, queue: QueueId) -> bool {
        self.queues.contains_key(&queue)
    }

    /// How many repeats are marked.
    pub fn again_count(&self) -> usize {
        self.queues.values().map(|marks| marks.again.len()).sum()
    }

    /// Queues take turns in being looked at first.
    pub fn next_turn(&mut self) -> u32 {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }
}

impl Reservation {
    /// Everything that was proposed was granted: the group's progress has moved past the marks,
    /// and whoever looked behind them looked at the right place.
    pub fn fulfilled(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut marks = self.lane.lock();
        for (id, what) in &self.marked {
            let Some(queue) = marks.queues.get_mut(id) else { continue };
            queue.pending -= 1;
            for offset in &what.again {
                queue.again.remove(offset);
            }
            if queue.pending == 0 {
                marks.queues.remove(id);
            } else if !self.kept {
                // What was not granted must be looked at again, although others look behind it.
                queue.fresh_to = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId(0);

    fn fresh(to: u64) -> Vec<(QueueId, Marked)> {
        vec![(QUEUE, Marked { fresh_to: Some(QueueOffset(to)), again: Vec::new() })]
    }

    fn lane() -> Arc<Lane> {
        let place = Place { group: "g".parse().expect("ok"), topic: "t".parse().expect("ok") };
        Lanes::default().at(&place)
    }

    fn from(lane: &Lane, next: u64) -> u64 {
        lane.lock().fresh_from(QUEUE, QueueOffset(next)).0
    }

    #[test]
    fn the_next_call_looks_behind_what_is_proposed() {
        let lane = lane();
        let first = lane.reserve(&mut lane.lock(), fresh(32));
        assert_eq!(from(&lane, 0), 32);
        let second = lane.reserve(&mut lane.lock(), fresh(64));
        assert_eq!(from(&lane, 0), 64);
        first.fulfilled();
        assert_eq!(from(&lane, 32), 64);
        second.fulfilled();
        assert_eq!(from(&lane, 64), 64);
    }

    #[test]
    fn what_was_not_granted_is_looked_at_again() {
        let lane = lane();
        let first = lane.reserve(&mut lane.lock(), fresh(32));
        let _second = lane.reserve(&mut lane.lock(), fresh(64));
        drop(first);
        assert_eq!(from(&lane, 0), 0);
    }

    #[test]
    fn a_repeat_is_proposed_once_at_a_time() {
        let lane = lane();
        let marked = Marked { fresh_to: None, again: vec![QueueOffset(5)] };
        let held = lane.reserve(&mut lane.lock(), vec![(QUEUE, marked)]);
        assert!(lane.lock().is_marked_again(QUEUE, QueueOffset(5)));
        assert_eq!(from(&lane, 9), 9, "repeats do not move the start of what is new");
        drop(held);
        assert!(!lane.lock().is_marked_again(QUEUE, QueueOffset(5)));
    }
}
