//! What a broker group replicates: the contract between consensus and the state above it.

use std::path::Path;

use bytes::Bytes;
use commitlog::position::{LogId, LogOffset};

use crate::{ApplyError, CheckpointError};

/// The deterministic state of one broker group. Every replica applies the same entries in the same
/// order, so that equal `applied` means equal state.
pub trait StateMachine: Send + Sync + 'static {
    /// What a proposer is told about its command once it was applied.
    type Outcome: Send + 'static;

    /// How far the state has come. Entries after it are replayed from the log when the group
    /// starts; whether it is durable is the state machine's own matter, as long as it never claims
    /// more than it would remember.
    fn applied(&self) -> Applied;

    /// Applies `entries`, which follow each other and what was applied before without a gap.
    ///
    /// Returns, for each entry, one outcome per command (none for entries without commands). The
    /// membership bytes of [`Payload::Membership`] are to be kept and returned by
    /// [`StateMachine::applied`].
    ///
    /// Called from one task at a time; may block for as long as a write to local storage takes.
    /// An error is final: the node stops.
    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Vec<Self::Outcome>>, ApplyError>;

    /// Nothing that this state may still read lies below this position. Never goes back; equal on
    /// replicas that applied the same. What lies below is removed, a segment at a time.
    fn floor(&self) -> LogOffset {
        LogOffset(0)
    }

    /// How to write a copy of the state. Quick: the work is in calling what it returns, which
    /// happens elsewhere while entries go on being applied.
    fn checkpoint(&self) -> Checkpoint;

    /// How to read the state on the disk again, piece by piece, in search of damage; `None` if none
    /// of it is there. Entries go on being applied meanwhile.
    fn scrub(&self) -> Option<Scrub> {
        None
    }

    /// Puts the copy in the directory `from` in the place of this state; `from` stays as it is.
    /// Durable when this returns. If a crash interrupts it, it is called again at the next start,
    /// whatever the state then looks like.
    ///
    /// # Errors
    /// Final: the node stops.
    fn install(&mut self, from: &Path) -> Result<(), ApplyError>;
}

/// Writes a self-contained durable copy of a state into a directory that does not exist yet, as
/// plain files, by hard links where it can; returns what the copy is as of, which is no older than
/// the state was when this was made.
pub type Checkpoint = Box<dyn FnOnce(&Path) -> Result<Applied, CheckpointError> + Send + Sync>;

/// Reads about so many bytes; returns how many they were, 0 when everything has been read. An error
/// is damage: the node stops.
pub type Scrub = Box<dyn FnMut(u64) -> Result<u64, ApplyError> + Send>;

/// How far a state machine has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied; `None` before the first.
    pub log_id: Option<LogId>,
    /// The bytes of the last [`Payload::Membership`] applied.
    pub membership: Option<Bytes>,
}

/// One committed log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub log_id: LogId,
    /// Log time in ms since the Unix epoch: never smaller than the stamp of an earlier entry. The
    /// only clock that `apply` may look at.
    pub stamp: u64,
    pub payload: Payload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Marks the start of a leader's term. Changes nothing.
    Blank,
    /// Who belongs to the group, in this crate's own encoding.
    Membership(Bytes),
    /// Commands of any kind, to be applied in order.
    Batch(Vec<Command>),
}

/// What was proposed, and where in the log it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Position of `bytes[0]` in the log, the same on every replica.
    pub position: LogOffset,
    /// A slice of the entry; keeping it keeps the whole entry in memory or mapped.
    pub bytes: Bytes,
}
