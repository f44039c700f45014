//! Delayed messages that were taken back.
//!
//! ```text
//! key    1b | due 8 | number 8
//! value  topic id 4
//! ```
//! Written by Recall. Deleted a while after the message would have been due.

use std::ops::ControlFlow;

use proto::Timestamp;

use super::timer::{id_bytes, parse_key};
use super::{Batch, Error, Family, Kv, TopicId, corrupt, prefix};
use crate::command::TimerId;

const RECORD: &str = "recalled timer";

pub fn put(batch: &mut Batch, id: TimerId, topic: TopicId) {
    batch.put(Family::State, &id_bytes(prefix::RECALLED, id), &topic.0.to_be_bytes());
}

pub fn delete(batch: &mut Batch, id: TimerId) {
    batch.delete(Family::State, &id_bytes(prefix::RECALLED, id));
}

/// The topic of a message that was taken back.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn get(kv: &dyn Kv, id: TimerId) -> Result<Option<TopicId>, Error> {
    let key = id_bytes(prefix::RECALLED, id);
    let read = |value: Vec<u8>| match value.try_into() {
        Ok(bytes) => Ok(TopicId(u32::from_be_bytes(bytes))),
        Err(_) => Err(corrupt(RECORD, "value has a wrong length", &key)),
    };
    kv.get(Family::State, &key)?.map(read).transpose()
}

/// The first ones that were due before a time, at most `limit`.
///
/// # Errors
/// The store cannot be read or holds a damaged record.
pub fn due_before(kv: &dyn Kv, time: Timestamp, limit: usize) -> Result<Vec<TimerId>, Error> {
    let mut found = Vec::with_capacity(limit);
    let below = id_bytes(prefix::RECALLED, TimerId { due: time, number: 0 });
    kv.scan(Family::State, &[prefix::RECALLED], &below, &mut |key, _| {
        if found.len() == limit {
            return Ok(ControlFlow::Break(()));
        }
        found.push(parse_key(key).ok_or_else(|| corrupt(RECORD, "key has a wrong length", key))?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Edit, Memory};

    fn id(due: u64, number: u64) -> TimerId {
        TimerId { due: Timestamp(due), number }
    }

    #[test]
    fn what_was_taken_back_is_found_by_id_and_by_time() {
        let kv = Memory::new();
        let mut batch = Batch::default();
        [id(9, 1), id(5, 2), id(5, 7)].iter().for_each(|id| put(&mut batch, *id, TopicId(3)));
        kv.write(&batch).unwrap();
        assert_eq!(get(&kv, id(5, 7)).unwrap(), Some(TopicId(3)));
        assert_eq!(get(&kv, id(5, 8)).unwrap(), None);
        assert_eq!(due_before(&kv, Timestamp(9), 9).unwrap(), [id(5, 2), id(5, 7)]);
        assert_eq!(due_before(&kv, Timestamp(10), 1).unwrap(), [id(5, 2)]);
        assert_eq!(due_before(&kv, Timestamp(5), 9).unwrap(), []);
    }

    #[test]
    fn golden() {
        let mut batch = Batch::default();
        put(&mut batch, id(1, 2), TopicId(3));
        let (_, Edit::Put { key, value }) = batch.changes().next().unwrap() else {
            panic!("a put")
        };
        assert_eq!(key, [0x1b, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(value, [0, 0, 0, 3]);
    }
}
