//! One run: a cluster of its own, clients, faults, the final reads, and the record of all that.

mod answering;
mod calibration;
mod drain;
mod inside;
mod options;
mod progress;
mod recorder;
mod session;
mod setup;
mod shape;
mod store;
mod watch;
mod worker;

pub use inside::{RUN_ID, enter, scratch};
pub use options::Options;
pub use recorder::Recorder;
pub use session::run;
pub use store::{directory, stale};
pub use watch::Watch;
pub(crate) use worker::ask;

/// Says how a run goes.
pub(crate) fn note(what: &str) {
    println!("{what}");
}
