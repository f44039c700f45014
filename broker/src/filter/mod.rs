//! Filters at work on the leader. What they mean is in `proto::filter`.

mod cache;
mod sieve;

pub use cache::Compiled;
pub(crate) use sieve::{Sieve, Verdict, Verdicts};
