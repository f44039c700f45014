//! Deliveries of one consumer group on one topic, in memory: by place, by due time, by client.

use std::collections::{BTreeMap, BTreeSet};

use proto::{QueueId, QueueOffset, Timestamp};

use super::blocks::Blocks;
use super::clients::ClientSlot;
use crate::kv::in_flight::Delivery;

/// A delivery and who holds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) delivery: Delivery,
    pub(super) client: ClientSlot,
}

/// The indexes always hold the same deliveries: `due` and `blocks` together all of them, the others
/// those that they say.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    records: BTreeMap<(QueueId, QueueOffset), Record>,
    /// Without an order.
    due: BTreeSet<(Timestamp, QueueId, QueueOffset)>,
    /// With an order.
    pub(super) blocks: Blocks,
    /// With an order and automatic renewal.
    ordered_renewals: BTreeSet<(Timestamp, QueueId, QueueOffset)>,
    /// With an attempt id.
    attempts: BTreeSet<(u64, QueueId, QueueOffset)>,
    /// With automatic renewal.
    renewed: BTreeSet<(ClientSlot, QueueId, QueueOffset)>,
}

impl InFlight {
    pub(super) fn get(&self, queue: QueueId, offset: QueueOffset) -> Option<&Record> {
        self.records.get(&(queue, offset))
    }

    /// Puts a delivery in place of whatever was there, which is returned.
    pub(super) fn put(
        &mut self,
        queue: QueueId,
        offset: QueueOffset,
        record: Record,
    ) -> Option<Record> {
        let old = self.remove(queue, offset);
        self.records.insert((queue, offset), record);
        let delivery = &record.delivery;
        match delivery.order {
            None => {
                self.due.insert((delivery.due, queue, offset));
            }
            Some(order) => {
                self.blocks.put(queue, offset, delivery, order.block);
                order.attempt_id.map(|id| self.attempts.insert((id, queue, offset)));
                if delivery.auto_renew {
                    self.ordered_renewals.insert((delivery.due, queue, offset));
                }
            }
        }
        if delivery.auto_renew {
            self.renewed.insert((record.client, queue, offset));
        }
        old
    }

    pub(super) fn remove(&mut self, queue: QueueId, offset: QueueOffset) -> Option<Record> {
        let old = self.records.remove(&(queue, offset))?;
        let delivery = &old.delivery;
        match delivery.order {
            None => {
                self.due.remove(&(delivery.due, queue, offset));
            }
            Some(order) => {
                self.blocks.remove(queue, offset, delivery, order.block);
                order.attempt_id.map(|id| self.attempts.remove(&(id, queue, offset)));
                self.ordered_renewals.remove(&(delivery.due, queue, offset));
            }
        }
        if delivery.auto_renew {
            self.renewed.remove(&(old.client, queue, offset));
        }
        Some(old)
    }

    /// By queue and offset.
    pub(super) fn records(&self) -> impl Iterator<Item = ((QueueId, QueueOffset), &Record)> {
        self.records.iter().map(|(place, record)| (*place, record))
    }

    /// The first message of a queue that is in flight.
    pub(super) fn first_of(&self, queue: QueueId) -> Option<QueueOffset> {
        let all = (queue, QueueOffset(0))..=(queue, QueueOffset(u64::MAX));
        self.records.range(all).next().map(|((_, offset), _)| *offset)
    }

    /// Offsets of a queue below `below` that are in flight, ascending.
    pub(super) fn of_queue(
        &self,
        queue: QueueId,
        below: QueueOffset,
    ) -> impl Iterator<Item = QueueOffset> {
        let all = (queue, QueueOffset(0))..(queue, below);
        self.records.range(all).map(|((_, offset), _)| *offset)
    }

    /// Deliveries of a queue that have not ended at `now`.
    pub(super) fn lasting(&self, queue: QueueId, now: Timestamp) -> usize {
        let all = (queue, QueueOffset(0))..=(queue, QueueOffset(u64::MAX));
        self.records.range(all).filter(|(_, record)| now < record.delivery.due).count()
    }

    /// When the next message can be delivered again.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let due = self.due.first().map(|(due, ..)| *due);
        [due, self.blocks.next_ready()].into_iter().flatten().min()
    }

    /// What can be delivered again at `until`: deliveries that have ended, in the order in which
    /// they ended, then the first message of each block that is ready.
    pub(super) fn due(
        &self,
        until: Timestamp,
    ) -> impl Iterator<Item = (QueueId, QueueOffset, &Record)> {
        let due = self.due.range(ended(until)).map(|(_, queue, offset)| (*queue, *offset));
        let ready = self.blocks.ready(until).map(|(_, queue, offset)| (queue, offset));
        due.chain(ready).map(|place| (place.0, place.1, &self.records[&place]))
    }

    /// Auto-renewed deliveries that end at `until` or before, and others.
    pub(super) fn ending(
        &self,
        until: Timestamp,
    ) -> impl Iterator<Item = (QueueId, QueueOffset, &Record)> {
        let all = self.due.range(ended(until)).chain(self.ordered_renewals.range(ended(until)));
        all.map(|(_, queue, offset)| (*queue, *offset, &self.records[&(*queue, *offset)]))
    }

    /// What one receive call was granted, and is not acknowledged.
    pub(super) fn of_attempt(
        &self,
        attempt_id: u64,
        client: ClientSlot,
    ) -> impl Iterator<Item = (QueueId, QueueOffset)> {
        let range = (attempt_id, QueueId(0), QueueOffset(0))
            ..=(attempt_id, QueueId(u32::MAX), QueueOffset(u64::MAX));
        let places = self.attempts.range(range).map(|(_, queue, offset)| (*queue, *offset));
        places.filter(move |place| self.records[place].client == client)
    }

    /// Renewed deliveries of a client, by queue and offset.
    pub(super) fn renewed_of(
        &self,
        client: ClientSlot,
    ) -> impl Iterator<Item = (QueueId, QueueOffset)> {
        self.renewed_between(client, QueueId(0), QueueId(u32::MAX))
    }

    /// The same within one queue.
    pub(super) fn renewed_of_in(
        &self,
        client: ClientSlot,
        queue: QueueId,
    ) -> impl Iterator<Item = (QueueId, QueueOffset)> {
        self.renewed_between(client, queue, queue)
    }

    fn renewed_between(
        &self,
        client: ClientSlot,
        first: QueueId,
        last: QueueId,
    ) -> impl Iterator<Item = (QueueId, QueueOffset)> {
        let range = (client, first, QueueOffset(0))..=(client, last, QueueOffset(u64::MAX));
        self.renewed.range(range).map(|(_, queue, offset)| (*queue, *offset))
    }
}

fn ended(until: Timestamp) -> std::ops::RangeToInclusive<(Timestamp, QueueId, QueueOffset)> {
    ..=(until, QueueId(u32::MAX), QueueOffset(u64::MAX))
}
