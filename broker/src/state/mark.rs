//! Digests as of the marks in the log, for as long as they are asked for. They are no part of the
//! state: a replica that was restarted since has none.

use std::collections::VecDeque;

use commitlog::position::LogIndex;

use super::{Digest, State};
use crate::command::Outcome;

/// As many are remembered.
const MOST: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Set by a mark, until its entry has been applied.
    due: bool,
    digests: VecDeque<(LogIndex, Digest)>,
}

impl State {
    pub(super) fn mark(&mut self, index: LogIndex) -> Outcome {
        self.marks.due = true;
        Outcome::Marked { index }
    }

    /// Whether the entry that was just applied held a mark.
    pub(super) fn take_due_mark(&mut self) -> bool {
        std::mem::take(&mut self.marks.due)
    }

    /// Remembers the digest as of the last entry. Everything that was changed has been written, so
    /// that how entries were applied together makes no difference.
    pub(super) fn remember_digest(&mut self) {
        let Some(applied) = self.applied() else { return };
        let digest = self.digest();
        let digests = &mut self.marks.digests;
        digests.truncate(MOST - 1);
        digests.push_front((applied.index, digest));
    }

    /// The digest as of the mark in this entry; `None` if this replica did not apply it since it
    /// was started, or it is long ago.
    #[must_use]
    pub fn digest_at(&self, index: LogIndex) -> Option<Digest> {
        let found = self.marks.digests.iter().find(|(at, _)| *at == index);
        found.map(|(_, digest)| *digest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, message};
    use super::*;
    use crate::command::{Command, Mark};

    #[test]
    fn a_mark_remembers_the_digest_and_changes_nothing() {
        let mut script = Script::with_queues(2);
        script.appends(0, &[message("x")]);
        let Outcome::Marked { index } = script.does(Command::Mark(Mark)) else {
            panic!("another outcome");
        };
        let marked = script.state.digest_at(index).expect("just marked");
        assert_eq!(marked, script.state.digest());
        script.appends(0, &[message("y")]);
        assert_eq!(script.state.digest_at(index), Some(marked));
        assert_ne!(script.state.digest(), marked);
        assert_eq!(script.state.digest_at(LogIndex(index.0 + 1)), None);
        for _ in 0..2 * MOST {
            script.does(Command::Mark(Mark));
        }
        assert_eq!(script.state.digest_at(index), None, "long ago");
    }
}
