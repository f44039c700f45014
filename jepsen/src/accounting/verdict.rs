//! What a checked history amounts to.

use std::fmt;

use crate::accounting::history::{Message, Place, Queue};

/// How many anomalies the text of a verdict shows before it only counts the rest.
const SHOWN: usize = 20;

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// Acknowledged, but never received by a group that read to the end.
    Lost { group: String, message: Message },
    /// Received by one group, but absent for a group that read to the end: what was seen is gone.
    Vanished { group: String, message: Message },
    /// Received although nobody sent it, or although the sender was told that it never will be.
    Phantom { group: String, message: Message },
    /// The queue offset received differs from the one that the acknowledgement named.
    Misplaced { message: Message, acknowledged: u64, place: Place },
    /// One send lies at two places.
    StoredTwice { message: Message, first: Place, second: Place },
    /// One offset held two messages.
    OffsetReused { place: Place, first: Message, second: Message },
    /// A queue has no message at an offset below its highest one.
    Gap { group: String, queue: Queue, offset: u64 },
    /// Delivered to a group again by a receive that began after its acknowledgement was confirmed.
    Resurrected { group: String, message: Message },
    /// A delivery counted as attempt zero.
    NoAttempt { group: String, message: Message },
    /// A body that is none of this run's.
    Garbage { group: String, what: String },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { group, message } => {
                write!(f, "lost: {message} was acknowledged, {group} never received it")
            }
            Self::Vanished { group, message } => {
                write!(f, "vanished: {message} was received, but {group} does not find it")
            }
            Self::Phantom { group, message } => {
                write!(f, "phantom: {group} received {message}, which was not sent or was refused")
            }
            Self::Misplaced { message, acknowledged, place } => {
                write!(
                    f,
                    "misplaced: {message} was acknowledged at {acknowledged}, lies at {place}"
                )
            }
            Self::StoredTwice { message, first, second } => {
                write!(f, "stored twice: {message} lies at {first} and at {second}")
            }
            Self::OffsetReused { place, first, second } => {
                write!(f, "offset reused: {place} held {first} and {second}")
            }
            Self::Gap { group, queue, offset } => {
                write!(f, "gap: {group} found nothing at {queue}:{offset}")
            }
            Self::Resurrected { group, message } => {
                write!(f, "resurrected: {group} received {message} again after it was acked")
            }
            Self::NoAttempt { group, message } => {
                write!(f, "no attempt: {group} received {message} as attempt 0")
            }
            Self::Garbage { group, what } => write!(f, "garbage: {group} received {what}"),
        }
    }
}

/// The counts of a run and everything that must never happen but did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that a client tried to send.
    pub sent: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Messages whose fate the sender does not know.
    pub unknown: u64,
    /// Messages that were refused for good.
    pub refused: u64,
    /// Distinct messages received, summed over the groups that read to the end.
    pub received: u64,
    /// Deliveries beyond the first of a message to a group. Legal: delivery is at least once.
    pub duplicates: u64,
    /// In the order of their finding.
    pub anomalies: Vec<Anomaly>,
}

impl Verdict {
    /// Whether nothing happened that must not.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// Acknowledged messages that a group did not get, over all groups.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.anomalies.iter().filter(|a| matches!(a, Anomaly::Lost { .. })).count()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {}, acknowledged {}, unknown {}, refused {}, received {}, duplicates {}, lost {}",
            self.sent,
            self.acknowledged,
            self.unknown,
            self.refused,
            self.received,
            self.duplicates,
            self.lost()
        )?;
        for anomaly in self.anomalies.iter().take(SHOWN) {
            write!(f, "\n  {anomaly}")?;
        }
        if self.anomalies.len() > SHOWN {
            write!(f, "\n  and {} more", self.anomalies.len() - SHOWN)?;
        }
        Ok(())
    }
}
