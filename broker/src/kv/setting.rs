//! Versions of settings that are the same in several broker groups.
//!
//! ```text
//! key    44 | kind 1 | name
//! value  version 8
//! ```
//! Kinds: 0 a consumer group's settings, 1 whether it may consume, 2 to 4 the quota of a topic, a
//! consumer group and a client, 5 how much of a topic is kept. Changed by PutSetting; a record goes
//! with what it is about.

use std::ops::ControlFlow;

use super::{Batch, Error, Family, Kv, corrupt, prefix};
use crate::command::{SettingKind, SettingOf};

pub fn put(batch: &mut Batch, of: &SettingOf, version: u64) {
    batch.put(Family::State, &key(of), &version.to_be_bytes());
}

pub fn delete(batch: &mut Batch, of: &SettingOf) {
    batch.delete(Family::State, &key(of));
}

/// Shows every version, by kind and name.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv, mut visit: impl FnMut(SettingOf, u64)) -> Result<(), Error> {
    let range = ([prefix::SETTING], [prefix::SETTING + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("setting", problem, key);
        let of = parse_key(key).ok_or_else(|| damaged("key is not readable"))?;
        let version = value.try_into().map_err(|_| damaged("value has a wrong length"))?;
        visit(of, u64::from_be_bytes(version));
        Ok(ControlFlow::Continue(()))
    })
}

fn key(of: &SettingOf) -> Vec<u8> {
    let mut key = vec![prefix::SETTING, of.kind as u8];
    key.extend_from_slice(of.name.as_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<SettingOf> {
    let (kind, name) = key.get(1..)?.split_first()?;
    let name = str::from_utf8(name).ok()?.to_owned();
    Some(SettingOf { kind: SettingKind::numbered(*kind)?, name })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_setting_survives_the_store(kind in 0..6_usize, name in "\\PC{0,40}") {
            let of = SettingOf { kind: SettingKind::ALL[kind], name };
            prop_assert_eq!(parse_key(&key(&of)), Some(of));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = parse_key(&bytes);
        }
    }

    #[test]
    fn golden() {
        for (number, kind) in (0..).zip(SettingKind::ALL) {
            let of = SettingOf { kind, name: "audit".into() };
            assert_eq!(key(&of), [&[0x44, number], &b"audit"[..]].concat());
        }
        assert_eq!(SettingKind::numbered(6), None);
    }
}
