//! The types that openraft is instantiated with.
//!
//! Bodies are [`Bytes`] from the proposer to the disk: an entry is cloned by reference count, and
//! nothing is serialised on the way.

use std::any::Any;
use std::fmt;
use std::sync::Mutex;

use bytes::Bytes;
use commitlog::position::{LogId, LogIndex, LogOffset, Term};
use openraft::alias::{LogIdOf, VoteOf};
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use openraft::{OptionalSend, RaftTypeConfig};

use crate::membership::{self, Membership, Node};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Batch;
    type R = Reply;
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<LeaderId<u64, u64>>;
    type Payload = EntryPayload;
    type Entry = LogEntry;
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder<T>
        = Responder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

pub(crate) type RaftLogId = LogIdOf<TypeConfig>;
pub(crate) type RaftVote = VoteOf<TypeConfig>;

pub(crate) fn to_raft(log_id: LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(log_id.term.0), log_id.index.0)
}

pub(crate) fn from_raft(log_id: &RaftLogId) -> LogId {
    LogId {
        term: Term(*log_id.committed_leader_id().as_ref_term()),
        index: LogIndex(log_id.index()),
    }
}

/// `CommittedLeaderId` derefs to its term; this names what the deref means.
trait AsRefTerm {
    fn as_ref_term(&self) -> &u64;
}

impl AsRefTerm for CommittedLeaderId<u64> {
    fn as_ref_term(&self) -> &u64 {
        self
    }
}

/// Commands packed into one body, ready for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Log time in ms.
    pub(crate) stamp: u64,
    pub(crate) body: Bytes,
    /// CRC-32 of `body`, computed once on the leader and checked by every receiver.
    pub(crate) body_crc: u32,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.body.len())
    }
}

/// A membership and its bytes in the log. The bytes are kept so that every replica stores the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MembershipBody {
    pub(crate) membership: Membership,
    pub(crate) body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryPayload {
    Blank,
    Batch(Batch),
    Membership(MembershipBody),
}

impl fmt::Display for EntryPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryPayload::Blank => f.write_str("blank"),
            EntryPayload::Batch(batch) => write!(f, "batch of {batch}"),
            EntryPayload::Membership(body) => write!(f, "{}", body.membership),
        }
    }
}

impl RaftPayload for EntryPayload {
    type D = Batch;
    type NodeId = u64;
    type Node = Node;

    fn blank() -> Self {
        EntryPayload::Blank
    }

    fn with_normal(self, data: Batch) -> Self {
        EntryPayload::Batch(data)
    }

    fn with_membership(self, membership: Membership) -> Self {
        let body = membership::encode(&membership);
        EntryPayload::Membership(MembershipBody { membership, body })
    }

    fn get_membership(&self) -> Option<Membership> {
        match self {
            EntryPayload::Membership(body) => Some(body.membership.clone()),
            EntryPayload::Blank | EntryPayload::Batch(_) => None,
        }
    }
}

/// One log entry on its way through openraft.
#[derive(Debug, Clone)]
pub(crate) struct LogEntry {
    pub(crate) log_id: RaftLogId,
    /// Log time in ms; 0 for an entry that has not been appended yet and carries no commands.
    pub(crate) stamp: u64,
    pub(crate) payload: EntryPayload,
    /// Where the body lies, once it was read back from the log.
    pub(crate) position: Option<LogOffset>,
}

impl LogEntry {
    /// Bytes that reading or sending this entry moves.
    pub(crate) fn body_len(&self) -> usize {
        match &self.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Batch(batch) => batch.body.len(),
            EntryPayload::Membership(body) => body.body.len(),
        }
    }
}

/// Equal content; where it lies does not matter.
impl PartialEq for LogEntry {
    fn eq(&self, other: &Self) -> bool {
        self.log_id == other.log_id && self.payload == other.payload
    }
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.log_id, self.payload)
    }
}

impl RaftEntry for LogEntry {
    type CommittedLeaderId = CommittedLeaderId<u64>;
    type Payload = EntryPayload;

    fn new(log_id: RaftLogId, payload: EntryPayload) -> Self {
        let stamp = match &payload {
            EntryPayload::Batch(batch) => batch.stamp,
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        LogEntry { log_id, stamp, payload, position: None }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId<u64>, u64) {
        (self.log_id.committed_leader_id(), self.log_id.index())
    }

    fn set_log_id(&mut self, new: RaftLogId) {
        self.log_id = new;
    }

    fn get_membership(&self) -> Option<Membership> {
        self.payload.get_membership()
    }
}

/// The outcomes of one entry's commands, on their way from the state machine to the proposers.
///
/// openraft is instantiated once for all state machines, so the vector of outcomes is boxed as
/// `dyn Any`: one box per entry. The mutex only provides `Sync`; it is never contended.
pub(crate) struct Reply(Mutex<Option<Box<dyn Any + Send>>>);

impl Reply {
    pub(crate) fn new<O: Send + 'static>(outcomes: Vec<O>) -> Reply {
        Reply(Mutex::new(Some(Box::new(outcomes))))
    }

    /// # Panics
    /// The state machine's outcomes are of another type: a group has only one state machine.
    pub(crate) fn into_outcomes<O: Send + 'static>(self) -> Vec<O> {
        let boxed = self.0.into_inner().expect("nobody panics holding it");
        let boxed = boxed.expect("taken once");
        *boxed.downcast().expect("a group has one type of outcome")
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply(..)")
    }
}

/// Tells the proposer of one entry when it was committed, and what came of it. Dropping it
/// unanswered means that the outcome is unknown.
pub(crate) struct Responder<T> {
    pub(crate) on_commit: Option<Box<dyn FnOnce() + Send>>,
    pub(crate) on_complete: Box<dyn FnOnce(T) + Send>,
}

impl<T> fmt::Debug for Responder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder(..)")
    }
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T>
    for Responder<T>
{
    fn on_commit(&mut self, _log_id: RaftLogId) {
        if let Some(on_commit) = self.on_commit.take() {
            on_commit();
        }
    }

    fn on_complete(self, result: T) {
        (self.on_complete)(result);
    }
}
