//! The programs under test: processes, their disks, and what they say of themselves.

mod cluster;
pub mod disk;
pub mod http;
mod member;
pub mod process;
pub mod status;

pub use cluster::{Cluster, Layout};
pub use disk::Disk;
pub use member::Member;
