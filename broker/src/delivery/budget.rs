//! A bound on bytes in progress.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// So many bytes may be in progress at a time.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    bound: usize,
}

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// Nothing is in progress.
    pub fn new(bound: usize) -> Arc<Self> {
        Arc::new(Budget { used: AtomicUsize::new(0), bound })
    }

    /// In progress now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or nothing if that would pass the bound. One that alone is larger than the
    /// bound gets its turn when nothing else is in progress.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let after = used.checked_add(bytes)?;
                (used == 0 || after <= self.bound).then_some(after)
            })
            .ok()?;
        Some(Lease { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_up_to_the_bound_and_given_back() {
        let budget = Budget::new(10);
        let six = budget.take(6).expect("room");
        assert!(budget.take(5).is_none());
        let four = budget.take(4).expect("room");
        assert_eq!(budget.used(), 10);
        drop((six, four));
        assert_eq!(budget.used(), 0);
        assert!(budget.take(99).is_some(), "alone, even a large one");
    }
}
