//! What still refers into each segment of the log, by topic.
//!
//! ```text
//! key    3c | topic id 4 | segment base 8     value  references 8 | bytes 8
//! key    3d | segment base 8                  value  stamp 8
//! key    3e                                   value  segment size 8 | end 8 | carried bytes 8
//! ```
//! References are consume-queue entries that are kept, timers and half messages; bytes are those of
//! the messages that they refer to. A row without references is deleted. `3d` says when a segment
//! began, in log time. `end` is where the segment begins in which the last command ended.

use std::ops::ControlFlow;

use bytes::Buf;
use commitlog::position::LogOffset;
use proto::Timestamp;

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};

/// What refers into a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Live {
    pub references: u64,
    /// Of the messages referred to; one that is referred to twice counts twice.
    pub bytes: u64,
}

/// What there is to know beside the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The rows were counted by segments of this size.
    pub segment: u64,
    /// Where the segment begins in which the last command ended.
    pub end: LogOffset,
    /// Bytes of messages carried forward, ever.
    pub carried: u64,
}

/// Writes a row; without references, deletes it.
pub fn put(batch: &mut Batch, topic: TopicId, base: LogOffset, live: Live) {
    match live.references {
        0 => batch.delete(Family::State, &key(topic, base)),
        _ => batch.put(Family::State, &key(topic, base), &pair(live.references, live.bytes)),
    }
}

pub fn put_start(batch: &mut Batch, base: LogOffset, stamp: Timestamp) {
    batch.put(Family::State, &start_key(base), &stamp.0.to_be_bytes());
}

pub fn delete_start(batch: &mut Batch, base: LogOffset) {
    batch.delete(Family::State, &start_key(base));
}

pub fn put_mark(batch: &mut Batch, mark: &Mark) {
    let mut value = [0; 24];
    value[..8].copy_from_slice(&mark.segment.to_be_bytes());
    value[8..16].copy_from_slice(&mark.end.0.to_be_bytes());
    value[16..].copy_from_slice(&mark.carried.to_be_bytes());
    batch.put(Family::State, &[prefix::RETAINED_MARK], &value);
}

/// The mark; `None` in a store that was never counted.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn mark(kv: &dyn Kv) -> Result<Option<Mark>, Error> {
    let key = [prefix::RETAINED_MARK];
    let Some(value) = kv.get(Family::State, &key)? else { return Ok(None) };
    let value: [u8; 24] =
        value.try_into().map_err(|_| corrupt("retained mark", "value has a wrong length", &key))?;
    let mut rest = &value[..];
    Ok(Some(Mark {
        segment: rest.get_u64(),
        end: LogOffset(rest.get_u64()),
        carried: rest.get_u64(),
    }))
}

/// Shows every row, by topic and segment.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv, mut visit: impl FnMut(TopicId, LogOffset, Live)) -> Result<(), Error> {
    let range = ([prefix::RETAINED], [prefix::RETAINED + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("retained", problem, key);
        let (topic, base) = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let (references, bytes) =
            parse_pair(value).ok_or_else(|| damaged("value has a wrong length"))?;
        visit(topic, base, Live { references, bytes });
        Ok(ControlFlow::Continue(()))
    })
}

/// Shows when each segment began, ascending.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load_starts(kv: &dyn Kv, mut visit: impl FnMut(LogOffset, Timestamp)) -> Result<(), Error> {
    let range = ([prefix::SEGMENT_START], [prefix::SEGMENT_START + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("segment start", problem, key);
        let base = key.get(1..).and_then(|k| k.try_into().ok());
        let base = base.ok_or_else(|| damaged("key has a wrong length"))?;
        let stamp = value.try_into().map_err(|_| damaged("value has a wrong length"))?;
        visit(LogOffset(u64::from_be_bytes(base)), Timestamp(u64::from_be_bytes(stamp)));
        Ok(ControlFlow::Continue(()))
    })
}

fn key(topic: TopicId, base: LogOffset) -> [u8; 13] {
    let mut key = [prefix::RETAINED; 13];
    key[1..5].copy_from_slice(&topic.0.to_be_bytes());
    key[5..].copy_from_slice(&base.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(TopicId, LogOffset)> {
    let key: &[u8; 13] = key.try_into().ok()?;
    let mut rest = &key[1..];
    Some((TopicId(rest.get_u32()), LogOffset(rest.get_u64())))
}

fn start_key(base: LogOffset) -> [u8; 9] {
    let mut key = [prefix::SEGMENT_START; 9];
    key[1..].copy_from_slice(&base.0.to_be_bytes());
    key
}

fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&first.to_be_bytes());
    value[8..].copy_from_slice(&second.to_be_bytes());
    value
}

fn parse_pair(value: &[u8]) -> Option<(u64, u64)> {
    let value: &[u8; 16] = value.try_into().ok()?;
    let mut rest = &value[..];
    Some((rest.get_u64(), rest.get_u64()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kv::Memory;

    proptest! {
        #[test]
        fn rows_survive_the_store(topic: u32, base: u64, references in 1..u64::MAX, bytes: u64) {
            let kv = Memory::new();
            let mut batch = Batch::default();
            let row = (TopicId(topic), LogOffset(base), Live { references, bytes });
            put(&mut batch, row.0, row.1, row.2);
            put_start(&mut batch, LogOffset(base), Timestamp(bytes));
            let mark = Mark { segment: references, end: LogOffset(base), carried: bytes };
            put_mark(&mut batch, &mark);
            kv.write(&batch).unwrap();
            let (mut rows, mut starts) = (vec![], vec![]);
            load(&kv, |topic, base, live| rows.push((topic, base, live))).unwrap();
            load_starts(&kv, |base, stamp| starts.push((base, stamp))).unwrap();
            prop_assert_eq!(rows, [row]);
            prop_assert_eq!(starts, [(LogOffset(base), Timestamp(bytes))]);
            prop_assert_eq!(super::mark(&kv).unwrap(), Some(mark));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(key: Vec<u8>, value: Vec<u8>) {
            let _either_way = (parse_key(&key), parse_pair(&value));
        }
    }

    #[test]
    fn golden() {
        let expected = [0x3c, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(key(TopicId(1), LogOffset(258)), expected);
        assert_eq!(start_key(LogOffset(258)), [0x3d, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(pair(1, 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    }
}
