//! Receives and acks, now and then late, or not at all.

use std::collections::VecDeque;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Client, Keys};
use crate::history::{Answer, Call, Message, Outcome};

/// A member of a consumer group that pops.
#[derive(Debug)]
pub struct Consumer {
    pub group: String,
    pub keys: Keys,
    /// Has messages that it never gets done.
    pub poisoned: bool,
    pub invisible_ms: u64,
    pub wait_ms: u64,
    /// When it reads the dead-letter queue of its group, in ns since the start; never if absent.
    pub dead_letters_at: Option<u64>,
    /// What it was given and has not dealt with: message, handle, and whether it never will.
    pub held: VecDeque<(Message, u64, bool)>,
    pub turn: u32,
}

impl Consumer {
    #[must_use]
    pub fn new(group: &str, keys: Keys) -> Self {
        Self {
            group: group.into(),
            keys,
            poisoned: false,
            invisible_ms: 1_000,
            wait_ms: 20,
            dead_letters_at: None,
            held: VecDeque::new(),
            turn: 0,
        }
    }
}

/// A message that its consumers never get done.
fn is_poison(id: Message) -> bool {
    id.count() % 97 == 41
}

impl Client for Consumer {
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        let group = self.group.clone();
        if let Some((id, handle, poison)) = self.held.pop_front() {
            let careless = !draining;
            if poison || careless && random.random_bool(0.05) {
                let half_more = self.invisible_ms + self.invisible_ms / 2;
                let invisible_ms = if random.random_bool(0.5) { 0 } else { half_more };
                return Some(Call::ChangeInvisible { group, id, handle, invisible_ms });
            }
            if careless && random.random_bool(0.03) {
                // It crashes with what it holds.
                self.held.clear();
                return None;
            }
            return Some(Call::Ack { group, id, handle });
        }
        if self.dead_letters_at.is_some_and(|at| at < now) {
            self.dead_letters_at = None;
            return Some(Call::DeadLetters { group });
        }
        self.turn += 1;
        let (key, attempt_id) = (self.keys.nth(self.turn), None);
        let (invisible_ms, wait_ms) = (self.invisible_ms, self.wait_ms);
        Some(Call::Receive { group, key, invisible_ms, wait_ms, attempt_id })
    }

    fn told(&mut self, _: &Call, outcome: &Outcome) {
        if let Outcome::Ok(Answer::Receive { deliveries, .. }) = outcome {
            let poison = |id| self.poisoned && is_poison(id);
            self.held.extend(deliveries.iter().map(|d| (d.id, d.handle, poison(d.id))));
        }
    }
}
