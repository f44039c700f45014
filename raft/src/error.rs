//! How things end: for a proposal, and for a node.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use commitlog::position::{LogId, LogIndex};

use crate::{GroupId, Member, NodeId};

/// Why a proposal has no outcome. Every variant says what became of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not done: this node does not lead. `leader` is whom it follows, if anybody.
    #[error("not the leader")]
    NotLeader { leader: Option<Member> },
    /// Not done: too much is waiting already, or the deadline passed before its turn came.
    #[error("overloaded")]
    Overloaded,
    /// Not done: the disk of the leader has no space for it.
    #[error("disk full")]
    DiskFull,
    /// Not done: the node is stopping.
    #[error("stopped")]
    Stopped,
    /// Rejected: it will never fit.
    #[error("command of {bytes} bytes is larger than {max}")]
    TooLarge { bytes: usize, max: usize },
    /// It was proposed, and may or may not take effect.
    #[error("proposed, outcome unknown")]
    Unknown,
}

/// A state machine could not apply an entry. The node stops.
#[derive(Debug, thiserror::Error)]
#[error("apply committed entries")]
pub struct ApplyError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl ApplyError {
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApplyError {
        ApplyError(source.into())
    }
}

/// A state machine could not write a copy of its state. Nothing else is affected.
#[derive(Debug, thiserror::Error)]
#[error("write a copy of the state")]
pub struct CheckpointError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl CheckpointError {
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CheckpointError {
        CheckpointError(source.into())
    }
}

/// Why a node does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("node {node} is not in its own peer list")]
    NotInPeers { node: NodeId },
    #[error("a node that joins a group has no list of initial voters")]
    JoinWithPeers,
    #[error("a node that joins a group needs an address at which its peers reach it")]
    JoinWithoutAddress,
    #[error(
        "heartbeat {heartbeat:?} < election_min {election_min:?} < election_max {election_max:?} \
         must hold"
    )]
    Timing { heartbeat: Duration, election_min: Duration, election_max: Duration },
    #[error("segment size {segment_size} is below {needed}, the largest entry with its headers")]
    SegmentTooSmall { segment_size: u64, needed: u64 },
    #[error(
        "limits must be positive and unacked_bytes {unacked_bytes} >= command_bytes {command_bytes}"
    )]
    Limits { unacked_bytes: usize, command_bytes: usize },
    #[error("snapshot_rate {rate} bytes per second is below {min}")]
    SnapshotRate { rate: u64, min: u64 },
    #[error("broker name {name:?} is empty or holds other than visible ASCII characters")]
    BrokerName { name: String },
    #[error("a secret of {bytes} bytes is shorter than {min}")]
    ShortSecret { bytes: usize, min: usize },
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("listen on {addr}")]
    Listen { addr: String, source: io::Error },
    /// The data directory or the peers say that this node must not take part.
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("replicated log")]
    Log(#[from] commitlog::Error),
    /// What lies on the disk of the state is not what was written. The next start takes another
    /// replica's, once this one is out of the way.
    #[error("the state is damaged")]
    StateDamaged { source: ApplyError },
    /// Damage in the log that no peer could help with.
    #[error("the log is damaged and was not repaired: {last}")]
    Unrepaired { source: commitlog::Error, last: String },
    /// The state is newer than the log: a power cut took the end of a log that was flushed
    /// asynchronously, and with it bodies that the state refers to.
    #[error(
        "the state machine has applied {applied:?}, but the log ends at {last:?}: its end was \
         lost, and this replica must be replaced"
    )]
    LogBehindState { applied: Option<LogId>, last: Option<LogId> },
    /// The state was lost, and so was the snapshot of it.
    #[error(
        "the state machine has applied {applied:?}, but the log begins behind {purged:?} and there \
         is no snapshot: this replica must be replaced"
    )]
    StateBehindLog { applied: Option<LogId>, purged: Option<LogIndex> },
    /// A snapshot was being installed when the node stopped, and cannot be finished.
    #[error("finish the snapshot in {path}")]
    Snapshot { path: PathBuf, source: Box<crate::snapshot::Error> },
    #[error("the vote in the log's hard state cannot be read")]
    Vote,
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A part of the node that must run has panicked.
    #[error("a task has ended: {reason}")]
    Task { reason: String },
    /// Consensus stopped by itself; `reason` is what it said.
    #[error("consensus stopped: {reason}")]
    Consensus { reason: String },
}

/// Why a node must not take part in a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{path} belongs to broker {found}, not to {expected}")]
    OtherBroker { path: PathBuf, found: String, expected: String },
    #[error("{path} belongs to node {found}, not to node {expected}")]
    OtherNode { path: PathBuf, found: NodeId, expected: NodeId },
    #[error(
        "{path} is damaged, and so is its copy: {reason}; remove this node from the group, and let \
         it join under a new id with an empty data directory"
    )]
    DamagedIdentity { path: PathBuf, reason: &'static str },
    #[error(
        "{path} has format version {found}, this release reads up to {supported}: start the release \
         that wrote it, or a newer one; nothing was changed"
    )]
    NewerIdentity { path: PathBuf, found: u32, supported: u32 },
    #[error("{path} holds a log without the identity of its group; the directory is incomplete")]
    LogWithoutIdentity { path: PathBuf },
    #[error(
        "the log that was in {path} is gone; a node that lost its data must come back under a new id"
    )]
    LogGone { path: PathBuf },
    #[error("peer {peer} starts with another peer list: {theirs}; ours is {ours}")]
    PeerListsDiffer { peer: NodeId, ours: String, theirs: String },
    #[error(
        "this node's data directory is empty, but peer {peer} knows node {node} as a member of \
         group {group}; a node that lost its data must come back under a new id"
    )]
    Wiped { node: NodeId, peer: NodeId, group: GroupId },
    #[error(
        "peer {peer} already belongs to group {group}, which this node is not a member of; \
         a second group cannot form under the name {broker_name}"
    )]
    SecondGroup { peer: NodeId, group: GroupId, broker_name: String },
    #[error("the data directory belongs to group {ours}, but the peers form group {theirs}")]
    OtherGroup { ours: GroupId, theirs: GroupId },
    #[error("{addr} answers as node {found}, not as node {expected}: check the peer list")]
    WrongAddress { addr: String, expected: NodeId, found: NodeId },
    #[error("{addr} belongs to broker {found}, not to {expected}: check the peer list")]
    WrongBroker { addr: String, expected: String, found: String },
    #[error("peer {peer} at {addr} has another secret")]
    WrongSecret { peer: NodeId, addr: String },
    #[error("{addr} has another secret, or none")]
    WrongSecretToJoin { addr: String },
    #[error("{addr} does not take this node in: {reason}")]
    MustNotJoin { addr: String, reason: String },
    #[error(
        "node {node} was removed from the group for good; to bring this machine back, delete its \
         data directory and start it with --join and a node id that was never used"
    )]
    Removed { node: NodeId },
}
