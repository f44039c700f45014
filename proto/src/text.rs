//! What is wrong with a piece of text.

use thiserror::Error;

/// Why a text was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Flaw {
    #[error("is empty")]
    Empty,
    #[error("is blank")]
    Blank,
    #[error("has {found}, over the limit of {max}")]
    TooLong { found: usize, max: usize },
    #[error("has the character {character:?} at byte {at}, which is not allowed")]
    Character { character: char, at: usize },
    #[error("is reserved")]
    Reserved,
}

/// Neither empty nor only white space.
pub(crate) fn not_blank(text: &str) -> Result<(), Flaw> {
    if text.is_empty() {
        Err(Flaw::Empty)
    } else if text.trim().is_empty() {
        Err(Flaw::Blank)
    } else {
        Ok(())
    }
}

pub(crate) fn at_most_bytes(text: &str, max: usize) -> Result<(), Flaw> {
    if text.len() <= max { Ok(()) } else { Err(Flaw::TooLong { found: text.len(), max }) }
}

/// No character that controls a terminal or a line: those of U+0000..U+001F and U+007F..U+009F.
pub(crate) fn no_control(text: &str) -> Result<(), Flaw> {
    only(text, |c| !c.is_control())
}

pub(crate) fn only(text: &str, allowed: impl Fn(char) -> bool) -> Result<(), Flaw> {
    match text.char_indices().find(|&(_, c)| !allowed(c)) {
        Some((at, character)) => Err(Flaw::Character { character, at }),
        None => Ok(()),
    }
}
