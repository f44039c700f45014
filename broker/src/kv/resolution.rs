//! How transactions ended that ended lately, so that a repeated answer is recognised.
//!
//! ```text
//! key    21 | when it ended 8 | transaction 8
//! value  topic id 4 | verdict 1
//! ```
//! Written by EndTransaction, which also deletes the ones that are old enough.

use std::ops::ControlFlow;

use bytes::Buf;
use proto::Timestamp;

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};
use crate::command::{Verdict, verdict_byte, verdict_of};

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// In log time.
    pub at: Timestamp,
    pub topic: TopicId,
    pub verdict: Verdict,
}

pub fn put(batch: &mut Batch, transaction: u64, resolution: &Resolution) {
    batch.put(Family::State, &key(resolution.at, transaction), &value(resolution));
}

pub fn delete(batch: &mut Batch, at: Timestamp, transaction: u64) {
    batch.delete(Family::State, &key(at, transaction));
}

/// Shows every resolution, by time and transaction.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or `visit` failed.
pub fn load(
    kv: &dyn Kv,
    mut visit: impl FnMut(u64, Resolution) -> Result<(), &'static str>,
) -> Result<(), Error> {
    let range = ([prefix::RESOLUTION], [prefix::RESOLUTION + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("resolution", problem, key);
        let (at, transaction) = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let (topic, verdict) =
            parse_value(value).ok_or_else(|| damaged("value is not readable"))?;
        visit(transaction, Resolution { at, topic, verdict }).map_err(damaged)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn key(at: Timestamp, transaction: u64) -> [u8; 17] {
    let mut key = [prefix::RESOLUTION; 17];
    key[1..9].copy_from_slice(&at.0.to_be_bytes());
    key[9..].copy_from_slice(&transaction.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(Timestamp, u64)> {
    let key: &[u8; 17] = key.try_into().ok()?;
    let mut rest = &key[1..];
    Some((Timestamp(rest.get_u64()), rest.get_u64()))
}

fn value(resolution: &Resolution) -> [u8; 5] {
    let mut value = [0; 5];
    value[..4].copy_from_slice(&resolution.topic.0.to_be_bytes());
    value[4] = verdict_byte(resolution.verdict);
    value
}

fn parse_value(value: &[u8]) -> Option<(TopicId, Verdict)> {
    let value: &[u8; 5] = value.try_into().ok()?;
    let mut rest = &value[..];
    Some((TopicId(rest.get_u32()), verdict_of(rest.get_u8())?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_resolution_survives_the_store(at: u64, transaction: u64, topic: u32, commit: bool) {
            let verdict = if commit { Verdict::Commit } else { Verdict::Rollback };
            let (at, topic) = (Timestamp(at), TopicId(topic));
            prop_assert_eq!(parse_key(&key(at, transaction)), Some((at, transaction)));
            let value = value(&Resolution { at, topic, verdict });
            prop_assert_eq!(parse_value(&value), Some((topic, verdict)));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        let expected = [0x21, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(key(Timestamp(1), 2), expected);
        let resolution =
            Resolution { at: Timestamp(1), topic: TopicId(3), verdict: Verdict::Rollback };
        assert_eq!(value(&resolution), [0, 0, 0, 3, 2]);
    }
}
