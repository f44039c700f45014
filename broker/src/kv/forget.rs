//! Removing everything that belongs to something deleted.
//!
//! Records whose keys begin with a prefix and an id go by ranges of keys. A new kind of record with
//! such a key must be added to the list of its shape, or it stays behind for ever: ids are not
//! given again, so nobody would look at it.

use proto::{QueueId, QueueOffset};

use super::{Batch, ConsumerGroupId, Family, TopicId, consume_queue, dead_letter, prefix};

/// Keys `prefix | topic id 4 ..`.
const BY_TOPIC: [u8; 6] = [
    prefix::TOPIC,
    prefix::QUEUE_HEAD,
    prefix::TOPIC_STANDING,
    prefix::DEAD_LETTER,
    prefix::REDRIVE,
    prefix::RETAINED,
];
/// Keys `prefix | consumer group id 4 ..`, those by subscription among them.
const BY_GROUP: [u8; 5] = [
    prefix::CONSUMER_GROUP,
    prefix::PROGRESS,
    prefix::IN_FLIGHT,
    prefix::RESET,
    prefix::GROUP_STANDING,
];
/// Keys `prefix | consumer group id 4 | topic id 4 ..`.
const BY_SUBSCRIPTION: [u8; 3] = [prefix::PROGRESS, prefix::IN_FLIGHT, prefix::RESET];

/// A topic with its queues; not what consumer groups have to do with it.
pub fn topic(batch: &mut Batch, topic: TopicId) {
    for prefix in BY_TOPIC {
        remove(batch, Family::State, &[&[prefix], &topic.0.to_be_bytes()]);
    }
    remove(batch, Family::Queue, &[&topic.0.to_be_bytes()]);
}

/// A consumer group with everything that it has to do with topics.
pub fn group(batch: &mut Batch, group: ConsumerGroupId) {
    for prefix in BY_GROUP {
        remove(batch, Family::State, &[&[prefix], &group.0.to_be_bytes()]);
    }
}

/// What one consumer group has to do with one topic.
pub fn subscription(batch: &mut Batch, group: ConsumerGroupId, topic: TopicId) {
    for prefix in BY_SUBSCRIPTION {
        let parts: [&[u8]; 3] = [&[prefix], &group.0.to_be_bytes(), &topic.0.to_be_bytes()];
        remove(batch, Family::State, &parts);
    }
}

/// Consume-queue entries below an offset, as far as whole runs of them are.
pub fn entries(batch: &mut Batch, topic: TopicId, queue: QueueId, below: QueueOffset) {
    let from = consume_queue::key(topic, queue, QueueOffset(0));
    batch.delete_range(Family::Queue, &from, &consume_queue::key(topic, queue, below));
}

/// Where the dead letters of a queue below an offset came from.
pub fn origins(batch: &mut Batch, topic: TopicId, queue: QueueId, below: QueueOffset) {
    let from = dead_letter::key((topic, queue, QueueOffset(0)));
    batch.delete_range(Family::State, &from, &dead_letter::key((topic, queue, below)));
}

/// Every key that begins with these parts.
fn remove(batch: &mut Batch, family: Family, parts: &[&[u8]]) {
    let from = parts.concat();
    batch.delete_range(family, &from, &after(&from));
}

/// The first key that is behind all that begin with `front`.
fn after(front: &[u8]) -> Vec<u8> {
    let mut below = front.to_vec();
    while let Some(last) = below.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return below;
        }
        below.pop();
    }
    unreachable!("prefixes and ids are never all ones")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Kv, Memory};

    #[test]
    fn only_what_begins_so_goes() {
        let kv = Memory::new();
        let mut batch = Batch::default();
        let keys: [&[u8]; 6] = [
            &[prefix::QUEUE_HEAD, 0, 0, 0, 255],
            &[prefix::QUEUE_HEAD, 0, 0, 0, 255, 0, 0, 0, 1],
            &[prefix::QUEUE_HEAD, 0, 0, 0, 255, 255, 255, 255, 255],
            &[prefix::QUEUE_HEAD, 0, 0, 1, 0],
            &[prefix::QUEUE_HEAD, 0, 0, 0, 254, 255],
            &[prefix::PROGRESS, 0, 0, 0, 255],
        ];
        keys.iter().for_each(|key| batch.put(Family::State, key, b""));
        topic(&mut batch, TopicId(255));
        kv.write(&batch).unwrap();
        let left = |key: &&&[u8]| kv.get(Family::State, key).unwrap().is_some();
        assert_eq!(keys.iter().filter(left).collect::<Vec<_>>(), [&keys[3], &keys[4], &keys[5]]);
    }
}
