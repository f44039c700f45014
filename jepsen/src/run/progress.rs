//! How far clients have got: what tells that everything was read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use crate::history::{Answer, Call, Key, Outcome};

/// Counts what is under way and when something came last.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests under way that may add messages.
    adding: u64,
    /// When each group was given something last, or may have been, in ns.
    given: BTreeMap<String, u64>,
    /// The beginning of the latest receive that found nothing.
    empty: BTreeMap<(String, Key), u64>,
    operations: u64,
}

fn adds(call: &Call) -> bool {
    matches!(call, Call::Send { .. } | Call::Prepare { .. } | Call::End { .. })
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    pub(super) fn begins(&self, call: &Call, _began: u64) {
        let mut state = self.state();
        state.operations += 1;
        state.adding += u64::from(adds(call));
    }

    pub(super) fn ended(&self, call: &Call, outcome: &Outcome, began: u64, ended: u64) {
        let mut state = self.state();
        state.adding -= u64::from(adds(call));
        match (call, outcome) {
            (Call::Receive { group, key, .. }, Outcome::Ok(Answer::Receive { deliveries, .. }))
                if deliveries.is_empty() =>
            {
                let empty = state.empty.entry((group.clone(), *key)).or_default();
                *empty = (*empty).max(began);
            }
            (Call::Receive { group, .. } | Call::ChangeInvisible { group, .. }, outcome)
                if !matches!(outcome, Outcome::Failed(_)) =>
            {
                state.given.insert(group.clone(), ended);
            }
            _ => {}
        }
    }

    /// Nothing is under way that may add messages.
    #[must_use]
    pub(super) fn is_quiet(&self) -> bool {
        self.state().adding == 0
    }

    /// Operations so far.
    #[must_use]
    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether a group got nothing for `quiet` ns, and each of its queues was found empty by a
    /// receive that began so long after the last delivery, and after `since`.
    #[must_use]
    pub(super) fn is_drained(&self, group: &str, keys: &[Key], since: u64, quiet: u64) -> bool {
        let state = self.state();
        let given = state.given.get(group).copied().unwrap_or(0);
        let from = given.max(since) + quiet;
        let empty = |key: &Key| state.empty.get(&(group.to_owned(), *key)).copied();
        keys.iter().all(|key| empty(key).is_some_and(|at| from <= at))
    }
}
