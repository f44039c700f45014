//! Who belongs to the Raft group, in the encoding of the `raft` crate.
//!
//! ```text
//! key    01
//! value  opaque
//! ```

use bytes::Bytes;

use super::{Batch, Error, Family, Kv, prefix};

const KEY: [u8; 1] = [prefix::MEMBERSHIP];

/// The last membership applied.
///
/// # Errors
/// The store cannot be read.
pub fn load(kv: &dyn Kv) -> Result<Option<Bytes>, Error> {
    Ok(kv.get(Family::State, &KEY)?.map(Bytes::from))
}

pub fn put(batch: &mut Batch, membership: &[u8]) {
    batch.put(Family::State, &KEY, membership);
}
