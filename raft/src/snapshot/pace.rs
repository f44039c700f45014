//! Holds a sender to so many bytes per second.

use std::time::Duration;

use tokio::time::Instant;

/// Each send is followed by the pause that makes up for it; what was not used is not saved up.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: u64,
    free_at: Instant,
}

impl Pace {
    /// `rate` bytes per second, more than 0.
    pub(crate) fn new(rate: u64, now: Instant) -> Pace {
        Pace { rate, free_at: now }
    }

    /// When `bytes` may leave.
    pub(crate) fn book(&mut self, bytes: usize, now: Instant) -> Instant {
        let starts = self.free_at.max(now);
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.rate);
        self.free_at = starts + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_at_the_rate_and_idleness_is_not_saved_up() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        let ms = |n| start + Duration::from_millis(n);
        assert_eq!(pace.book(100, start), start);
        assert_eq!(pace.book(50, start), ms(100));
        assert_eq!(pace.book(50, ms(20)), ms(150));
        assert_eq!(pace.book(500, ms(5000)), ms(5000));
        assert_eq!(pace.book(1, ms(5000)), ms(5500));
    }
}
