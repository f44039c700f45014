//! What a consumer group is beside its settings.
//!
//! ```text
//! key    31 | consumer group id 4
//! value  born 8 | enabled flag
//! ```
//! One per consumer group. `born` names the command that created it: deliveries named below it
//! were made to another group of the name.

use std::ops::ControlFlow;

use super::{Batch, ConsumerGroupId, Error, Family, Kv, corrupt, prefix};

/// What there is to know about a consumer group that its settings do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupStanding {
    pub born: u64,
    /// It is handed messages.
    pub enabled: bool,
}

pub fn put(batch: &mut Batch, group: ConsumerGroupId, standing: &GroupStanding) {
    batch.put(Family::State, &key(group), &value(standing));
}

/// Shows the standing of every consumer group, by id.
///
/// # Errors
/// The store cannot be read, holds a damaged record, or `visit` failed.
pub fn load(
    kv: &dyn Kv,
    mut visit: impl FnMut(ConsumerGroupId, GroupStanding) -> Result<(), &'static str>,
) -> Result<(), Error> {
    let range = ([prefix::GROUP_STANDING], [prefix::GROUP_STANDING + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, bytes| {
        let damaged = |problem| corrupt("consumer group standing", problem, key);
        let group = parse_key(key).ok_or_else(|| damaged("key has a wrong length"))?;
        let standing = parse_value(bytes).ok_or_else(|| damaged("value is not readable"))?;
        visit(group, standing).map_err(damaged)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn key(group: ConsumerGroupId) -> [u8; 5] {
    let mut key = [prefix::GROUP_STANDING; 5];
    key[1..].copy_from_slice(&group.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<ConsumerGroupId> {
    Some(ConsumerGroupId(u32::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

fn value(standing: &GroupStanding) -> [u8; 9] {
    let mut value = [0; 9];
    value[..8].copy_from_slice(&standing.born.to_be_bytes());
    value[8] = standing.enabled.into();
    value
}

fn parse_value(value: &[u8]) -> Option<GroupStanding> {
    let (born, enabled) = value.split_at_checked(8)?;
    let born = u64::from_be_bytes(born.try_into().ok()?);
    match enabled {
        [flag @ (0 | 1)] => Some(GroupStanding { born, enabled: *flag == 1 }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_standing_survives_the_store(id: u32, born: u64, enabled: bool) {
            let standing = GroupStanding { born, enabled };
            prop_assert_eq!(parse_value(&value(&standing)), Some(standing));
            prop_assert_eq!(parse_key(&key(ConsumerGroupId(id))), Some(ConsumerGroupId(id)));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        assert_eq!(key(ConsumerGroupId(258)), [0x31, 0, 0, 1, 2]);
        let standing = GroupStanding { born: 1, enabled: true };
        assert_eq!(value(&standing), [0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }
}
