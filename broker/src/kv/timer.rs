//! Messages that wait for their time.
//!
//! ```text
//! key    18 | due 8 | number 8
//! value  topic id 4 | queue 4 | position 8 | length 4 | tag hash 8 | sent 8 | key hash 8 * n
//! ```
//! Written by AppendDelayed, deleted by Fire and Recall. The order of keys is that of firing.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut};
use commitlog::position::LogOffset;
use proto::{QueueId, Timestamp};

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};
use crate::command::TimerId;

/// A message that is in no queue yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    pub topic: TopicId,
    /// Where it goes when its time has come.
    pub queue: QueueId,
    /// Where the message lies in the log.
    pub position: LogOffset,
    pub len: u32,
    /// 0 for a message without a tag.
    pub tag_hash: u64,
    /// When it was stored, in log time.
    pub sent: Timestamp,
    pub key_hashes: Box<[u64]>,
}

const FIXED: usize = 36;
const RECORD: &str = "timer";

pub fn put(batch: &mut Batch, id: TimerId, timer: &Timer) {
    batch.put(Family::State, &key(id), &value(timer));
}

pub fn delete(batch: &mut Batch, id: TimerId) {
    batch.delete(Family::State, &key(id));
}

/// The timer of an id, if it waits.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn get(kv: &dyn Kv, id: TimerId) -> Result<Option<Timer>, Error> {
    let key = key(id);
    let read = |bytes: Vec<u8>| {
        parse_value(&bytes).ok_or_else(|| corrupt(RECORD, "value has a wrong length", &key))
    };
    kv.get(Family::State, &key)?.map(read).transpose()
}

/// Shows timers from `from` on in the order of firing, until `visit` breaks.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn scan(
    kv: &dyn Kv,
    from: TimerId,
    mut visit: impl FnMut(TimerId, Timer) -> ControlFlow<()>,
) -> Result<(), Error> {
    kv.scan(Family::State, &key(from), &[prefix::TIMER + 1], &mut |key, bytes| {
        let damaged = |problem| corrupt(RECORD, problem, key);
        let id = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let timer = parse_value(bytes).ok_or_else(|| damaged("value has a wrong length"))?;
        Ok(visit(id, timer))
    })
}

/// The order of these bytes is that of ids.
pub(super) fn id_bytes(prefix: u8, id: TimerId) -> [u8; 17] {
    let mut key = [prefix; 17];
    key[1..9].copy_from_slice(&id.due.0.to_be_bytes());
    key[9..].copy_from_slice(&id.number.to_be_bytes());
    key
}

pub(super) fn parse_key(key: &[u8]) -> Option<TimerId> {
    let key: &[u8; 17] = key.try_into().ok()?;
    let mut rest = &key[1..];
    Some(TimerId { due: Timestamp(rest.get_u64()), number: rest.get_u64() })
}

fn key(id: TimerId) -> [u8; 17] {
    id_bytes(prefix::TIMER, id)
}

fn value(timer: &Timer) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED + 8 * timer.key_hashes.len());
    out.put_u32(timer.topic.0);
    out.put_u32(timer.queue.0);
    out.put_u64(timer.position.0);
    out.put_u32(timer.len);
    out.put_u64(timer.tag_hash);
    out.put_u64(timer.sent.0);
    timer.key_hashes.iter().for_each(|hash| out.put_u64(*hash));
    out
}

fn parse_value(value: &[u8]) -> Option<Timer> {
    let (mut fixed, mut hashes) = value.split_at_checked(FIXED)?;
    if !hashes.len().is_multiple_of(8) {
        return None;
    }
    Some(Timer {
        topic: TopicId(fixed.get_u32()),
        queue: QueueId(fixed.get_u32()),
        position: LogOffset(fixed.get_u64()),
        len: fixed.get_u32(),
        tag_hash: fixed.get_u64(),
        sent: Timestamp(fixed.get_u64()),
        key_hashes: (0..hashes.len() / 8).map(|_| hashes.get_u64()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timer(n: [u64; 3], m: [u32; 3], keys: &[u64]) -> Timer {
        Timer {
            topic: TopicId(m[0]),
            queue: QueueId(m[1]),
            position: LogOffset(n[0]),
            len: m[2],
            tag_hash: n[1],
            sent: Timestamp(n[2]),
            key_hashes: keys.into(),
        }
    }

    proptest! {
        #[test]
        fn a_timer_survives_the_store(id: (u64, u64), n: [u64; 3], m: [u32; 3], keys: Vec<u64>) {
            let id = TimerId { due: Timestamp(id.0), number: id.1 };
            prop_assert_eq!(parse_key(&key(id)), Some(id));
            let timer = timer(n, m, &keys);
            prop_assert_eq!(parse_value(&value(&timer)), Some(timer));
        }

        #[test]
        fn keys_sort_as_timers_fire(a: (u64, u64), b: (u64, u64)) {
            let [a, b] = [a, b].map(|(due, number)| TimerId { due: Timestamp(due), number });
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        let id = TimerId { due: Timestamp(1), number: 2 };
        assert_eq!(key(id), [0x18, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        let mut expected = vec![0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6];
        for number in [7_u64, 8, 9] {
            expected.extend(number.to_be_bytes());
        }
        assert_eq!(value(&timer([5, 7, 8], [3, 4, 6], &[9])), expected);
    }
}
