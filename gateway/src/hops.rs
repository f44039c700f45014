//! How many requests went to other nodes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Requests of clients that a node sent on, counted by attempts. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Hops(Arc<AtomicU64>);

impl Hops {
    /// Since the process started.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn another(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
