//! Consumer groups.
//!
//! ```text
//! key    03 | consumer group id 4
//! value  name length 2, name | settings as in the PutGroup command
//! ```
//! Changed by PutGroup, removed by DeleteGroup.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use proto::ConsumerGroup;

use super::{Batch, ConsumerGroupId, Error, Family, Kv, corrupt, prefix, text};
use crate::command::{GroupConfig, decode_group_config, encode_group_config};

pub fn put(batch: &mut Batch, id: ConsumerGroupId, name: &ConsumerGroup, config: &GroupConfig) {
    batch.put(Family::State, &key(id), &value(name, config));
}

/// Every consumer group, in the order of ids.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv) -> Result<Vec<(ConsumerGroupId, ConsumerGroup, GroupConfig)>, Error> {
    const RECORD: &str = "consumer group";
    let mut groups = Vec::new();
    let range = ([prefix::CONSUMER_GROUP], [prefix::CONSUMER_GROUP + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let id = parse_key(key).ok_or_else(|| corrupt(RECORD, "key has a wrong length", key))?;
        let (name, config) = parse_value(value).map_err(|p| corrupt(RECORD, p, key))?;
        groups.push((id, name, config));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(groups)
}

fn key(id: ConsumerGroupId) -> [u8; 5] {
    let mut key = [prefix::CONSUMER_GROUP; 5];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<ConsumerGroupId> {
    Some(ConsumerGroupId(u32::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

fn value(name: &ConsumerGroup, config: &GroupConfig) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    text::put(&mut out, name.as_str());
    let mut settings = BytesMut::new();
    encode_group_config(&mut settings, config);
    out.extend_from_slice(&settings);
    out
}

fn parse_value(mut value: &[u8]) -> Result<(ConsumerGroup, GroupConfig), &'static str> {
    let name = text::name(&mut value)?;
    let config = decode_group_config(Bytes::copy_from_slice(value));
    Ok((name, config.map_err(|_| "settings are not readable")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::Backoff;

    proptest! {
        #[test]
        fn a_consumer_group_survives_the_store(
            id: u32,
            name in "[a-z][a-zA-Z0-9_-]{0,40}",
            fifo: bool,
            max_attempts: u32,
            steps_ms in prop::collection::vec(any::<u64>(), 0..20),
        ) {
            let id = ConsumerGroupId(id);
            let group: ConsumerGroup = name.parse().unwrap();
            let config = GroupConfig { fifo, max_attempts, backoff: Backoff::Customized { steps_ms } };
            prop_assert_eq!(parse_key(&key(id)), Some(id));
            prop_assert_eq!(parse_value(&value(&group, &config)), Ok((group, config)));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        let config = GroupConfig {
            fifo: true,
            max_attempts: 3,
            backoff: Backoff::Customized { steps_ms: vec![10] },
        };
        let expected = b"\0\x05audit\x01\0\0\0\x03\0\x01\0\0\0\0\0\0\0\x0a";
        assert_eq!(value(&"audit".parse().unwrap(), &config), expected);
        assert_eq!(key(ConsumerGroupId(258)), [3, 0, 0, 1, 2]);
    }
}
