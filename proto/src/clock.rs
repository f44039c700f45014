//! Wall time: a type for it, and the one place that reads it.
//!
//! Nothing that decides reads a clock. Times come in as arguments, and into the replicated state
//! through the log.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// What the machine's clock shows. It may jump either way.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall_now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(millis(since_epoch))
}

impl Timestamp {
    /// This much later; the last millisecond there is when that is too far.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(millis(wait)))
    }

    /// This much earlier; the epoch when that is too far.
    #[must_use]
    pub fn minus(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(millis(wait)))
    }

    /// How long ago `earlier` was, seen from here; zero when it is yet to come.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// Any time before the epoch becomes the epoch, any that is too late the latest one; parts of a
/// millisecond are dropped.
impl From<&prost_types::Timestamp> for Timestamp {
    fn from(time: &prost_types::Timestamp) -> Self {
        // i128 holds any pair of fields, however odd.
        let millis = i128::from(time.seconds) * 1000 + i128::from(time.nanos) / 1_000_000;
        Self(u64::try_from(millis.max(0)).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        Self {
            seconds: i64::try_from(time.0 / 1000).expect("2^64 ms are under 2^63 s"),
            nanos: i32::try_from(time.0 % 1000 * 1_000_000).expect("under a second"),
        }
    }
}

/// A duration from the wire; `None` when it is negative.
pub fn duration(wire: &prost_types::Duration) -> Option<Duration> {
    Duration::try_from(*wire).ok()
}

/// A duration for the wire; the longest that it can carry when this one is longer.
pub fn to_wire(wait: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(wait.subsec_nanos()).expect("under a second"),
    }
}

/// Whole milliseconds, `u64::MAX` at most.
pub fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_before_the_epoch_become_the_epoch() {
        let before = prost_types::Timestamp { seconds: -1, nanos: 999_999_999 };
        assert_eq!(Timestamp::from(&before), Timestamp(0));
        let minimum = prost_types::Timestamp { seconds: i64::MIN, nanos: i32::MIN };
        assert_eq!(Timestamp::from(&minimum), Timestamp(0));
    }

    #[test]
    fn a_time_that_is_too_late_becomes_the_latest() {
        let latest = prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX };
        assert_eq!(Timestamp::from(&latest), Timestamp(u64::MAX));
    }

    #[test]
    fn a_negative_duration_is_none() {
        assert_eq!(duration(&prost_types::Duration { seconds: -1, nanos: 0 }), None);
        assert_eq!(duration(&prost_types::Duration { seconds: 0, nanos: -1 }), None);
        assert_eq!(
            duration(&prost_types::Duration { seconds: 1, nanos: 5_000_000 }),
            Some(Duration::from_millis(1005))
        );
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        assert_eq!(Timestamp(5).minus(Duration::from_secs(1)), Timestamp(0));
        assert_eq!(Timestamp(5).plus(Duration::MAX), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(9).since(Timestamp(5)), Duration::from_millis(4));
    }

    proptest! {
        #[test]
        fn a_timestamp_survives_the_wire(millis in any::<u64>()) {
            let wire = prost_types::Timestamp::from(Timestamp(millis));
            prop_assert_eq!(Timestamp::from(&wire), Timestamp(millis));
        }

        #[test]
        fn a_duration_survives_the_wire(millis in 0..u64::MAX / 2_000_000) {
            let wait = Duration::from_millis(millis);
            prop_assert_eq!(duration(&to_wire(wait)), Some(wait));
        }
    }
}
