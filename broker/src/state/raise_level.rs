//! What all replicas understand.

use super::State;
use crate::command::{Outcome, RaiseLevel};
use crate::kv;

impl State {
    /// The feature level of the group, see [`crate::command::level`].
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// A level that this process does not understand was refused when the command was read.
    pub(super) fn raise_level(&mut self, c: RaiseLevel) -> Outcome {
        if c.level > self.level {
            self.level = c.level;
            kv::level::put(&mut self.change.batch, c.level);
        }
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;

    #[test]
    fn a_level_rises_and_is_kept() {
        let mut script = Script::new();
        assert_eq!(script.state.level(), 1);
        let digest = script.state.digest();
        // Decoding refuses what this release does not understand; the state takes what it is given.
        script.state.level = 0;
        assert_eq!(script.state.raise_level(RaiseLevel { level: 1 }), Outcome::Done);
        assert_eq!(script.state.raise_level(RaiseLevel { level: 0 }), Outcome::Done);
        assert_eq!(script.state.level(), 1);
        assert_eq!(script.state.digest(), digest);
        script.state.flush().unwrap();
        assert_eq!(script.restarted().state.level(), 1);
    }
}
