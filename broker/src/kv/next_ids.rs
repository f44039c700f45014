//! The ids that the next topic and the next consumer group get.
//!
//! ```text
//! key    32
//! value  topic id 4 | consumer group id 4
//! ```
//! Ids are never given twice: what is left of something deleted must not become part of something
//! new.

use super::{Batch, ConsumerGroupId, Error, Family, Kv, TopicId, corrupt, prefix};

const KEY: [u8; 1] = [prefix::NEXT_IDS];

/// Ids that nobody has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextIds {
    pub topic: TopicId,
    pub group: ConsumerGroupId,
}

pub fn put(batch: &mut Batch, next: NextIds) {
    batch.put(Family::State, &KEY, &value(next));
}

/// The ids; the first ones in a store that is empty.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv) -> Result<NextIds, Error> {
    match kv.get(Family::State, &KEY)? {
        None => Ok(NextIds { topic: TopicId(0), group: ConsumerGroupId(0) }),
        Some(bytes) => {
            parse_value(&bytes).ok_or_else(|| corrupt("next ids", "value has a wrong length", &KEY))
        }
    }
}

fn value(next: NextIds) -> [u8; 8] {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&next.topic.0.to_be_bytes());
    value[4..].copy_from_slice(&next.group.0.to_be_bytes());
    value
}

fn parse_value(value: &[u8]) -> Option<NextIds> {
    let value: &[u8; 8] = value.try_into().ok()?;
    let id = |at: usize| value[at..at + 4].try_into().map(u32::from_be_bytes).ok();
    Some(NextIds { topic: TopicId(id(0)?), group: ConsumerGroupId(id(4)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Memory;

    #[test]
    fn ids_survive_the_store() {
        let kv = Memory::new();
        let first = NextIds { topic: TopicId(0), group: ConsumerGroupId(0) };
        assert_eq!(load(&kv).unwrap(), first);
        let next = NextIds { topic: TopicId(7), group: ConsumerGroupId(258) };
        let mut batch = Batch::default();
        put(&mut batch, next);
        kv.write(&batch).unwrap();
        assert_eq!(load(&kv).unwrap(), next);
    }

    #[test]
    fn golden() {
        assert_eq!(KEY, [0x32]);
        let next = NextIds { topic: TopicId(1), group: ConsumerGroupId(258) };
        assert_eq!(value(next), [0, 0, 0, 1, 0, 0, 1, 2]);
        assert_eq!(parse_value(&[0; 7]), None);
    }
}
