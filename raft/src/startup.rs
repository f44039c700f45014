//! What a node that starts is waiting for, for who looks at it from outside.

use std::sync::{Arc, Mutex, MutexGuard};

/// Shared by the node and whoever started it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Startup(Arc<Mutex<Option<String>>>);

impl Startup {
    /// What it waits for, in words; `None` while it goes on by itself.
    pub fn waits_for(&self) -> Option<String> {
        self.lock().clone()
    }

    /// It waits for this as long as what is returned lives.
    pub(crate) fn wait_for(&self, what: impl Into<String>) -> Waiting<'_> {
        *self.lock() = Some(what.into());
        Waiting(self)
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().expect("no holder panics")
    }
}

/// A wait.
pub(crate) struct Waiting<'a>(&'a Startup);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_until_it_ends() {
        let startup = Startup::default();
        let seen = startup.clone();
        let waiting = startup.wait_for("a peer");
        assert_eq!(seen.waits_for().as_deref(), Some("a peer"));
        drop(waiting);
        assert_eq!(seen.waits_for(), None);
    }
}
