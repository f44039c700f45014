//! What a receive call knows about the messages of a queue before they are handed out.

use std::collections::HashMap;

use commitlog::position::LogOffset;

/// Tells which entries of a queue are worth handing out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sieve<'a> {
    /// Everything.
    All,
    /// Tags with these hashes.
    Tags(&'a [u64]),
    /// What was read and found to match.
    Judged(&'a Verdicts),
}

/// Whether a message is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wanted,
    /// It counts as consumed.
    Unwanted,
    /// Nobody has looked: it must neither be handed out nor passed over.
    Unknown,
}

/// What an expression said about messages, by where they lie in the log: that names a message for
/// ever, whatever becomes of its topic meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(HashMap<LogOffset, bool>);

impl Verdicts {
    pub(crate) fn add(&mut self, message: LogOffset, wanted: bool) {
        self.0.insert(message, wanted);
    }
}

impl Sieve<'_> {
    /// Whether the message at `position`, whose tag has this hash, is wanted.
    pub(crate) fn verdict(&self, position: LogOffset, tag_hash: u64) -> Verdict {
        let wanted = match self {
            Self::All => Some(true),
            Self::Tags(hashes) => Some(hashes.contains(&tag_hash)),
            Self::Judged(verdicts) => verdicts.0.get(&position).copied(),
        };
        match wanted {
            Some(true) => Verdict::Wanted,
            Some(false) => Verdict::Unwanted,
            None => Verdict::Unknown,
        }
    }

    /// Whether every entry looked at is handed out.
    pub(crate) fn takes_all(&self) -> bool {
        matches!(self, Self::All)
    }
}
