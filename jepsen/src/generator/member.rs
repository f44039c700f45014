//! Joins and leaves a consumer group, and asks what it has to read.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Client, MS};
use crate::history::{Call, Change};

/// How long it stays away once it has left: often longer than others may take to get its share.
const AWAY: std::ops::Range<u64> = 0..12_000 * MS;

/// A member of a group that shares its queues out.
#[derive(Debug)]
pub struct Member {
    pub group: String,
    pub member: String,
    /// Never leaves once it is in.
    pub stays: bool,
    /// Goes without a word at times.
    pub crashes: bool,
    /// When it stops to come and go, in ns since the start.
    pub settles_at: u64,
    pub inside: bool,
    /// When it may come back, in ns since the start.
    pub back_at: u64,
}

impl Member {
    #[must_use]
    pub fn new(group: &str, member: &str, settles_at: u64) -> Self {
        let (group, member) = (group.into(), member.into());
        Self { group, member, stays: false, crashes: true, settles_at, inside: false, back_at: 0 }
    }
}

impl Client for Member {
    fn call(&mut self, now: u64, _: bool, random: &mut StdRng) -> Option<Call> {
        let (group, member) = (self.group.clone(), self.member.clone());
        let moves = !self.stays && now < self.settles_at && random.random_bool(0.01);
        if self.inside && !moves {
            return random.random_bool(0.2).then_some(Call::Assignment { group, member });
        }
        if !self.inside && now < self.back_at {
            return None;
        }
        let change = match (self.inside, random.random_bool(0.5)) {
            (false, _) => Change::Join,
            (true, false) if self.crashes => Change::Crash,
            (true, _) => Change::Leave,
        };
        self.inside = !self.inside;
        if !self.inside {
            self.back_at = now + random.random_range(AWAY);
        }
        Some(Call::Member { group, member, change })
    }
}
