//! Changes and reads settings, topics and routes.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Client, MS};
use crate::history::Call;

/// A setting is a register for this long; then another one is.
const REGISTER: u64 = 3_000 * MS;
/// Topics that one administrator has at least before it removes one.
const TOPICS: usize = 3;

/// Someone with administrative rights.
#[derive(Debug)]
pub struct Administrator {
    pub number: u64,
    /// The topic whose route it asks for.
    pub topic: String,
    /// Whether settings can be set under a condition.
    pub conditions: bool,
    pub next: u64,
    pub mine: Vec<u64>,
}

impl Administrator {
    #[must_use]
    pub fn new(number: u64, topic: &str) -> Self {
        Self { number, topic: topic.into(), conditions: true, next: 0, mine: Vec::new() }
    }
}

impl Client for Administrator {
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        let register = format!("setting-{}", now / REGISTER);
        let set = String::from("topics");
        self.next += 1;
        let element = self.number * 10_000 + self.next;
        Some(match random.random_range(0..8) {
            _ if draining => Call::List { set },
            0 => Call::Write { register, value: random.random_range(0..5) },
            1 if self.conditions => {
                let (expected, value) = (random.random_range(0..5), random.random_range(0..5));
                Call::Cas { register, expected, value }
            }
            1..4 => Call::Read { register },
            4 => {
                self.mine.push(element);
                Call::Add { set, element }
            }
            5 if TOPICS < self.mine.len() => {
                let element = self.mine.swap_remove(random.random_range(0..self.mine.len()));
                Call::Remove { set, element }
            }
            6 => Call::Route { topic: self.topic.clone() },
            _ => Call::List { set },
        })
    }
}
