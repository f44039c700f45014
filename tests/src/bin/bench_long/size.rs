//! How large a run is, as a part of the full sizes.

use std::fmt;
use std::str::FromStr;

/// More than 0, and not above 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size(f64);

impl Size {
    /// This part of a full size, and not less than `least`.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "full sizes are far below 2^53, and rounding does no harm"
    )]
    pub(crate) fn of(self, full: u64, least: u64) -> u64 {
        ((full as f64 * self.0) as u64).max(least)
    }

    pub(crate) fn is_full(self) -> bool {
        self.0 >= 1.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(scale) if 0.0 < scale && scale <= 100.0 => Ok(Self(scale)),
            Ok(_) | Err(_) => Err("a scale is above 0 and at most 100, such as 0.01".to_owned()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
