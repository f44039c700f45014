//! Who breaks the cluster: which faults there are, which one comes when, and how each is made.
//!
//! A seed becomes a [`Schedule`]; the [`engine`] carries it out, within a budget that leaves a
//! majority alone where the fault is not meant to take it. Whatever cannot be done safely is
//! recorded as skipped.

mod budget;
mod class;
mod clock;
mod disk;
mod engine;
mod links;
mod needs;
mod pressure;
mod processes;
mod schedule;
mod transfer;

use std::sync::Arc;

use crate::db::Cluster;
use crate::net::Rules;
use crate::run::{Recorder, Watch};

pub use class::{Class, Target};
pub use clock::{ClockFiles, library as clock_library};
pub use engine::run;
pub use needs::{Need, missing};
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
}

/// What a fault turned out to be once it was installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    pub lost_bytes: Option<u64>,
    pub skew_ms: Option<u64>,
}
