//! A history in the forms that checkers written by others read, for a second opinion.

mod edn;
mod elle;
mod porcupine;

pub use edn::edn;
pub use elle::{Exported, elle};
pub use porcupine::porcupine;
