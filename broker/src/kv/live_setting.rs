//! Settings of brokers that were changed while they ran.
//!
//! ```text
//! key    45 | key of the setting
//! value  version 8 | set 1 | value
//! ```
//! `set` is 0 where each node has its own again; the version stays, so that a late call cannot bring
//! the value back. Written by PutLiveSetting.

use std::ops::ControlFlow;

use super::{Batch, Error, Family, Kv, corrupt, prefix};

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSetting {
    pub version: u64,
    /// `None`: each node has its own again.
    pub value: Option<String>,
}

pub fn put(batch: &mut Batch, key: &str, setting: &LiveSetting) {
    batch.put(Family::State, &key_bytes(key), &value_bytes(setting));
}

/// Shows every setting, by key.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv, mut visit: impl FnMut(String, LiveSetting)) -> Result<(), Error> {
    let range = ([prefix::LIVE_SETTING], [prefix::LIVE_SETTING + 1]);
    kv.scan(Family::State, &range.0, &range.1, &mut |key, value| {
        let damaged = |problem| corrupt("live setting", problem, key);
        let name = parse_key(key).ok_or_else(|| damaged("key is not readable"))?;
        let setting = parse_value(value).ok_or_else(|| damaged("value is not readable"))?;
        visit(name, setting);
        Ok(ControlFlow::Continue(()))
    })
}

fn key_bytes(key: &str) -> Vec<u8> {
    [&[prefix::LIVE_SETTING], key.as_bytes()].concat()
}

fn parse_key(key: &[u8]) -> Option<String> {
    Some(str::from_utf8(key.get(1..)?).ok()?.to_owned())
}

fn value_bytes(setting: &LiveSetting) -> Vec<u8> {
    let mut bytes = setting.version.to_be_bytes().to_vec();
    bytes.push(setting.value.is_some().into());
    bytes.extend_from_slice(setting.value.as_deref().unwrap_or_default().as_bytes());
    bytes
}

fn parse_value(bytes: &[u8]) -> Option<LiveSetting> {
    let (version, rest) = bytes.split_first_chunk::<8>()?;
    let (set, text) = rest.split_first()?;
    let text = str::from_utf8(text).ok()?;
    let value = match set {
        0 if text.is_empty() => None,
        1 => Some(text.to_owned()),
        _ => return None,
    };
    Some(LiveSetting { version: u64::from_be_bytes(*version), value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_setting_survives_the_store(
            key in "\\PC{0,40}",
            version: u64,
            value in proptest::option::of("\\PC{0,40}"),
        ) {
            let setting = LiveSetting { version, value };
            prop_assert_eq!(parse_key(&key_bytes(&key)), Some(key));
            prop_assert_eq!(parse_value(&value_bytes(&setting)), Some(setting));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either_way = (parse_key(&bytes), parse_value(&bytes));
        }
    }

    #[test]
    fn golden() {
        assert_eq!(key_bytes("max_delay"), b"\x45max_delay");
        let set = LiveSetting { version: 7, value: Some("1h".into()) };
        assert_eq!(value_bytes(&set), b"\0\0\0\0\0\0\0\x07\x011h");
        let own = LiveSetting { version: 8, value: None };
        assert_eq!(value_bytes(&own), b"\0\0\0\0\0\0\0\x08\0");
    }
}
