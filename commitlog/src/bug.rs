//! Bugs that are sown on purpose, so that the fault suite can show that it finds them.
//!
//! One bug at most is sown in a process, before anything starts (`fault.bug=B07`), and never in a
//! build without debug assertions. Where a bug sits there is one line that asks for it by its name;
//! `jepsen selftest` runs each in the configuration that has to find it.

use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident = $number:literal,)*) => {
        /// What is wrong, and where. The names are those of `docs/testing.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug = $number,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),*];

            /// The name that it is sown by.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$bug => stringify!($bug)),* }
            }
        }
    };
}

bugs! {
    /// `raft`, network client: an append that a replica has not answered for 100 ms counts as stored
    /// there, so that sends are acknowledged without a quorum.
    B01 = 1,
    /// `commitlog`, writer: appends are acknowledged up to half a second before they are synced.
    B02 = 2,
    /// `commitlog`, spares: the directory is not synced when a segment begins.
    B03 = 3,
    /// `commitlog`, hard state: it is not synced, so that a vote can be taken back.
    B04 = 4,
    /// `broker`, operations: reads do without the read index.
    B05 = 5,
    /// `raft`, network: a replica takes for committed whatever it is sent.
    B06 = 6,
    /// `broker`, state: how far it has come is made durable before what was applied.
    B07 = 7,
    /// `broker`, operations: committed offsets are answered from a table of the leader's own.
    B08 = 8,
    /// `broker`, state: a half message enters its queue at once.
    B09 = 9,
    /// `broker`, state: the end of a transaction is not compared with an earlier one.
    B10 = 10,
    /// `broker`, state: the end of a transaction is not written to the store.
    B11 = 11,
    /// `broker`, state: what is due is decided by the clock of each replica.
    B12 = 12,
    /// `broker`, tasks: a new leader does not fire timers that another one set.
    B13 = 13,
    /// `broker`, state: that a timer has fired is not written to the store.
    B14 = 14,
    /// `broker`, operations: acks are answered from memory, and proposed later.
    B15 = 15,
    /// `broker`, operations and state: deliveries end half a second early for the next receiver.
    B16 = 16,
    /// `broker`, operations and state: a message group that is held is handed out further.
    B17 = 17,
    /// `commitlog`, segments: bodies are not compared with their checksums when they are read.
    B20 = 20,
    /// `commitlog`, recovery: damage anywhere in the last segment is the end of the log.
    B21 = 21,
    /// `commitlog`, writer: a failed sync is ignored.
    B22 = 22,
    /// `broker`, operations: a disk that was full once counts as full for ever.
    B23 = 23,
    /// `broker`, state: a send is remembered for a tenth of a second.
    B24 = 24,
    /// `commitlog`, writer: what was to be written before a new segment begins is dropped.
    B25 = 25,
    /// `raft`, proposals: what is not decided within 300 ms is answered as if it were taken back.
    B26 = 26,
    /// `broker`, operations: a batch is proposed as two commands.
    B27 = 27,
    /// `raft`, read barrier: a leader that was confirmed less than 5 s ago by its wall clock is not
    /// asked again.
    B28 = 28,
    /// `broker`, state: a repeated send is answered with the end of the queue.
    B30 = 30,
    /// `broker`, sessions: a member that left keeps its share.
    B31 = 31,
    /// `broker`, registration: NameServers hear of the first leader alone.
    B32 = 32,
    /// `broker`, state: log time is the clock of each replica.
    B33 = 33,
    /// `broker`, tasks: a new leader asks nobody about transactions that it finds.
    B34 = 34,
}

static SOWN: AtomicU8 = AtomicU8::new(0);

impl Bug {
    /// Whether this process has it. Never in a build without debug assertions.
    #[inline]
    #[must_use]
    pub fn is_sown(self) -> bool {
        cfg!(debug_assertions) && SOWN.load(Ordering::Relaxed) == self as u8
    }

    /// For tests, before anything starts: this process has the bug from now on, and no other one.
    pub fn sow(self) {
        tracing::warn!(bug = self.name(), "sown as asked for");
        SOWN.store(self as u8, Ordering::Relaxed);
    }

    /// For tests within one process: none is sown any more.
    pub fn weed() {
        SOWN.store(0, Ordering::Relaxed);
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|bug| bug.name() == text);
        found.copied().ok_or_else(|| format!("no bug is called {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bugs_have_their_names_and_none_is_there_unless_sown() {
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse(), Ok(*bug));
            assert!(!bug.is_sown());
        }
        assert!("B99".parse::<Bug>().is_err());
    }
}
