//! Deliveries to a consumer group as leases: who held which message, from when to when.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Key, Message, Op, Outcome};
use crate::judge::{Case, MS};

/// One delivery of one message.
#[derive(Debug)]
pub(crate) struct Grant<'a> {
    pub op: &'a Op,
    pub id: Message,
    pub key: Key,
    pub offset: Option<u64>,
    pub attempt: u32,
    /// Its place in the answer.
    pub nth: usize,
    invisible: u64,
    /// Changes of the invisible time, in the order of their beginnings.
    changes: Vec<&'a Op>,
}

impl Grant<'_> {
    /// The earliest end of the invisible time, as things stood at `time`, if the delivery was made
    /// as early as it may have been.
    pub(crate) fn ends_earliest(&self, time: u64) -> u64 {
        let mut end = self.op.began + self.invisible;
        for change in self.changes.iter().filter(|c| c.began < time) {
            let changed = change.began + invisible_of(change);
            end = if change.is_ok() { changed } else { end.min(changed) };
        }
        end
    }

    /// The latest end; `u64::MAX` when it cannot be told.
    pub(crate) fn ends_latest(&self) -> u64 {
        let mut end = self.op.ended + self.invisible;
        for change in &self.changes {
            end = if change.is_ok() { change.ended + invisible_of(change) } else { u64::MAX };
        }
        end
    }
}

fn invisible_of(op: &Op) -> u64 {
    match &op.call {
        Call::Receive { invisible_ms, .. } | Call::ChangeInvisible { invisible_ms, .. } => {
            invisible_ms * MS
        }
        _ => 0,
    }
}

/// What one consumer group was given, and what it said to that.
#[derive(Debug, Default)]
pub(crate) struct Deliveries<'a> {
    /// In the order of the receives' beginnings.
    pub grants: Vec<Grant<'a>>,
    /// Places in `grants`, in the order in which the deliveries arrived.
    pub of_message: BTreeMap<Message, Vec<usize>>,
    /// Acks that happened or may have happened.
    pub acks: BTreeMap<Message, Vec<&'a Op>>,
    /// Receives by queue.
    pub receives: BTreeMap<Key, Vec<&'a Op>>,
    /// Messages seen in the dead-letter queue, with the first read that showed them.
    pub dead: BTreeMap<Message, &'a Op>,
    by_handle: BTreeMap<u64, usize>,
}

impl<'a> Deliveries<'a> {
    /// The deliveries of every group that the history knows.
    pub(crate) fn of(case: &Case<'a>) -> BTreeMap<&'a str, Self> {
        let mut groups: BTreeMap<&str, Self> =
            case.plan.groups.iter().map(|g| (g.name.as_str(), Self::default())).collect();
        for op in &case.record.ops {
            if let Call::Receive { group, .. }
            | Call::Ack { group, .. }
            | Call::ChangeInvisible { group, .. }
            | Call::DeadLetters { group } = &op.call
            {
                groups.entry(group).or_default().enter(op);
            }
        }
        for group in groups.values_mut() {
            for places in group.of_message.values_mut() {
                places.sort_by_key(|place| group.grants[*place].op.ended);
            }
        }
        groups
    }

    fn enter(&mut self, op: &'a Op) {
        match (&op.call, &op.outcome) {
            (Call::Receive { key, .. }, outcome) => {
                self.receives.entry(*key).or_default().push(op);
                let Outcome::Ok(Answer::Receive { deliveries, .. }) = outcome else { return };
                for (nth, delivery) in deliveries.iter().enumerate() {
                    let place = self.grants.len();
                    self.by_handle.insert(delivery.handle, place);
                    self.of_message.entry(delivery.id).or_default().push(place);
                    self.grants.push(Grant {
                        op,
                        id: delivery.id,
                        key: *key,
                        offset: delivery.offset,
                        attempt: delivery.attempt,
                        nth,
                        invisible: invisible_of(op),
                        changes: Vec::new(),
                    });
                }
            }
            (Call::Ack { id, .. }, Outcome::Ok(_) | Outcome::Unknown(_)) => {
                self.acks.entry(*id).or_default().push(op);
            }
            (Call::ChangeInvisible { handle, .. }, Outcome::Ok(_) | Outcome::Unknown(_)) => {
                let Some(place) = self.by_handle.get(handle).copied() else { return };
                self.grants[place].changes.push(op);
                if let Outcome::Ok(Answer::ChangeInvisible { handle }) = &op.outcome {
                    self.by_handle.insert(*handle, place);
                }
            }
            (Call::DeadLetters { .. }, Outcome::Ok(Answer::DeadLetters { ids })) => {
                for id in ids {
                    self.dead.entry(*id).or_insert(op);
                }
            }
            _ => {}
        }
    }

    /// The deliveries of a message, in the order in which they arrived.
    pub(crate) fn grants_of(&self, id: Message) -> impl Iterator<Item = &Grant<'a>> {
        self.of_message.get(&id).into_iter().flatten().map(|place| &self.grants[*place])
    }

    /// When an ack of the message was first confirmed.
    pub(crate) fn acked(&self, id: Message) -> Option<&'a Op> {
        let acks = self.acks.get(&id)?;
        acks.iter().copied().filter(|op| op.is_ok()).min_by_key(|op| op.ended)
    }

    /// The earliest moment at which an ack of the message may have taken effect.
    pub(crate) fn may_be_acked_from(&self, id: Message) -> u64 {
        let acks = self.acks.get(&id).into_iter().flatten();
        acks.map(|op| op.began).min().unwrap_or(u64::MAX)
    }
}
