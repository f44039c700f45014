//! The replicated log as files: append, read, sync, truncate, purge, recover.
//!
//! Knows bytes, indexes and terms. It does not know messages, Raft, or async.
//!
//! ```text
//!   removed     purged        committed     synced       written      end
//!  ───┼───────────┼──────────────┼────────────┼────────────┼───────────┼──▶ log offset
//!     oldest      gone for       never cut    on the       in the      accepted,
//!     file        consensus                   disk         page cache  readable
//! ```
//!
//! Appends are accepted in memory, where they get their place and can be read at once; the log
//! thread writes everything that waits, syncs once, and then tells each appender. Sealed segments
//! are read through maps, without a copy; what may still change is read from memory or copied.
//!
//! What always holds:
//! - positions follow from the entries and the segment size, so replicas have the same bytes;
//! - nothing is reported durable before its sync returned, and a failed sync is final;
//! - a segment that has a successor is durable as a whole;
//! - a torn tail is cut; damage in what was synced is an error, never an end of the log.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod adopt;
mod bug;
mod cache;
mod config;
mod cursor;
mod cut;
mod disk;
mod error;
mod fault_disk;
mod file_disk;
mod frame;
mod hard_state;
mod header;
pub mod inspect;
mod log;
mod mend;
mod mmap;
mod open;
mod pin;
pub mod position;
mod reader;
mod record;
mod recovery;
mod replace;
mod run;
mod scrub;
mod segment;
mod shared;
mod ship;
mod sim;
mod spares;
mod tail;
mod writer;

pub use adopt::adopt_segment;
pub use bug::Bug;
pub use config::{
    BootId, Config, Flush, GroupId, Identity, Invalid, SEGMENT_SIZE_MAX, SEGMENT_UNIT,
};
pub use disk::{DirLock, Disk, DiskFile};
pub use error::{Check, Error};
pub use fault_disk::{DiskFault, FaultDisk};
pub use file_disk::FileDisk;
pub use frame::{FRAME_ALIGN, FRAME_HEADER};
pub use hard_state::VOTE_LEN;
pub use header::{FORMAT_VERSION, SEGMENT_HEADER, incoming_name, segment_name};
pub use log::{CommitLog, Removable, State};
pub use mend::{Mended, Mending, mend_closed};
pub use open::{Cut, Recovered};
pub use pin::Pin;
pub use reader::Reader;
pub use record::{Frame, Kind, Record};
pub use replace::Replacement;
pub use scrub::{Checksum, Scrub};
pub use shared::Done;
pub use ship::{Checked, Extent, check_segment};
pub use sim::{Fault, Loss, SimDisk};
pub use writer::Writer;
