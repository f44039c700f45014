//! Deliveries of one consumer group on one topic, in memory: by place, by due time, by client.

use std::collections::{BTreeMap, BTreeSet};

use proto::{QueueId, QueueOffset, Timestamp};

use super::clients::ClientSlot;
use crate::kv::in_flight::Delivery;

/// A delivery and who holds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) delivery: Delivery,
    pub(super) client: ClientSlot,
}

/// The three indexes always hold the same deliveries (the last one: those with automatic renewal).
#[derive(Debug, Default)]
pub(super) struct InFlight {
    records: BTreeMap<(QueueId, QueueOffset), Record>,
    due: BTreeSet<(Timestamp, QueueId, QueueOffset)>,
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
        self.due.insert((record.delivery.due, queue, offset));
        if record.delivery.auto_renew {
            self.renewed.insert((record.client, queue, offset));
        }
        old
    }

    pub(super) fn remove(&mut self, queue: QueueId, offset: QueueOffset) -> Option<Record> {
        let old = self.records.remove(&(queue, offset))?;
        self.due.remove(&(old.delivery.due, queue, offset));
        if old.delivery.auto_renew {
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

    /// When the next delivery ends.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// Deliveries that end at `until` or before, in the order in which they end.
    pub(super) fn due(
        &self,
        until: Timestamp,
    ) -> impl Iterator<Item = (QueueId, QueueOffset, &Record)> {
        let ended = ..=(until, QueueId(u32::MAX), QueueOffset(u64::MAX));
        self.due
            .range(ended)
            .map(|(_, queue, offset)| (*queue, *offset, &self.records[&(*queue, *offset)]))
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
