//! Reads a log by offset, from the beginning and from anywhere, and asks for its bounds.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Client, Keys};
use crate::history::{Answer, Call, Key, Message, Outcome};

/// Look-ups that a reader has in mind at most.
const LOOKUPS: usize = 64;

/// A reader of queues.
#[derive(Debug)]
pub struct Reader {
    pub keys: Keys,
    /// The consumer group on whose behalf it reads.
    pub group: Option<String>,
    /// Commits what it read for its group.
    pub commits: bool,
    /// Asks where its group would go on.
    pub resume: bool,
    /// Goes back to random places, asks for bounds, looks messages up.
    pub seeks: bool,
    pub next: BTreeMap<Key, u64>,
    pub lookups: Vec<(Key, Message)>,
    pub committed: BTreeMap<Key, u64>,
}

impl Reader {
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            group: None,
            commits: false,
            resume: false,
            seeks: true,
            next: BTreeMap::new(),
            lookups: Vec::new(),
            committed: BTreeMap::new(),
        }
    }
}

impl Client for Reader {
    fn call(&mut self, _: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        let key = self.keys.nth(random.random_range(0..self.keys.count));
        let group = self.group.clone();
        let next = self.next.get(&key).copied().unwrap_or(0);
        if let (true, Some(group), false) = (self.commits, group.clone(), draining) {
            let committed = self.committed.get(&key).copied().unwrap_or(0);
            match random.random_range(0..4) {
                0 if committed < next => {
                    self.committed.insert(key, next);
                    return Some(Call::Commit { group, key, offset: next });
                }
                1 => return Some(Call::Query { group, key }),
                2 if self.resume => return Some(Call::Resume { group, key }),
                _ => {}
            }
        } else if self.seeks && !draining {
            match random.random_range(0..8) {
                0 => return Some(Call::MaxOffset { key }),
                1 => return Some(Call::MinOffset { key }),
                2 => {
                    let (key, id) = self.lookups.pop()?;
                    return Some(Call::Lookup { key, id });
                }
                3 => {
                    let from = random.random_range(0..=next);
                    self.next.insert(key, from);
                }
                _ => {}
            }
        }
        Some(Call::Poll { key, from: Some(next), group })
    }

    fn told(&mut self, call: &Call, outcome: &Outcome) {
        if let (Call::Poll { key, .. }, Outcome::Ok(Answer::Poll { entries, .. })) = (call, outcome)
            && let Some(last) = entries.last()
        {
            self.next.insert(*key, last.offset + 1);
            if self.lookups.len() < LOOKUPS {
                self.lookups.push((*key, last.id));
            }
        }
    }
}
