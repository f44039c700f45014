//! One broker group's consensus: a replicated log of commands over [`commitlog`], agreed on with
//! Raft, applied in the same order on every replica.
//!
//! ```text
//!  propose ─ batcher ─ openraft ─ log store ─ commitlog          (leader: one entry, one fsync, many commands)
//!                         │
//!                      network ═══ server ─ openraft ─ log store  (followers)
//!                         │
//!            committed ─ machine ─ StateMachine::apply ─ outcome  (every replica; the leader answers)
//! ```
//!
//! This is the only crate that names openraft. What always holds:
//!
//! - `purged <= applied <= committed <= last`, asserted where any of them moves.
//! - A proposal's outcome is sent after its entry was durable on a quorum and applied here.
//! - Commands apply in the order in which they were accepted; stamps never go backwards.
//! - What is removed lies below the state's floor, and a snapshot reaches further.
//! - A node votes only with its vote on disk, and with the log it ever acknowledged.
//! - Every queue, buffer and wait has a bound ([`Limits`], [`Timing`]).
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod backup;
mod batch;
mod batcher;
mod bootstrap;
mod change;
mod clock;
mod config;
mod consensus;
mod detector;
mod drain;
mod error;
mod failure;
mod group;
pub mod inspect;
mod local;
mod log_reader;
mod log_store;
mod log_view;
mod machine;
mod membership;
mod network;
mod node;
mod parts;
mod preference;
mod proposals;
mod purge;
mod read_barrier;
mod reader;
mod repair;
mod restore;
mod role;
mod roster;
mod snapshot;
mod space;
mod startup;
mod state_machine;
mod status;
mod suspect;
mod transfer;
mod types;
mod upkeep;
mod vote;
mod watermarks;

pub use commitlog::position::{LogId, LogIndex, LogOffset, Term};
pub use commitlog::{BootId, DiskFault, GroupId};

pub use backup::{Backup, BackupError, Contents, Wish};
pub use change::{
    Change, ChangeError, ChangeRefusal, Changed, Lag, MemberProgress, Replication, Waiting,
};
pub use config::{Config, Flush, Limits, Secret, Timing};
pub use drain::DrainError;
pub use error::{ApplyError, CheckpointError, Error, ProposeError, Refusal};
pub use group::Group;
pub use node::{DiskSpace, Member, NodeId, Role, RoleKind};
pub use reader::{ReadError, Reader};
pub use restore::{RestoreError, RestoreStep, Restored, restore};
pub use snapshot::Error as SnapshotError;
pub use snapshot::under_way::SnapshotProgress;
pub use startup::Startup;
pub use state_machine::{Applied, Checkpoint, Command, Entry, Payload, Scrub, StateMachine};
pub use status::Status;
pub use transfer::TransferError;
pub use upkeep::Upkeep;
