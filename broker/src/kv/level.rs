//! The feature level of the group, see `command::level`.
//!
//! ```text
//! key    5f
//! value  level 4
//! ```
//! No record stands for level 1.

use super::{Batch, Error, Family, Kv, corrupt, prefix};

const KEY: [u8; 1] = [prefix::LEVEL];
const FIRST: u32 = 1;

pub fn put(batch: &mut Batch, level: u32) {
    batch.put(Family::State, &KEY, &level.to_be_bytes());
}

/// The level, if a process that understands up to `understood` may use this store.
///
/// # Errors
/// `Level` if it may not. The store cannot be read or holds a damaged record.
pub fn load(kv: &dyn Kv, understood: u32) -> Result<u32, Error> {
    let Some(value) = kv.get(Family::State, &KEY)? else { return Ok(FIRST) };
    let damaged = |_| corrupt("level", "value has a wrong length", &KEY);
    let found = u32::from_be_bytes(value.as_slice().try_into().map_err(damaged)?);
    match found <= understood {
        true => Ok(found),
        false => Err(Error::Level { found, supported: understood }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Memory;

    #[test]
    fn a_level_survives_and_a_newer_one_is_refused() {
        let kv = Memory::new();
        assert_eq!(load(&kv, 1).unwrap(), 1);
        let mut batch = Batch::default();
        put(&mut batch, 3);
        kv.write(&batch).unwrap();
        assert_eq!(load(&kv, 3).unwrap(), 3);
        let error = load(&kv, 2).unwrap_err();
        assert!(matches!(error, Error::Level { found: 3, supported: 2 }));
        let text = error.to_string();
        assert!(text.contains("level 3") && text.contains("up to 2"), "{text}");
    }

    #[test]
    fn golden() {
        assert_eq!(KEY, [0x5f]);
        assert_eq!(3_u32.to_be_bytes(), [0, 0, 0, 3]);
    }
}
