//! The rim: what the leader keeps in memory to hand messages out, and loses when it stops leading.

mod budget;
mod lanes;
mod long_poll;
mod readers;
mod waiting;

pub use budget::{Budget, Lease};
pub use lanes::{Lane, Lanes, Marked, Marks, Reservation};
pub use long_poll::{Full, LongPolls, Place, WaitId};
pub use readers::{Reader, Readers};
pub use waiting::{Wait, Waiting};
