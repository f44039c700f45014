//! Log time: the stamps that the leader gives to entries.
//!
//! Invariant: a stamp is never smaller than the one before it, whatever the wall clock does and
//! whoever leads. While the wall clock is behind the log, log time runs at half its speed until
//! the wall clock has caught up, so that timers slow down instead of standing still.

/// Milliseconds by which the wall clock may be behind log time before an operator is told.
pub(crate) const SKEW_ALARM_MS: u64 = 500;

/// Decides stamps. Reads no clock itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogClock {
    last: u64,
    behind: Option<Behind>,
}

/// Log time is ahead of the wall clock since this moment.
#[derive(Debug, Clone, Copy)]
struct Behind {
    stamp: u64,
    wall: u64,
    alarmed: bool,
}

/// A stamp, and whether this one is the first of an episode of alarming skew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at: u64,
    pub(crate) skew_alarm: Option<u64>,
}

impl LogClock {
    /// The stamp for an entry proposed at wall time `now` (ms) when the log's last stamp is
    /// `log_last`.
    pub(crate) fn stamp(&mut self, now: u64, log_last: u64) -> Stamp {
        let last = self.last.max(log_last);
        if now >= last {
            self.last = now;
            self.behind = None;
            return Stamp { at: now, skew_alarm: None };
        }
        let mut behind = match self.behind {
            // The clock was set back again, or another leader moved the log on: start over.
            Some(behind) if behind.wall <= now && log_last <= self.last => behind,
            _ => Behind { stamp: last, wall: now, alarmed: false },
        };
        let skew = last - now;
        let alarm = skew > SKEW_ALARM_MS && !behind.alarmed;
        behind.alarmed |= alarm;
        self.behind = Some(behind);
        self.last = last.max(behind.stamp + (now - behind.wall) / 2);
        Stamp { at: self.last, skew_alarm: alarm.then_some(skew) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_follow_the_wall_clock() {
        let mut clock = LogClock::default();
        assert_eq!(clock.stamp(1000, 0), Stamp { at: 1000, skew_alarm: None });
        assert_eq!(clock.stamp(1000, 1000).at, 1000);
        assert_eq!(clock.stamp(1007, 1000).at, 1007);
    }

    #[test]
    fn log_time_runs_at_half_speed_until_the_wall_clock_has_caught_up() {
        let mut clock = LogClock::default();
        assert_eq!(clock.stamp(800, 1000).at, 1000);
        assert_eq!(clock.stamp(900, 1000).at, 1050);
        assert_eq!(clock.stamp(1000, 1050).at, 1100);
        assert_eq!(clock.stamp(1200, 1100).at, 1200);
        assert_eq!(clock.stamp(1201, 1200).at, 1201);
    }

    #[test]
    fn a_clock_set_back_while_behind_never_takes_a_stamp_back() {
        let mut clock = LogClock::default();
        clock.stamp(900, 1000);
        assert_eq!(clock.stamp(940, 1000).at, 1020);
        assert_eq!(clock.stamp(100, 1020).at, 1020);
        assert_eq!(clock.stamp(140, 1020).at, 1040);
    }

    #[test]
    fn another_leaders_later_stamp_is_respected() {
        let mut clock = LogClock::default();
        clock.stamp(1000, 0);
        assert_eq!(clock.stamp(1010, 5000).at, 5000);
        assert_eq!(clock.stamp(1110, 5000).at, 5050);
    }

    #[test]
    fn large_skew_is_reported_once_per_episode() {
        let mut clock = LogClock::default();
        assert_eq!(clock.stamp(1000, 1500).skew_alarm, None);
        assert_eq!(clock.stamp(1000, 1501).skew_alarm, Some(501));
        assert_eq!(clock.stamp(1001, 1501).skew_alarm, None);
        assert_eq!(clock.stamp(9000, 1501).skew_alarm, None);
        assert_eq!(clock.stamp(1000, 9000).skew_alarm, Some(8000));
    }
}
