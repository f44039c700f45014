//! What a topic is beside its settings.
//!
//! ```text
//! key    30 | topic id 4
//! value  born 8 | readable queues 4 | retention: ms 8 | bytes 8
//! ```
//! One per topic. `born` names the command that created it: deliveries named below it are of
//! another topic of the name. Queues are readable from 0 on; those beyond the topic's number take
//! no messages any more.

use std::ops::ControlFlow;

use bytes::Buf;

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};
use crate::command::Retention;

/// What there is to know about a topic that its settings do not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicStanding {
    pub born: u64,
    pub readable: u32,
    pub retention: Retention,
}

pub fn put(batch: &mut Batch, topic: TopicId, standing: &TopicStanding) {
    batch.put(Family::State, &key(topic), &value(standing));
}

/// Shows the standing of every topic, by id.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or `visit` failed.
pub fn load(
    kv: &dyn Kv,
    mut visit: impl FnMut(TopicId, TopicStanding) -> Result<(), &'static str>,
) -> Result<(), Error> {
    let range = ([prefix::TOPIC_STANDING], [prefix::TOPIC_STANDING + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, bytes| {
        let damaged = |problem| corrupt("topic standing", problem, key);
        let topic = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let standing = parse_value(bytes).ok_or_else(|| damaged("value has a wrong length"))?;
        visit(topic, standing).map_err(damaged)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn key(topic: TopicId) -> [u8; 5] {
    let mut key = [prefix::TOPIC_STANDING; 5];
    key[1..].copy_from_slice(&topic.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<TopicId> {
    Some(TopicId(u32::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

fn value(standing: &TopicStanding) -> [u8; 28] {
    let mut value = [0; 28];
    value[..8].copy_from_slice(&standing.born.to_be_bytes());
    value[8..12].copy_from_slice(&standing.readable.to_be_bytes());
    value[12..20].copy_from_slice(&standing.retention.ms.to_be_bytes());
    value[20..].copy_from_slice(&standing.retention.bytes.to_be_bytes());
    value
}

fn parse_value(value: &[u8]) -> Option<TopicStanding> {
    let value: &[u8; 28] = value.try_into().ok()?;
    let mut rest = &value[..];
    Some(TopicStanding {
        born: rest.get_u64(),
        readable: rest.get_u32(),
        retention: Retention { ms: rest.get_u64(), bytes: rest.get_u64() },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_standing_survives_the_store(id: u32, born: u64, readable: u32, ms: u64, bytes: u64) {
            let standing = TopicStanding { born, readable, retention: Retention { ms, bytes } };
            prop_assert_eq!(parse_value(&value(&standing)), Some(standing));
            prop_assert_eq!(parse_key(&key(TopicId(id))), Some(TopicId(id)));
        }
    }

    #[test]
    fn golden() {
        assert_eq!(key(TopicId(258)), [0x30, 0, 0, 1, 2]);
        let retention = Retention { ms: 3, bytes: 4 };
        let standing = TopicStanding { born: 1, readable: 2, retention };
        let expected = b"\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04";
        assert_eq!(&value(&standing), expected);
    }
}
