//! Versions of what our own processes say to each other.
//!
//! Fields that others may ignore need no new version. A change that they must not ignore does, and a
//! release goes on speaking the version before, so that a cluster can be upgraded node by node.

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

/// Versions that a process speaks, the oldest and the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    oldest: u32,
    newest: u32,
}

/// What this release speaks.
const OURS: Versions = Versions { oldest: 1, newest: 1 };
/// A property of the build, as the code is; tests pretend to be another build. 0: they do not.
static PRETENDED: AtomicU32 = AtomicU32::new(0);

/// What this process speaks.
#[must_use]
pub fn ours() -> Versions {
    match PRETENDED.load(Ordering::Relaxed) {
        0 => OURS,
        version => Versions { oldest: version, newest: version },
    }
}

/// For tests, before anything starts: this process is of a release that speaks this version alone.
pub fn pretend(version: u32) {
    PRETENDED.store(version, Ordering::Relaxed);
}

/// Two processes have no version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it speaks wire versions {theirs}, and this release {ours}: upgrade by way of a release that \
     speaks both"
)]
pub struct Mismatch {
    /// Of the other process.
    pub theirs: Versions,
    /// Of this one.
    pub ours: Versions,
}

impl Versions {
    /// As another process told them; 0 stands for the first.
    #[must_use]
    pub fn told(oldest: u32, newest: u32) -> Versions {
        let oldest = oldest.max(1);
        Versions { oldest, newest: newest.max(oldest) }
    }

    /// The first field to tell.
    #[must_use]
    pub const fn oldest(self) -> u32 {
        self.oldest
    }

    /// The second field to tell.
    #[must_use]
    pub const fn newest(self) -> u32 {
        self.newest
    }

    /// The newest version that both speak.
    ///
    /// # Errors
    /// There is none.
    pub fn meet(self, theirs: Versions) -> Result<u32, Mismatch> {
        let common = self.newest.min(theirs.newest);
        if common < self.oldest.max(theirs.oldest) {
            return Err(Mismatch { theirs, ours: self });
        }
        Ok(common)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "{}", self.newest),
            false => write!(f, "{} to {}", self.oldest, self.newest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        let ours = Versions { oldest: 2, newest: 3 };
        assert_eq!(ours.meet(Versions::told(1, 2)), Ok(2));
        assert_eq!(ours.meet(Versions::told(3, 4)), Ok(3));
        assert_eq!(OURS.meet(Versions::told(0, 0)), Ok(1));
    }

    #[test]
    fn without_a_common_version_both_are_named() {
        let ours = Versions { oldest: 2, newest: 3 };
        for theirs in [Versions::told(4, 5), Versions::told(0, 0)] {
            let text = ours.meet(theirs).unwrap_err().to_string();
            assert!(text.contains("2 to 3") && text.contains(&theirs.to_string()), "{text}");
            assert!(text.contains("upgrade"), "{text}");
        }
    }
}
