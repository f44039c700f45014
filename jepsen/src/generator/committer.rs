//! Sets and asks for consumer offsets, as registers.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Client, Keys};
use crate::history::{Answer, Call, Key, Outcome};

/// Commits rising offsets, each once, and asks for them.
///
/// An offset never goes back, so a commit below another one changes nothing. For such offsets to be
/// registers, one client alone commits to each queue.
#[derive(Debug)]
pub struct Committer {
    pub group: String,
    pub keys: Keys,
    /// It commits to every `of`-th queue, beginning with this one.
    pub nth: u32,
    pub of: u32,
    /// Offsets cannot be committed beyond the end of a queue: it asks for the end first.
    pub bounded: bool,
    pub next: BTreeMap<Key, u64>,
    pub ends: BTreeMap<Key, u64>,
}

impl Committer {
    #[must_use]
    pub fn new(group: &str, keys: Keys, nth: u32, of: u32) -> Self {
        let (next, ends) = (BTreeMap::new(), BTreeMap::new());
        Self { group: group.into(), keys, nth, of, bounded: false, next, ends }
    }
}

impl Client for Committer {
    fn call(&mut self, _: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        let nth = random.random_range(0..self.keys.count);
        let (group, key) = (self.group.clone(), self.keys.nth(nth));
        let mine = nth % self.of == self.nth;
        if draining || !mine || random.random_bool(0.5) {
            return Some(Call::Query { group, key });
        }
        let next = self.next.entry(key).or_default();
        if self.bounded && self.ends.get(&key).is_none_or(|end| *end <= *next) {
            return Some(Call::MaxOffset { key });
        }
        *next += 1;
        Some(Call::Commit { group, key, offset: *next })
    }

    fn told(&mut self, call: &Call, outcome: &Outcome) {
        if let (Call::MaxOffset { key }, Outcome::Ok(Answer::MaxOffset { offset })) =
            (call, outcome)
        {
            self.ends.insert(*key, *offset);
        }
    }
}
