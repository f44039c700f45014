//! How far the log was purged, applied, committed and written: `purged <= applied <= committed <=
//! last`, asserted where any of them moves.

use std::sync::Mutex;

use commitlog::position::{LogId, LogIndex};

/// The marks of one replica. Each is the index of an entry, `None` before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) purged: Option<LogIndex>,
    pub(crate) applied: Option<LogIndex>,
    pub(crate) committed: Option<LogIndex>,
    pub(crate) last: Option<LogIndex>,
}

#[derive(Debug, Default)]
pub(crate) struct Watermarks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    marks: Marks,
    applied_term: u64,
    /// A state machine reports what it applies; without one `applied` stands still.
    has_machine: bool,
}

impl State {
    fn check(&self) {
        let Marks { purged, applied, committed, last } = self.marks;
        assert!(committed <= last, "committed {committed:?} is past last {last:?}");
        if self.has_machine {
            assert!(purged <= applied, "purged {purged:?} is past applied {applied:?}");
            assert!(applied <= committed, "applied {applied:?} is past committed {committed:?}");
        }
    }
}

impl Watermarks {
    /// The marks of a log as it was opened.
    pub(crate) fn opened(
        purged: Option<LogIndex>,
        committed: Option<LogIndex>,
        last: Option<LogIndex>,
    ) -> Watermarks {
        let marks = Marks { purged, applied: None, committed: committed.max(purged), last };
        let state = State { marks, applied_term: 0, has_machine: false };
        state.check();
        Watermarks(Mutex::new(state))
    }

    /// A state machine that has applied up to `applied` takes part from now on. What it applied
    /// had been committed, even if the lazily written mark does not say so.
    pub(crate) fn attach_machine(&self, applied: Option<LogIndex>) {
        self.update(|state| {
            state.has_machine = true;
            state.marks.applied = applied;
            state.marks.committed = state.marks.committed.max(applied);
        });
    }

    pub(crate) fn appended(&self, last: LogIndex) {
        self.update(|state| {
            assert!(Some(last) > state.marks.last, "append {last:?} at {:?}", state.marks.last);
            state.marks.last = Some(last);
        });
    }

    /// Entries after `last` are gone. They were not committed.
    pub(crate) fn truncated(&self, last: Option<LogIndex>) {
        self.update(|state| state.marks.last = last);
    }

    /// Everything up to `purged` is gone. In a log without entries beyond, the next entry follows
    /// it.
    pub(crate) fn purged(&self, purged: LogIndex) {
        self.update(|state| {
            state.marks.purged = state.marks.purged.max(Some(purged));
            state.marks.committed = state.marks.committed.max(Some(purged));
            state.marks.last = state.marks.last.max(Some(purged));
        });
    }

    /// The log and the state were replaced by those of a snapshot, which end at `last`.
    pub(crate) fn installed(&self, last: LogId, log_last: LogId) {
        self.update(|state| {
            let before = state.marks.applied;
            assert!(before <= Some(last.index), "install {last:?} over {before:?}");
            state.marks.last = Some(log_last.index);
            state.marks.committed = state.marks.committed.max(Some(last.index));
            state.marks.applied = Some(last.index);
            state.applied_term = last.term.0;
        });
    }

    pub(crate) fn committed(&self, committed: LogIndex) {
        self.update(|state| {
            state.marks.committed = state.marks.committed.max(Some(committed));
        });
    }

    pub(crate) fn applied(&self, applied: LogId) {
        self.update(|state| {
            let before = state.marks.applied;
            assert!(Some(applied.index) > before, "apply {applied:?} after {before:?}");
            state.marks.applied = Some(applied.index);
            state.applied_term = applied.term.0;
        });
    }

    pub(crate) fn marks(&self) -> Marks {
        self.0.lock().expect("no holder panics but on a broken invariant").marks
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().expect("no holder panics but on a broken invariant");
        change(&mut state);
        state.check();
    }
}

#[cfg(test)]
mod tests {
    use commitlog::position::Term;

    use super::*;

    fn applied(index: u64) -> LogId {
        LogId { term: Term(1), index: LogIndex(index) }
    }

    #[test]
    fn marks_move_in_their_order() {
        let marks = Watermarks::opened(None, None, None);
        marks.attach_machine(None);
        marks.appended(LogIndex(3));
        marks.committed(LogIndex(2));
        marks.applied(applied(1));
        marks.truncated(Some(LogIndex(2)));
        marks.purged(LogIndex(1));
        let expected = Marks {
            purged: Some(LogIndex(1)),
            applied: Some(LogIndex(1)),
            committed: Some(LogIndex(2)),
            last: Some(LogIndex(2)),
        };
        assert_eq!(marks.marks(), expected);
    }

    #[test]
    #[should_panic(expected = "is past committed")]
    fn applying_what_is_not_committed_is_noticed() {
        let marks = Watermarks::opened(None, Some(LogIndex(2)), Some(LogIndex(5)));
        marks.attach_machine(None);
        marks.applied(applied(3));
    }

    #[test]
    #[should_panic(expected = "is past last")]
    fn truncating_what_is_committed_is_noticed() {
        let marks = Watermarks::opened(None, Some(LogIndex(2)), Some(LogIndex(5)));
        marks.truncated(Some(LogIndex(1)));
    }

    #[test]
    #[should_panic(expected = "is past applied")]
    fn purging_what_is_not_applied_is_noticed() {
        let marks = Watermarks::opened(None, Some(LogIndex(2)), Some(LogIndex(5)));
        marks.attach_machine(None);
        marks.purged(LogIndex(1));
    }

    #[test]
    fn what_a_machine_applied_counts_as_committed() {
        let marks = Watermarks::opened(None, None, Some(LogIndex(5)));
        marks.attach_machine(Some(LogIndex(4)));
        assert_eq!(marks.marks().committed, Some(LogIndex(4)));
    }
}
