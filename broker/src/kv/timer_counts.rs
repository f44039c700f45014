//! How many delayed messages there were and are.
//!
//! ```text
//! key    19
//! value  next number 8 | digest 8
//! key    1a | topic id 4
//! value  pending 8
//! ```
//! Rewritten with every batch that changes them; a topic without pending timers has no record. The
//! digest is over everything that is pending, in no order.

use std::ops::ControlFlow;

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};

const COUNTERS: [u8; 1] = [prefix::TIMER_COUNTERS];

/// Of the whole broker group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// The number that the next timer gets.
    pub next: u64,
    pub digest: u64,
}

pub fn put(batch: &mut Batch, counters: Counters) {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&counters.next.to_be_bytes());
    value[8..].copy_from_slice(&counters.digest.to_be_bytes());
    batch.put(Family::State, &COUNTERS, &value);
}

/// The counters of a store, or those of an empty one.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv) -> Result<Counters, Error> {
    let Some(value) = kv.get(Family::State, &COUNTERS)? else {
        return Ok(Counters::default());
    };
    let damaged = || corrupt("timer counters", "value has a wrong length", &COUNTERS);
    let value: &[u8; 16] = value.as_slice().try_into().map_err(|_| damaged())?;
    let (next, digest) = value.split_at(8);
    Ok(Counters {
        next: word(next).ok_or_else(damaged)?,
        digest: word(digest).ok_or_else(damaged)?,
    })
}

/// Writes how many timers of a topic are pending.
pub fn put_pending(batch: &mut Batch, topic: TopicId, pending: u64) {
    match pending {
        0 => batch.delete(Family::State, &pending_key(topic)),
        more => batch.put(Family::State, &pending_key(topic), &more.to_be_bytes()),
    }
}

/// Shows every topic with pending timers, and their number.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load_pending(kv: &dyn Kv, mut visit: impl FnMut(TopicId, u64)) -> Result<(), Error> {
    let range = ([prefix::TIMER_COUNT], [prefix::TIMER_COUNT + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("timer count", problem, key);
        let topic = parse_pending_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        visit(topic, word(value).ok_or_else(|| damaged("value has a wrong length"))?);
        Ok(ControlFlow::Continue(()))
    })
}

fn word(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn pending_key(topic: TopicId) -> [u8; 5] {
    let mut key = [prefix::TIMER_COUNT; 5];
    key[1..].copy_from_slice(&topic.0.to_be_bytes());
    key
}

fn parse_pending_key(key: &[u8]) -> Option<TopicId> {
    let key: &[u8; 5] = key.try_into().ok()?;
    Some(TopicId(u32::from_be_bytes([key[1], key[2], key[3], key[4]])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Edit, Memory};

    #[test]
    fn counts_survive_the_store() {
        let kv = Memory::new();
        assert_eq!(load(&kv).unwrap(), Counters::default());
        let counters = Counters { next: 7, digest: u64::MAX };
        let mut batch = Batch::default();
        put(&mut batch, counters);
        put_pending(&mut batch, TopicId(3), 5);
        put_pending(&mut batch, TopicId(4), 6);
        put_pending(&mut batch, TopicId(4), 0);
        kv.write(&batch).unwrap();
        assert_eq!(load(&kv).unwrap(), counters);
        let mut found = vec![];
        load_pending(&kv, |topic, pending| found.push((topic, pending))).unwrap();
        assert_eq!(found, [(TopicId(3), 5)]);
    }

    #[test]
    fn golden() {
        assert_eq!(pending_key(TopicId(2)), [0x1a, 0, 0, 0, 2]);
        let mut batch = Batch::default();
        put(&mut batch, Counters { next: 1, digest: 2 });
        let (_, Edit::Put { key, value }) = batch.changes().next().unwrap() else {
            panic!("a put")
        };
        assert_eq!(key, [0x19]);
        let expected = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(value, expected);
    }
}
