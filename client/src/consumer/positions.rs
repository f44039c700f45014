//! How far a consumer that pulls has read, and what it may commit. No IO.

use std::collections::{BTreeMap, HashSet};

use crate::{FilterExpression, MessageQueue, route::Placed};

/// One queue of the consumer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) placed: Placed,
    pub(super) filter: FilterExpression,
    /// Where the next pull begins; `None` until it was looked up.
    pub(super) next: Option<i64>,
    /// Everything below it was handed to the application.
    handed: Option<i64>,
    committed: Option<i64>,
    /// Counts seeks: an answer to a pull that began before one is thrown away.
    pub(super) seeks: u64,
}

/// The queues of one consumer, in turn.
#[derive(Debug, Default)]
pub(super) struct Positions {
    queues: BTreeMap<MessageQueue, Reading>,
    paused: HashSet<MessageQueue>,
    last: Option<MessageQueue>,
}

impl Positions {
    /// Takes over which queues of a topic are this consumer's; those that stay keep their place.
    pub(super) fn assign(&mut self, topic: &str, placed: &[Placed], filter: &FilterExpression) {
        self.queues.retain(|queue, _| {
            queue.topic() != topic || placed.iter().any(|placed| placed.queue == *queue)
        });
        for placed in placed {
            let reading = self.queues.entry(placed.queue.clone()).or_insert_with(|| Reading {
                placed: placed.clone(),
                filter: filter.clone(),
                next: None,
                handed: None,
                committed: None,
                seeks: 0,
            });
            reading.placed = placed.clone();
            reading.filter = filter.clone();
        }
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.queues.retain(|queue, _| queue.topic() != topic);
    }

    pub(super) fn get(&self, queue: &MessageQueue) -> Option<&Reading> {
        self.queues.get(queue)
    }

    pub(super) fn queues(&self) -> Vec<MessageQueue> {
        self.queues.keys().cloned().collect()
    }

    pub(super) fn pause(&mut self, queue: &MessageQueue) {
        self.paused.insert(queue.clone());
    }

    pub(super) fn resume(&mut self, queue: &MessageQueue) {
        self.paused.remove(queue);
    }

    /// Queues that may be pulled, the one after the last that gave messages first.
    pub(super) fn in_turn(&self) -> Vec<Reading> {
        let wanted = |queue: &&MessageQueue| !self.paused.contains(*queue);
        let mut all: Vec<&MessageQueue> = self.queues.keys().filter(wanted).collect();
        let after = all.partition_point(|queue| Some(*queue) <= self.last.as_ref());
        all.rotate_left(after);
        all.into_iter().filter_map(|queue| self.queues.get(queue).cloned()).collect()
    }

    /// Where to begin, as it was looked up; a seek meanwhile counts more.
    pub(super) fn begin(&mut self, queue: &MessageQueue, seeks: u64, offset: i64) {
        if let Some(reading) = self.queues.get_mut(queue)
            && reading.seeks == seeks
        {
            reading.next = Some(offset);
        }
    }

    /// Whether messages up to `next` may be handed to the application: not when it has sought
    /// elsewhere or lost the queue since the pull began.
    pub(super) fn advance(&mut self, queue: &MessageQueue, seeks: u64, next: i64) -> bool {
        let Some(reading) = self.queues.get_mut(queue) else { return false };
        if reading.seeks != seeks {
            return false;
        }
        reading.next = Some(next);
        reading.handed = Some(next);
        self.last = Some(queue.clone());
        true
    }

    /// Goes on elsewhere; what was handed out counts no more. Whether the queue is this consumer's.
    pub(super) fn seek(&mut self, queue: &MessageQueue, offset: Option<i64>) -> bool {
        let Some(reading) = self.queues.get_mut(queue) else { return false };
        reading.next = offset;
        reading.handed = offset;
        reading.committed = None;
        reading.seeks += 1;
        true
    }

    /// Goes on where the server says, because the offset does not exist there; what was handed out
    /// counts no more. A seek meanwhile counts more.
    pub(super) fn reset(&mut self, queue: &MessageQueue, seeks: u64, offset: i64) {
        if let Some(reading) = self.queues.get_mut(queue)
            && reading.seeks == seeks
        {
            (reading.next, reading.handed, reading.committed) = (Some(offset), None, None);
            reading.seeks += 1;
        }
    }

