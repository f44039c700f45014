//! Who waits for messages of which topic on behalf of which consumer group. Decides whom to call;
//! knows no clock, no channel and no task.
//!
//! A call says "look again", not "there is something for you": the called one looks, and either
//! takes what it finds or waits again. One append calls one waiter of each group. A waiter that
//! fills its batch passes the call on, so a burst wakes as many as it feeds and no more.
//!
//! Invariants: a waiter is in one line or in none; a line that stands is not empty; the number of
//! waiters never exceeds the bound.

use std::collections::{BTreeSet, HashMap};

use proto::{ConsumerGroup, Timestamp, Topic};

/// Where a consumer waits: everything of one topic that this node leads, for one group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// On whose behalf.
    pub group: ConsumerGroup,
    /// For what.
    pub topic: Topic,
}

/// Names one wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(u64);

/// As many waiters as the bound allows are waiting already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// All waiters of one node.
#[derive(Debug)]
pub struct LongPolls {
    bound: usize,
    issued: u64,
    places: HashMap<WaitId, Place>,
    lines: HashMap<Place, Line>,
    groups: HashMap<Topic, BTreeSet<ConsumerGroup>>,
    /// The lines' due times in order. Entries of lines that changed since are skipped.
    dues: BTreeSet<(Timestamp, Place)>,
}

#[derive(Debug, Default)]
struct Line {
    /// Ids grow, so their order is the order of arrival.
    waiters: BTreeSet<WaitId>,
    /// When something that is held by another consumer becomes visible again, at the earliest.
    due: Option<Timestamp>,
}

