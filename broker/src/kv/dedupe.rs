//! Sends seen lately, so that a repeated one is not stored twice.
//!
//! ```text
//! key    number of the first 8
//! value  stamp 8 | seen 32 * n:  id 16 | topic id 4 | queue 4 | offset 8
//! ```
//! Numbers count every remembered send of the broker group. A record holds what one log entry
//! brought; old records are trimmed.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut};
use proto::{QueueId, QueueOffset, Timestamp};

use super::{Batch, Error, Family, Kv, TopicId, corrupt};

const SEEN: usize = 32;

/// A send and where its message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub id: u128,
    pub topic: TopicId,
    pub queue: QueueId,
    pub offset: QueueOffset,
}

/// Writes sends of one log entry, the first of which has the number `first`.
pub fn put(batch: &mut Batch, first: u64, stamp: Timestamp, sends: &[Seen]) {
    batch.put(Family::Dedupe, &first.to_be_bytes(), &value(stamp, sends));
}

/// Shows every record from number `from` on: number of its first send, stamp, sends.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(
    kv: &dyn Kv,
    from: u64,
    mut visit: impl FnMut(u64, Timestamp, Vec<Seen>),
) -> Result<(), Error> {
    kv.scan(Family::Dedupe, &from.to_be_bytes(), &u64::MAX.to_be_bytes(), &mut |key, bytes| {
        let damaged = |problem| corrupt("dedupe", problem, key);
        let first = key.try_into().map_err(|_| damaged("key has a wrong length"))?;
        let (stamp, sends) = parse_value(bytes).ok_or_else(|| damaged("value is not readable"))?;
        visit(u64::from_be_bytes(first), stamp, sends);
        Ok(ControlFlow::Continue(()))
    })
}

/// Sends below `number` are not needed any more.
///
/// # Errors
/// The store cannot be written.
pub fn trim(kv: &dyn Kv, number: u64) -> Result<(), Error> {
    kv.trim(Family::Dedupe, &number.to_be_bytes())
}

fn value(stamp: Timestamp, sends: &[Seen]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + sends.len() * SEEN);
    out.put_u64(stamp.0);
    for seen in sends {
        out.put_u128(seen.id);
        out.put_u32(seen.topic.0);
        out.put_u32(seen.queue.0);
        out.put_u64(seen.offset.0);
    }
    out
}

fn parse_value(value: &[u8]) -> Option<(Timestamp, Vec<Seen>)> {
    let (stamp, sends) = value.split_at_checked(8)?;
    if !sends.len().is_multiple_of(SEEN) {
        return None;
    }
    let stamp = Timestamp(u64::from_be_bytes(stamp.try_into().ok()?));
    Some((stamp, sends.chunks_exact(SEEN).map(parse_seen).collect()))
}

fn parse_seen(mut bytes: &[u8]) -> Seen {
    Seen {
        id: bytes.get_u128(),
        topic: TopicId(bytes.get_u32()),
        queue: QueueId(bytes.get_u32()),
        offset: QueueOffset(bytes.get_u64()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen((id, topic, queue, offset): (u128, u32, u32, u64)) -> Seen {
        Seen { id, topic: TopicId(topic), queue: QueueId(queue), offset: QueueOffset(offset) }
    }

    proptest! {
        #[test]
        fn sends_survive_the_store(stamp: u64, sends: Vec<(u128, u32, u32, u64)>) {
            let sends: Vec<_> = sends.into_iter().map(seen).collect();
            let value = value(Timestamp(stamp), &sends);
            prop_assert_eq!(parse_value(&value), Some((Timestamp(stamp), sends)));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let readable = bytes.len() >= 8 && (bytes.len() - 8).is_multiple_of(SEEN);
            prop_assert_eq!(parse_value(&bytes).is_some(), readable);
        }
    }

    #[test]
    fn golden() {
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 9];
        expected.extend(1_u128.to_be_bytes());
        expected.extend([0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(value(Timestamp(9), &[seen((1, 2, 3, 4))]), expected);
    }
}
