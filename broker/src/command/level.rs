//! Which commands may be proposed while replicas of two releases share a group.
//!
//! A replica that meets a command which it does not know stops: skipping it would make its state
//! another one than that of its peers. So each command belongs to a *feature level*, and the group has
//! one, which is part of the replicated state. The leader raises it, by [`RaiseLevel`], once every
//! member has said that it understands more; until then commands of a higher level are not proposed.
//! The level never falls: a release that does not understand it refuses to start.
//!
//! A new command gets the level after [`LEVEL`], and an arm in [`since`], and [`LEVEL`] grows by one
//! with the release.

use std::sync::atomic::{AtomicU32, Ordering};

use super::codec::tag;

/// What this release understands. Level 1 is every command of `docs/protocol/commands.md`.
pub const LEVEL: u32 = 1;

/// Raises the group's level, unless it is there already. Answered by `Done`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaiseLevel {
    pub level: u32,
}

/// A property of the build, as the code is; tests pretend to be another build.
static UNDERSTOOD: AtomicU32 = AtomicU32::new(LEVEL);

/// The highest level that this process understands.
pub fn understood() -> u32 {
    UNDERSTOOD.load(Ordering::Relaxed)
}

/// For tests, before anything starts: this process is of a release that understands `level`.
pub fn pretend(level: u32) {
    UNDERSTOOD.store(level, Ordering::Relaxed);
}

/// The level of a command, by its tag.
pub(crate) fn since(tag: u8) -> u32 {
    match tag {
        tag::NEXT => LEVEL + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::{Command, DecodeError};

    #[test]
    fn what_only_a_newer_release_knows_is_no_command_here() {
        let error = Command::decode(Bytes::from_static(&[tag::NEXT])).unwrap_err();
        assert_eq!(error, DecodeError::UnknownTag { tag: tag::NEXT });
        assert_eq!((since(tag::NEXT), since(tag::RAISE_LEVEL)), (LEVEL + 1, 1));
    }

    #[test]
    fn a_level_that_this_release_does_not_understand_stops_it() {
        let level = LEVEL + 1;
        let bytes = Command::RaiseLevel(RaiseLevel { level }).encode().remove(0);
        let error = Command::decode(bytes).unwrap_err();
        assert_eq!(error, DecodeError::NewerLevel { found: level, supported: LEVEL });
        let text = error.to_string();
        assert!(text.contains("level 2") && text.contains("up to 1"), "{text}");
    }
}
