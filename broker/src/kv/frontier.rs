//! How far the state has come: one record, rewritten with every batch.
//!
//! ```text
//! key    00
//! value  schema 1 | has log id 1 | term 8 | index 8 | stamp 8 | topics version 8
//!        | dedupe: next 8, digest 8 | keys: next 8, sealed 8, blocks 8
//! ```

use bytes::{Buf, BufMut, TryGetError};
use commitlog::position::{LogId, LogIndex, Term};
use proto::Timestamp;

use super::{Batch, Error, Family, Kv, corrupt, prefix};

/// Layout of the whole store. A store with another one is refused.
const SCHEMA: u8 = 1;

const KEY: [u8; 1] = [prefix::FRONTIER];

/// What the other records are as of, and the counters that have no record of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frontier {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// Log time: the highest stamp applied.
    pub stamp: Timestamp,
    /// Changes with every change of a topic.
    pub topics_version: u64,
    /// Dedupe ids taken so far, and a digest of them in order.
    pub dedupe_next: u64,
    pub dedupe_digest: u64,
    /// Message keys indexed so far; those below `keys_sealed` are in `key_blocks` sealed blocks.
    pub keys_next: u64,
    pub keys_sealed: u64,
    pub key_blocks: u64,
}

impl Frontier {
    /// The frontier of a store, or that of an empty one.
    ///
    /// # Errors
    /// The store cannot be read, or was written under another schema.
    pub fn load(kv: &dyn Kv) -> Result<Self, Error> {
        match kv.get(Family::State, &KEY)? {
            Some(value) => decode(&value),
            None => Ok(Self::default()),
        }
    }

    pub fn put(&self, batch: &mut Batch) {
        batch.put(Family::State, &KEY, &self.encode());
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(74);
        let id = self.applied.unwrap_or(LogId { term: Term(0), index: LogIndex(0) });
        out.put_u8(SCHEMA);
        out.put_u8(self.applied.is_some().into());
        out.put_u64(id.term.0);
        out.put_u64(id.index.0);
        out.put_u64(self.stamp.0);
        out.put_u64(self.topics_version);
        out.put_u64(self.dedupe_next);
        out.put_u64(self.dedupe_digest);
        out.put_u64(self.keys_next);
        out.put_u64(self.keys_sealed);
        out.put_u64(self.key_blocks);
        out
    }
}

fn decode(value: &[u8]) -> Result<Frontier, Error> {
    match value.first() {
        Some(&SCHEMA) => {}
        Some(&found) => return Err(Error::Schema { found, supported: SCHEMA }),
        None => return Err(corrupt("frontier", "value is empty", &KEY)),
    }
    let mut rest = &value[1..];
    let frontier = fields(&mut rest).map_err(|_| corrupt("frontier", "value ends early", &KEY))?;
    if !rest.is_empty() {
        return Err(corrupt("frontier", "value is too long", &KEY));
    }
    Ok(frontier)
}

fn fields(input: &mut &[u8]) -> Result<Frontier, TryGetError> {
    let has_log_id = input.try_get_u8()? != 0;
    let id = LogId { term: Term(input.try_get_u64()?), index: LogIndex(input.try_get_u64()?) };
    Ok(Frontier {
        applied: has_log_id.then_some(id),
        stamp: Timestamp(input.try_get_u64()?),
        topics_version: input.try_get_u64()?,
        dedupe_next: input.try_get_u64()?,
        dedupe_digest: input.try_get_u64()?,
        keys_next: input.try_get_u64()?,
        keys_sealed: input.try_get_u64()?,
        key_blocks: input.try_get_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frontier() -> impl Strategy<Value = Frontier> {
        (any::<Option<(u64, u64)>>(), any::<[u64; 8]>()).prop_map(|(applied, n)| Frontier {
            applied: applied.map(|(t, i)| LogId { term: Term(t), index: LogIndex(i) }),
            stamp: Timestamp(n[0]),
            topics_version: n[1],
            dedupe_next: n[2],
            dedupe_digest: n[3],
            keys_next: n[4],
            keys_sealed: n[5],
            key_blocks: n[6],
        })
    }

    proptest! {
        #[test]
        fn a_frontier_survives_the_store(frontier in frontier()) {
            prop_assert_eq!(decode(&frontier.encode()).unwrap(), frontier);
        }

        #[test]
        fn a_shorter_value_is_damaged(frontier in frontier(), cut in 1..74_usize) {
            prop_assert!(decode(&frontier.encode()[..74 - cut]).is_err());
        }
    }

    #[test]
    fn golden() {
        let applied = Some(LogId { term: Term(2), index: LogIndex(7) });
        let frontier =
            Frontier { applied, stamp: Timestamp(9), key_blocks: 3, ..Frontier::default() };
        let mut expected = vec![1, 1];
        for number in [2_u64, 7, 9, 0, 0, 0, 0, 0, 3] {
            expected.extend(number.to_be_bytes());
        }
        assert_eq!(frontier.encode(), expected);
    }

    #[test]
    fn another_schema_is_refused() {
        let mut value = Frontier::default().encode();
        value[0] = 9;
        assert!(matches!(decode(&value), Err(Error::Schema { found: 9, supported: 1 })));
    }
}
