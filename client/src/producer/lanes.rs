//! Batching by back-pressure: what arrives while enough batches are under way shares the next one.
//! No IO.
//!
//! Messages that may share a request wait in one lane. A lane that keeps order has one batch under
//! way at a time; others have as many as there is room for.

use std::collections::{HashMap, VecDeque};

/// Messages that may share a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) topic: String,
    /// The queue's place in the route.
    pub(super) picked: usize,
    /// Whether a retry must keep to it.
    pub(super) fixed: bool,
    /// Of ordered messages.
    pub(super) message_group: Option<String>,
}

/// How large things get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Messages in one batch.
    pub(super) messages: usize,
    /// Bytes of one batch, unless its first message is larger.
    pub(super) bytes: usize,
    /// Batches under way.
    pub(super) under_way: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<(T, usize)>,
    under_way: usize,
    /// In the queue of lanes that have something to send.
    listed: bool,
}

#[derive(Debug)]
pub(super) struct Lanes<T> {
    bounds: Bounds,
    lanes: HashMap<Lane, Waiting<T>>,
    ready: VecDeque<Lane>,
    under_way: usize,
}

impl<T> Lanes<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, lanes: HashMap::new(), ready: VecDeque::new(), under_way: 0 }
    }

    /// An item of this many bytes.
    pub(super) fn push(&mut self, lane: Lane, item: T, bytes: usize) {
        let waiting = self.lanes.entry(lane.clone()).or_insert_with(|| Waiting {
            items: VecDeque::new(),
            under_way: 0,
            listed: false,
        });
        waiting.items.push_back((item, bytes));
        Self::list(&mut self.ready, lane, waiting);
    }

    fn list(ready: &mut VecDeque<Lane>, lane: Lane, waiting: &mut Waiting<T>) {
        let blocked = lane.message_group.is_some() && waiting.under_way > 0;
        if !waiting.listed && !blocked && !waiting.items.is_empty() {
            waiting.listed = true;
            ready.push_back(lane);
        }
    }

    /// The next batch, if there is room for one. [`Self::done`] tells when it has ended.
    pub(super) fn next(&mut self) -> Option<(Lane, Vec<T>)> {
        if self.under_way >= self.bounds.under_way {
            return None;
        }
        let lane = self.ready.pop_front()?;
        let waiting = self.lanes.get_mut(&lane)?;
        waiting.listed = false;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((_, size)) = waiting.items.front() {
            let full = batch.len() >= self.bounds.messages || bytes + size > self.bounds.bytes;
            if full && !batch.is_empty() {
                break;
            }
            bytes += size;
            batch.extend(waiting.items.pop_front().map(|(item, _)| item));
        }
        waiting.under_way += 1;
        self.under_way += 1;
        Self::list(&mut self.ready, lane.clone(), waiting);
        Some((lane, batch))
    }

    /// A batch of this lane has ended, one way or the other.
    pub(super) fn done(&mut self, lane: &Lane) {
        let Some(waiting) = self.lanes.get_mut(lane) else { return };
        waiting.under_way = waiting.under_way.saturating_sub(1);
        self.under_way = self.under_way.saturating_sub(1);
        if waiting.items.is_empty() && waiting.under_way == 0 {
            self.lanes.remove(lane);
        } else {
            Self::list(&mut self.ready, lane.clone(), waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { messages: 3, bytes: 100, under_way: 2 };

    fn lane(picked: usize) -> Lane {
        Lane { topic: "t".into(), picked, fixed: false, message_group: None }
    }

    fn group(name: &str) -> Lane {
        Lane { message_group: Some(name.into()), ..lane(0) }
    }

    #[test]
    fn a_lone_message_does_not_wait() {
        let mut lanes = Lanes::new(BOUNDS);
        lanes.push(lane(0), 1, 10);
        assert_eq!(lanes.next(), Some((lane(0), vec![1])));
        assert_eq!(lanes.next(), None);
    }

    #[test]
    fn what_arrives_meanwhile_shares_a_batch() {
        let mut lanes = Lanes::new(BOUNDS);
        for item in 0..2 {
            lanes.push(lane(0), item, 10);
            assert!(lanes.next().is_some());
        }
        for item in 2..7 {
            lanes.push(lane(0), item, 10);
        }
        assert_eq!(lanes.next(), None, "two are under way");
        lanes.done(&lane(0));
        assert_eq!(lanes.next(), Some((lane(0), vec![2, 3, 4])));
        lanes.done(&lane(0));
        assert_eq!(lanes.next(), Some((lane(0), vec![5, 6])));
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_but_never_empty() {
        let mut lanes = Lanes::new(BOUNDS);
        for (item, bytes) in [(1, 500), (2, 60), (3, 40), (4, 1)] {
            lanes.push(lane(0), item, bytes);
        }
        assert_eq!(lanes.next().unwrap().1, [1]);
        assert_eq!(lanes.next().unwrap().1, [2, 3]);
    }

    #[test]
    fn an_ordered_lane_has_one_batch_under_way() {
        let mut lanes = Lanes::new(BOUNDS);
        lanes.push(group("g"), 1, 1);
        assert_eq!(lanes.next(), Some((group("g"), vec![1])));
        lanes.push(group("g"), 2, 1);
        lanes.push(group("g"), 3, 1);
        assert_eq!(lanes.next(), None);
        lanes.push(group("h"), 4, 1);
        assert_eq!(lanes.next(), Some((group("h"), vec![4])), "others go on");
        lanes.done(&group("g"));
        assert_eq!(lanes.next(), Some((group("g"), vec![2, 3])));
    }

    #[test]
    fn lanes_take_turns_and_empty_ones_are_forgotten() {
        let mut lanes = Lanes::new(BOUNDS);
        for picked in [0, 1] {
            for item in 0..4 {
                lanes.push(lane(picked), item, 1);
            }
        }
        assert_eq!(lanes.next().unwrap().0, lane(0));
        assert_eq!(lanes.next().unwrap().0, lane(1));
        lanes.done(&lane(0));
        assert_eq!(lanes.next(), Some((lane(0), vec![3])));
        lanes.done(&lane(0));
        lanes.done(&lane(1));
        assert_eq!(lanes.next(), Some((lane(1), vec![3])));
        lanes.done(&lane(1));
        assert!(lanes.lanes.is_empty() && lanes.ready.is_empty());
    }
}
