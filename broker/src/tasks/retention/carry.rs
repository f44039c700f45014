//! Stores what little is left of old segments again, so that they can go.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use raft::LogOffset;
use tracing::info;

use super::PROPOSAL_WAIT;
use crate::{
    Error,
    command::{CarriedMessage, Carry, Command, Outcome},
    ops::{Broker, unexpected},
    state::{Lying, Walk},
};

/// A segment of which less than this part is kept is carried.
const SHARE: u64 = 5;
/// Segments carried in one round: others wait for their retention meanwhile.
const SEGMENTS: usize = 8;
/// Things looked at while nothing is applied.
const LOOKED_AT: usize = 2048;
/// Bytes of messages in one command, unless a single one has more.
const COMMAND_BYTES: u64 = 1 << 20;
/// References in one command.
const COMMAND_REFERENCES: usize = 2048;
/// Bytes carried in a second: sends go on meanwhile.
const BYTES_PER_SECOND: u64 = 32 << 20;

const _: () = assert!(COMMAND_REFERENCES <= Carry::MAX_MESSAGES);
const _: () = assert!(COMMAND_REFERENCES <= CarriedMessage::MAX_REFERENCES);

/// Carries from the oldest segments while that is worth it. Whether there may be more.
pub(super) async fn forward(broker: &Arc<Broker>, pressed: bool) -> Result<bool, Error> {
    for _ in 0..SEGMENTS {
        let Some((base, live)) = broker.view().worth_carrying(SHARE, pressed) else {
            return Ok(false);
        };
        let moved = segment(broker, base, live.references).await?;
        info!(segment = base.0, messages = moved, bytes = live.bytes, "carried forward");
        if moved == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Carries what refers into a segment, `expected` references. How many moved.
async fn segment(broker: &Arc<Broker>, base: LogOffset, expected: u64) -> Result<u64, Error> {
    let mut load = Load::default();
    let (mut walk, mut found, mut moved) = (Walk::BEGIN, 0, 0);
    // All that refers to the segment is old: when it is found, the rest need not be looked at.
    while walk != Walk::Done && found < expected {
        let (some, next) = broker.view().lying_in(base, walk, LOOKED_AT)?;
        found += some.len() as u64;
        for lying in some {
            if load.is_full_with(&lying) {
                moved += std::mem::take(&mut load).propose(broker).await?;
            }
            load.add(lying);
        }
        walk = next;
        tokio::task::yield_now().await;
    }
    moved += load.propose(broker).await?;
    Ok(moved)
}

/// What goes into one command.
#[derive(Debug, Default)]
struct Load {
    /// By position and length, those who refer there.
    messages: BTreeMap<(LogOffset, u32), Vec<Lying>>,
    references: usize,
    bytes: u64,
}

impl Load {
    fn is_full_with(&self, next: &Lying) -> bool {
        let bytes = self.bytes + u64::from(next.len);
        self.references > 0 && (self.references == COMMAND_REFERENCES || bytes > COMMAND_BYTES)
    }

    fn add(&mut self, lying: Lying) {
        let at = self.messages.entry((lying.position, lying.len)).or_default();
        if at.is_empty() {
            self.bytes += u64::from(lying.len);
        }
        at.push(lying);
        self.references += 1;
    }

    /// How many references moved.
    async fn propose(self, broker: &Arc<Broker>) -> Result<u64, Error> {
        if self.references == 0 {
            return Ok(0);
        }
        let (started, bytes) = (Instant::now(), self.bytes);
        let messages = self.messages.into_iter().map(|((from, len), all)| {
            let references = all.into_iter().map(|lying| lying.reference).collect();
            let bytes = broker.view().stored_at(from, len)?;
            Ok(CarriedMessage { from, references, bytes })
        });
        let messages = messages.collect::<Result<Vec<_>, Error>>()?;
        let carry = Command::Carry(Carry { messages });
        let moved = match broker.propose(&carry, started + PROPOSAL_WAIT).await? {
            Outcome::Carried { references, .. } => references,
            other => unexpected(&other),
        };
        let share = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64);
        tokio::time::sleep_until((started + share).into()).await;
        Ok(moved.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Reference;

    fn lying(position: u64, len: u32) -> Lying {
        Lying { position: LogOffset(position), len, reference: Reference::Half(position) }
    }

    #[test]
    fn a_load_has_a_bound_and_takes_one_of_any_size() {
        let mut load = Load::default();
        let large = lying(0, 4 << 20);
        assert!(!load.is_full_with(&large));
        load.add(large);
        assert!(load.is_full_with(&lying(1, 1)));
        let mut load = Load::default();
        let mut count = 0;
        while !load.is_full_with(&lying(count, 0)) {
            load.add(lying(count, 0));
            count += 1;
        }
        assert_eq!(count, COMMAND_REFERENCES as u64);
    }

    #[test]
    fn a_body_is_stored_once() {
        let mut load = Load::default();
        load.add(lying(7, 100));
        load.add(lying(7, 100));
        load.add(lying(9, 100));
        assert_eq!((load.bytes, load.references, load.messages.len()), (200, 3, 2));
    }
}
