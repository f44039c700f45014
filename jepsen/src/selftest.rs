//! The suite proves that it can fail: bugs are sown in the product, one at a time, and each has to
//! be found in the run that is meant for it, under its right name; without the bug the same run has
//! to pass. Positive controls are settings that are documented to be unsafe, and have to be seen to
//! be.

mod run;
mod summary;
mod table;

pub use run::{Place, run};
pub use summary::{Outcome, Report, Tried};
pub use table::{CASES, Case, ELSEWHERE, Elsewhere, FAST, Setup};