    /// What was handed out and not committed.
    pub(super) fn uncommitted(&self) -> Vec<(Placed, i64)> {
        let news = |reading: &Reading| {
            let handed = reading.handed?;
            (reading.committed != Some(handed)).then(|| (reading.placed.clone(), handed))
        };
        self.queues.values().filter_map(news).collect()
    }

    pub(super) fn committed(&mut self, queue: &MessageQueue, offset: i64) {
        if let Some(reading) = self.queues.get_mut(queue) {
            reading.committed = Some(offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> MessageQueue {
        MessageQueue::new("t", "a", id)
    }

    fn positions(ids: &[i32]) -> Positions {
        let mut positions = Positions::default();
        assign(&mut positions, ids);
        positions
    }

    fn assign(positions: &mut Positions, ids: &[i32]) {
        let address: crate::address::Address = "h:1".parse().unwrap();
        let placed: Vec<_> =
            ids.iter().map(|id| Placed { queue: queue(*id), address: address.clone() }).collect();
        positions.assign("t", &placed, &FilterExpression::all());
    }

    fn turns(positions: &Positions) -> Vec<i32> {
        positions.in_turn().iter().map(|reading| reading.placed.queue.id()).collect()
    }

    fn uncommitted(positions: &Positions) -> Vec<(i32, i64)> {
        let all = positions.uncommitted();
        all.iter().map(|(placed, offset)| (placed.queue.id(), *offset)).collect()
    }

    #[test]
    fn queues_take_turns_and_paused_ones_wait() {
        let mut positions = positions(&[0, 1, 2]);
        assert_eq!(turns(&positions), [0, 1, 2]);
        assert!(positions.advance(&queue(1), 0, 5));
        assert_eq!(turns(&positions), [2, 0, 1]);
        positions.pause(&queue(0));
        assert_eq!(turns(&positions), [2, 1]);
        positions.resume(&queue(0));
        assert_eq!(turns(&positions), [2, 0, 1]);
    }

    #[test]
    fn only_what_was_handed_out_is_committed_and_once() {
        let mut positions = positions(&[0, 1]);
        positions.begin(&queue(0), 0, 3);
        assert_eq!(uncommitted(&positions), []);
        positions.advance(&queue(0), 0, 5);
        assert_eq!(uncommitted(&positions), [(0, 5)]);
        positions.committed(&queue(0), 5);
        assert_eq!(uncommitted(&positions), []);
        positions.advance(&queue(0), 0, 6);
        assert_eq!(uncommitted(&positions), [(0, 6)]);
    }

    #[test]
    fn a_seek_overrules_a_pull_that_began_before() {
        let mut positions = positions(&[0]);
        assert!(positions.seek(&queue(0), Some(100)));
        assert!(!positions.advance(&queue(0), 0, 5), "answered too late");
        positions.begin(&queue(0), 0, 7);
        assert_eq!(positions.get(&queue(0)).unwrap().next, Some(100));
        assert!(positions.advance(&queue(0), 1, 101));
        assert!(!positions.seek(&queue(9), Some(1)), "not ours");
    }

    #[test]
    fn a_reset_forgets_what_was_handed_out() {
        let mut positions = positions(&[0]);
        positions.advance(&queue(0), 0, 5);
        positions.reset(&queue(0), 0, 2);
        assert_eq!(uncommitted(&positions), [], "a commit would undo the reset");
        assert_eq!(positions.get(&queue(0)).unwrap().next, Some(2));
    }

    #[test]
    fn a_queue_that_stays_keeps_its_place_and_one_that_goes_loses_it() {
        let mut positions = positions(&[0, 1]);
        positions.advance(&queue(0), 0, 5);
        positions.advance(&queue(1), 0, 6);
        assign(&mut positions, &[1, 2]);
        assert_eq!(uncommitted(&positions), [(1, 6)]);
        assert!(!positions.advance(&queue(0), 0, 7), "somebody else reads it now");
        assign(&mut positions, &[0, 1]);
        assert_eq!(positions.get(&queue(0)).unwrap().next, None, "looked up again");
        positions.forget_topic("t");
        assert!(positions.queues().is_empty());
    }
}
