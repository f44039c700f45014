//! Quotas.
//!
//! ```text
//! key    33 | kind 1 | name length 2, name
//! value  messages per second 8 | bytes per second 8
//! ```
//! Kind and name as in the PutQuota command. One for each that has a bound.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Batch, Error, Family, Kv, corrupt, prefix};
use crate::command::{Limited, Quota, decode_limited, encode_limited};

pub fn put(batch: &mut Batch, of: &Limited, quota: &Quota) {
    batch.put(Family::State, &key(of), &value(quota));
}

pub fn delete(batch: &mut Batch, of: &Limited) {
    batch.delete(Family::State, &key(of));
}

/// Shows every quota, by kind and name.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv, mut visit: impl FnMut(Limited, Quota)) -> Result<(), Error> {
    let range = ([prefix::QUOTA], [prefix::QUOTA + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, bytes| {
        let damaged = |problem| corrupt("quota", problem, key);
        let of = parse_key(key).ok_or_else(|| damaged("key is not readable"))?;
        let quota = parse_value(bytes).ok_or_else(|| damaged("value has a wrong length"))?;
        visit(of, quota);
        Ok(ControlFlow::Continue(()))
    })
}

fn key(of: &Limited) -> BytesMut {
    let mut key = BytesMut::with_capacity(64);
    key.put_u8(prefix::QUOTA);
    encode_limited(&mut key, of);
    key
}

fn parse_key(key: &[u8]) -> Option<Limited> {
    decode_limited(Bytes::copy_from_slice(key.get(1..)?)).ok()
}

fn value(quota: &Quota) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&quota.messages_per_second.to_be_bytes());
    value[8..].copy_from_slice(&quota.bytes_per_second.to_be_bytes());
    value
}

fn parse_value(value: &[u8]) -> Option<Quota> {
    let value: &[u8; 16] = value.try_into().ok()?;
    let mut rest = &value[..];
    Some(Quota { messages_per_second: rest.get_u64(), bytes_per_second: rest.get_u64() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quota_survives_the_store(
            kind in 0..3_u8,
            name in "[a-z][a-zA-Z0-9_-]{0,40}",
            messages_per_second: u64,
            bytes_per_second: u64,
        ) {
            let of = match kind {
                0 => Limited::Topic(name.parse().unwrap()),
                1 => Limited::Group(name.parse().unwrap()),
                _ => Limited::Client(name.parse().unwrap()),
            };
            let quota = Quota { messages_per_second, bytes_per_second };
            prop_assert_eq!(parse_key(&key(&of)), Some(of));
            prop_assert_eq!(parse_value(&value(&quota)), Some(quota));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        let of = Limited::Group("audit".parse().unwrap());
        assert_eq!(&key(&of)[..], b"\x33\x01\0\x05audit");
        let quota = Quota { messages_per_second: 1, bytes_per_second: 2 };
        assert_eq!(value(&quota), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    }
}
