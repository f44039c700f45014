//! Topics.
//!
//! ```text
//! key    02 | topic id 4
//! value  name length 2, name | settings as in the PutTopic command
//! ```
//! Changed by PutTopic, removed by DeleteTopic.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use proto::Topic;

use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix, text};
use crate::command::{TopicConfig, decode_topic_config, encode_topic_config};

pub fn put(batch: &mut Batch, id: TopicId, name: &Topic, config: &TopicConfig) {
    batch.put(Family::State, &key(id), &value(name, config));
}

/// Every topic, in the order of ids.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv) -> Result<Vec<(TopicId, Topic, TopicConfig)>, Error> {
    let mut topics = Vec::new();
    let range = ([prefix::TOPIC], [prefix::TOPIC + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let id = parse_key(key).ok_or_else(|| corrupt("topic", "key has a wrong length", key))?;
        let (name, config) = parse_value(value).map_err(|p| corrupt("topic", p, key))?;
        topics.push((id, name, config));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(topics)
}

fn key(id: TopicId) -> [u8; 5] {
    let mut key = [prefix::TOPIC; 5];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<TopicId> {
    Some(TopicId(u32::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

fn value(name: &Topic, config: &TopicConfig) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    text::put(&mut out, name.as_str());
    let mut settings = BytesMut::new();
    encode_topic_config(&mut settings, config);
    out.extend_from_slice(&settings);
    out
}

fn parse_value(mut value: &[u8]) -> Result<(Topic, TopicConfig), &'static str> {
    let name = text::name(&mut value)?;
    let config = decode_topic_config(Bytes::copy_from_slice(value));
    Ok((name, config.map_err(|_| "settings are not readable")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::v2;

    use super::*;

    fn config(queues: u32, version: u64) -> TopicConfig {
        TopicConfig {
            queues,
            permission: v2::Permission::ReadWrite,
            accepts: vec![v2::MessageType::Normal],
            placement: vec![("broker-a".parse().unwrap(), queues)],
            version,
        }
    }

    proptest! {
        #[test]
        fn a_topic_survives_the_store(
            id: u32, name in "[a-z][a-zA-Z0-9_-]{0,40}", queues: u32, version: u64,
        ) {
            let topic: Topic = name.parse().unwrap();
            let config = config(queues, version);
            prop_assert_eq!(parse_key(&key(TopicId(id))), Some(TopicId(id)));
            prop_assert_eq!(parse_value(&value(&topic, &config)), Ok((topic, config)));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        let expected =
            b"\0\x06orders\0\0\0\x08\x04\x01\x01\0\x01\0\x08broker-a\0\0\0\x08\0\0\0\0\0\0\0\x03";
        assert_eq!(value(&"orders".parse().unwrap(), &config(8, 3)), expected);
        assert_eq!(key(TopicId(258)), [2, 0, 0, 1, 2]);
    }
}
