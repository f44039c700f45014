//! A place in the log at which replicas are compared.

/// Has each replica remember the digest of its state as of the entry that holds this. Changes
/// nothing. Answered by [`Outcome::Marked`](super::Outcome::Marked).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark;