impl LongPolls {
    /// Nobody waits; at most `bound` will.
    pub fn new(bound: usize) -> Self {
        LongPolls {
            bound,
            issued: 0,
            places: HashMap::new(),
            lines: HashMap::new(),
            groups: HashMap::new(),
            dues: BTreeSet::new(),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// True if somebody waits at `place`.
    pub fn has_line(&self, place: &Place) -> bool {
        self.lines.contains_key(place)
    }

    /// Joins the end of the line at `place`.
    pub fn wait(&mut self, place: &Place) -> Result<WaitId, Full> {
        if self.places.len() >= self.bound {
            return Err(Full);
        }
        let id = WaitId(self.issued);
        self.issued += 1;
        self.places.insert(id, place.clone());
        self.lines.entry(place.clone()).or_default().waiters.insert(id);
        self.groups.entry(place.topic.clone()).or_default().insert(place.group.clone());
        Ok(id)
    }

    /// Something at `place` becomes visible at `at`. Without a waiter there is nothing to remember:
    /// whoever comes looks for himself.
    pub fn due_at(&mut self, place: &Place, at: Timestamp) {
        let Some(line) = self.lines.get_mut(place) else { return };
        if line.due.is_some_and(|known| known <= at) {
            return;
        }
        if let Some(known) = line.due.replace(at) {
            self.dues.remove(&(known, place.clone()));
        }
        self.dues.insert((at, place.clone()));
    }

    /// When [`LongPolls::call_due`] has something to do.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.dues.first().map(|(at, _)| *at)
    }

    /// Messages were appended to `topic`: the first of each group's line is called.
    pub fn call_topic(&mut self, topic: &Topic) -> Vec<WaitId> {
        let Some(groups) = self.groups.get(topic) else { return Vec::new() };
        let groups: Vec<ConsumerGroup> = groups.iter().cloned().collect();
        groups
            .into_iter()
            .filter_map(|group| self.call(&Place { group, topic: topic.clone() }))
            .collect()
    }

    /// The first in the line at `place` is called.
    pub fn call(&mut self, place: &Place) -> Option<WaitId> {
        let id = *self.lines.get(place)?.waiters.first()?;
        self.leave(id);
        Some(id)
    }

    /// The first of each line whose due time has come is called.
    pub fn call_due(&mut self, now: Timestamp) -> Vec<WaitId> {
        let mut called = Vec::new();
        while let Some((at, place)) = self.dues.pop_first_if(|(at, _)| *at <= now) {
            if let Some(line) = self.lines.get_mut(&place)
                && line.due == Some(at)
            {
                line.due = None;
                called.extend(self.call(&place));
            }
        }
        called
    }

    /// Everybody is called: this node cannot serve them any more, or all must look again.
    pub fn call_all(&mut self) -> Vec<WaitId> {
        let called = self.places.keys().copied().collect();
        self.places.clear();
        self.lines.clear();
        self.groups.clear();
        self.dues.clear();
        called
    }

    /// Steps out of line. False if the waiter was called before.
    pub fn leave(&mut self, id: WaitId) -> bool {
        let Some(place) = self.places.remove(&id) else { return false };
        let line = self.lines.get_mut(&place).expect("a waiter's line stands");
        line.waiters.remove(&id);
        if line.waiters.is_empty() {
            self.close(&place);
        }
        true
    }

    fn close(&mut self, place: &Place) {
        if let Some(Line { due: Some(at), .. }) = self.lines.remove(place) {
            self.dues.remove(&(at, place.clone()));
        }
        if let Some(groups) = self.groups.get_mut(&place.topic) {
            groups.remove(&place.group);
            if groups.is_empty() {
                self.groups.remove(&place.topic);
            }
        }
    }
}

/// `BTreeSet::pop_first` with a condition.
trait PopFirstIf<T> {
    fn pop_first_if(&mut self, condition: impl Fn(&T) -> bool) -> Option<T>;
}

impl<T: Ord> PopFirstIf<T> for BTreeSet<T> {
    fn pop_first_if(&mut self, condition: impl Fn(&T) -> bool) -> Option<T> {
        if self.first().is_some_and(condition) { self.pop_first() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(group: &str, topic: &str) -> Place {
        Place { group: group.parse().expect("a group"), topic: topic.parse().expect("a topic") }
    }

    fn topic(name: &str) -> Topic {
        name.parse().expect("a topic")
    }

    #[test]
    fn an_append_calls_the_first_of_each_group() {
        let mut polls = LongPolls::new(10);
        let first = polls.wait(&place("g", "t")).expect("room");
        let second = polls.wait(&place("g", "t")).expect("room");
        let other = polls.wait(&place("h", "t")).expect("room");
        let elsewhere = polls.wait(&place("g", "u")).expect("room");

        assert_eq!(polls.call_topic(&topic("t")), [first, other]);
        assert_eq!(polls.call_topic(&topic("t")), [second]);
        assert!(polls.call_topic(&topic("t")).is_empty());
        assert_eq!(polls.call_topic(&topic("u")), [elsewhere]);
        assert!(polls.is_empty());
    }

    #[test]
    fn who_leaves_is_not_called() {
        let mut polls = LongPolls::new(10);
        let first = polls.wait(&place("g", "t")).expect("room");
        let second = polls.wait(&place("g", "t")).expect("room");
        assert!(polls.leave(first));
        assert_eq!(polls.call(&place("g", "t")), Some(second));
        assert!(!polls.leave(second), "was called before");
    }

    #[test]
    fn a_due_time_calls_one_waiter_once() {
        let mut polls = LongPolls::new(10);
        let here = place("g", "t");
        polls.due_at(&here, Timestamp(5));
        assert_eq!(polls.next_due(), None, "nobody waits");

        let first = polls.wait(&here).expect("room");
        let second = polls.wait(&here).expect("room");
        polls.due_at(&here, Timestamp(70));
        polls.due_at(&here, Timestamp(50));
        polls.due_at(&here, Timestamp(60));
        assert_eq!(polls.next_due(), Some(Timestamp(50)));

        assert!(polls.call_due(Timestamp(49)).is_empty());
        assert_eq!(polls.call_due(Timestamp(50)), [first]);
        assert!(polls.call_due(Timestamp(100)).is_empty(), "the called one looks and says more");
        polls.due_at(&here, Timestamp(60));
        assert_eq!(polls.call_due(Timestamp(100)), [second]);
    }

    #[test]
    fn a_line_that_empties_takes_its_due_time_along() {
        let mut polls = LongPolls::new(10);
        let id = polls.wait(&place("g", "t")).expect("room");
        polls.due_at(&place("g", "t"), Timestamp(9));
        polls.leave(id);
        assert_eq!(polls.next_due(), None);
    }

    #[test]
    fn the_bound_holds_and_frees_up() {
        let mut polls = LongPolls::new(1);
        let id = polls.wait(&place("g", "t")).expect("room");
        assert_eq!(polls.wait(&place("g", "t")), Err(Full));
        polls.leave(id);
        assert!(polls.wait(&place("g", "t")).is_ok());
    }

    #[test]
    fn all_are_called_when_the_node_stops_leading() {
        let mut polls = LongPolls::new(10);
        let a = polls.wait(&place("g", "t")).expect("room");
        let b = polls.wait(&place("h", "u")).expect("room");
        let mut called = polls.call_all();
        called.sort();
        assert_eq!(called, [a, b]);
        assert!(polls.is_empty());
        assert_eq!(polls.next_due(), None);
    }
}
