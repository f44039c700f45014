//! What became of each message, as far as its senders know.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Key, Message, Op, Outcome, Record};

/// The best news about a message over all attempts to send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// No attempt happened, and none ever will.
    Failed,
    Unknown,
    Done,
}

/// One message with all attempts to send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub key: Key,
    pub fate: Fate,
    /// When the first attempt began.
    pub began: u64,
    /// When the first acknowledgement came; `u64::MAX` without one.
    pub acked: u64,
    /// What the first acknowledgement named, if it named one.
    pub offset: Option<u64>,
    /// Wall clock ms before which it must not be delivered.
    pub deliver_at: Option<u64>,
    pub message_group: Option<String>,
    /// Whether it is a half message of a transaction.
    pub half: bool,
    /// Places of the attempts in [`Record::ops`].
    pub attempts: Vec<usize>,
}

/// All messages of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sends {
    pub by_id: BTreeMap<Message, Sent>,
    /// Recalls of delayed messages that may have happened: places in [`Record::ops`].
    pub recalls: BTreeMap<Message, Vec<usize>>,
}

impl Sends {
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let mut sends = Self::default();
        for (place, op) in record.ops.iter().enumerate() {
            match &op.call {
                Call::Send { ids, .. } => {
                    for (nth, id) in ids.iter().enumerate() {
                        sends.enter(place, op, *id, nth);
                    }
                }
                Call::Prepare { tx, .. } => sends.enter(place, op, *tx, 0),
                Call::Recall { id } => {
                    let refused =
                        op.is_failed() || op.answer() == Some(&Answer::Recall { done: false });
                    if !refused {
                        sends.recalls.entry(*id).or_default().push(place);
                    }
                }
                _ => {}
            }
        }
        sends
    }

    fn enter(&mut self, place: usize, op: &Op, id: Message, nth: usize) {
        let sent = self.by_id.entry(id).or_insert_with(|| Sent::new(op));
        sent.attempts.push(place);
        let (fate, offset) = match &op.outcome {
            Outcome::Ok(Answer::Send { offsets }) => (Fate::Done, offsets.get(nth).copied()),
            Outcome::Ok(_) => (Fate::Done, None),
            Outcome::Unknown(_) => (Fate::Unknown, None),
            Outcome::Failed(_) => (Fate::Failed, None),
        };
        sent.fate = sent.fate.max(fate);
        if fate == Fate::Done && op.ended < sent.acked {
            sent.acked = op.ended;
            sent.offset = offset;
        }
    }
}

impl Sends {
    /// The messages of each queue, in the order of their ids.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<Key, Vec<(Message, &Sent)>> {
        let mut by_key: BTreeMap<Key, Vec<(Message, &Sent)>> = BTreeMap::new();
        for (id, sent) in &self.by_id {
            by_key.entry(sent.key).or_default().push((*id, sent));
        }
        by_key
    }
}

impl Sent {
    fn new(op: &Op) -> Self {
        let (deliver_at, message_group) = match &op.call {
            Call::Send { deliver_at, message_group, .. } => (*deliver_at, message_group.clone()),
            _ => (None, None),
        };
        Self {
            key: op.call.key().expect("what is sent has a queue"),
            fate: Fate::Failed,
            began: op.began,
            acked: u64::MAX,
            offset: None,
            deliver_at,
            message_group,
            half: matches!(op.call, Call::Prepare { .. }),
            attempts: Vec::new(),
        }
    }

    /// The operations that tried to send it.
    pub fn ops<'r>(&self, record: &'r Record) -> impl Iterator<Item = &'r Op> {
        self.attempts.iter().map(|place| &record.ops[*place])
    }
}
