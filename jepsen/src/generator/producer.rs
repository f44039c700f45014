//! Sends, one by one or in batches, with or without a message group or a delay.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Client, Keys, MS};
use crate::history::{Call, Message, Outcome};

/// Delays of delayed messages, in ms.
const DELAYS: std::ops::Range<u64> = 200..4_000;
/// Of the calls of a sender of delayed messages, this share takes one back.
const RECALLS: f64 = 0.05;

/// A sender of numbered messages.
#[derive(Debug)]
pub struct Producer {
    pub sender: u32,
    pub keys: Keys,
    pub batches: bool,
    /// How many message groups it sends to; none if 0.
    pub message_groups: u32,
    /// The wall clock at time 0, if its messages are delayed.
    pub delay_from_wall_ms: Option<u64>,
    /// Sends again what it knows nothing of.
    pub again: bool,
    /// The message group of each queue, where the server chooses the queue by it.
    pub group_of_key: Vec<String>,
    pub next: u32,
    pub repeat: Option<Call>,
    pub sent: Vec<Message>,
}

impl Producer {
    #[must_use]
    pub fn new(sender: u32, keys: Keys) -> Self {
        Self {
            sender,
            keys,
            batches: false,
            message_groups: 0,
            delay_from_wall_ms: None,
            again: false,
            group_of_key: Vec::new(),
            next: 0,
            repeat: None,
            sent: Vec::new(),
        }
    }

    fn id(&mut self) -> Message {
        self.next += 1;
        Message::new(self.sender, self.next)
    }
}

impl Client for Producer {
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        if draining {
            return None;
        }
        if let Some(call) = self.repeat.take() {
            return Some(call);
        }
        let delayed = self.delay_from_wall_ms.is_some();
        if delayed && !self.sent.is_empty() && random.random_bool(RECALLS) {
            let id = self.sent[random.random_range(0..self.sent.len())];
            return Some(Call::Recall { id });
        }
        let batch = if self.batches && random.random_bool(0.3) { 4 } else { 1 };
        let ids: Vec<Message> = (0..batch).map(|_| self.id()).collect();
        let nth = random.random_range(0..self.keys.count);
        let wall = self.delay_from_wall_ms;
        let delay = random.random_range(DELAYS);
        let deliver_at = wall.map(|wall| wall + now / MS + delay);
        let message_group = (0 < self.message_groups).then(|| {
            let of = random.random_range(0..self.message_groups);
            format!("p{}-{of}", self.sender)
        });
        // A message group lives in one queue.
        let nth = if message_group.is_some() { self.sender } else { nth };
        let key = self.keys.nth(nth);
        let chosen = self.group_of_key.get((key - self.keys.from) as usize).cloned();
        Some(Call::Send { key, ids, message_group: message_group.or(chosen), deliver_at })
    }

    fn told(&mut self, call: &Call, outcome: &Outcome) {
        match (call, outcome) {
            (Call::Send { ids, .. }, Outcome::Ok(_)) if self.delay_from_wall_ms.is_some() => {
                self.sent.extend(ids);
            }
            (Call::Send { .. }, Outcome::Unknown(_)) if self.again => {
                self.repeat = Some(call.clone());
            }
            _ => {}
        }
    }
}
