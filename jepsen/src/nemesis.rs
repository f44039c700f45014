//! Who breaks the cluster: which faults there are, which one comes when, and how each is made.
//!
//! A seed becomes a [`Schedule`]; the [`engine`] carries it out, within a budget that leaves a
//! majority alone where the fault is not meant to take it. Whatever cannot be done safely is
//! recorded as skipped.

mod acts;
mod backup;
mod budget;
mod class;
mod clock;
mod damage;
mod disk;
mod engine;
mod errors;
mod links;
mod membership;
mod needs;
mod pressure;
mod processes;
mod scenario;
mod schedule;
mod shaping;
mod transfer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::db::Cluster;
use crate::net::Rules;
use crate::run::{Recorder, Watch};

pub use class::{Class, Target};
pub use clock::{ClockFiles, library as clock_library};
pub use engine::run;
pub use needs::{Need, missing};
pub use scenario::{Asks, PREFIX as SCENARIO, RETENTION, Scenario, play};
pub use schedule::{Schedule, Step};
pub(crate) use transfer::to as transfer_to;

/// What faults are made with.
#[derive(Debug)]
pub struct Tools {
    pub cluster: Arc<Cluster>,
    pub rules: Rules,
    pub recorder: Arc<Recorder>,
    pub watch: Arc<Watch>,
    /// The wall clocks of the nodes, where a run moves them.
    pub clocks: Option<ClockFiles>,
    /// Directory of the programs that nodes are upgraded to, where they begin as others.
    pub upgrade: Option<PathBuf>,
    /// The seed of the run, for what is the same all the time.
    pub seed: u64,
    /// For what scenarios ask by themselves.
    pub asks: Asks,
    /// Changes of the membership that were made.
    pub changes: AtomicU64,
}

/// What a fault turned out to be once it was installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    pub lost_bytes: Option<u64>,
    pub skew_ms: Option<u64>,
    /// There was nothing that it could have been done to.
    pub skipped: bool,
}
