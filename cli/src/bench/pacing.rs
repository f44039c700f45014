//! When to send.
//!
//! Closed loop: at once after each answer. Open loop: at times that are fixed beforehand, so that a
//! slow answer does not delay the sends after it and hide how long they would have waited
//! (coordinated omission).

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// The times of the sends of an open loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    /// Messages of one send.
    batch: u64,
    per_second: NonZeroU64,
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

impl Schedule {
    pub(super) fn new(start: Instant, batch: u64, per_second: NonZeroU64) -> Self {
        assert!(batch > 0, "a send carries a message");
        Self { start, batch, per_second }
    }

    /// When the n-th send is due, counted from 0.
    pub(super) fn at(&self, n: u64) -> Instant {
        let messages = u128::from(n) * u128::from(self.batch);
        let nanos = messages * NANOS_PER_SECOND / u128::from(self.per_second.get());
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many sends are due by then.
    pub(super) fn due(&self, now: Instant) -> u64 {
        let Some(elapsed) = now.checked_duration_since(self.start) else { return 0 };
        let messages = elapsed.as_nanos() * u128::from(self.per_second.get()) / NANOS_PER_SECOND;
        let mut due = u64::try_from(messages / u128::from(self.batch)).unwrap_or(u64::MAX);
        // Rounding in `at` may have made the next one due already.
        while self.at(due) <= now {
            due += 1;
        }
        due
    }
}

/// Hands out the times of sends until the load ends.
#[derive(Debug)]
pub(super) enum Pace {
    Closed { end: Instant },
    Open(Open),
}

#[derive(Debug)]
pub(super) struct Open {
    schedule: Schedule,
    end: Instant,
    /// One for each send that is due and not taken.
    due: Arc<Semaphore>,
    taken: AtomicU64,
    pacer: Option<JoinHandle<u64>>,
}

impl Pace {
    pub(super) fn closed(end: Instant) -> Self {
        Self::Closed { end }
    }

    /// Starts the thread that watches the clock. The runtime's timers count whole milliseconds,
    /// which is as long as a send takes.
    pub(super) fn open(schedule: Schedule, end: Instant) -> Self {
        let due = Arc::new(Semaphore::new(0));
        let release = Arc::clone(&due);
        let pacer = thread::spawn(move || release_when_due(&schedule, end, &release));
        Self::Open(Open { schedule, end, due, taken: AtomicU64::new(0), pacer: Some(pacer) })
    }

    /// Waits for the next send and returns when it was due; `None` at the end.
    pub(super) async fn next(&self) -> Option<Instant> {
        match self {
            Self::Closed { end } => {
                let now = Instant::now();
                (now < *end).then_some(now)
            }
            Self::Open(open) => open.next().await,
        }
    }

    /// Sends that were due and that nobody was free to make. Call it after the end.
    pub(super) fn not_sent(self) -> u64 {
        match self {
            Self::Closed { .. } => 0,
            Self::Open(mut open) => {
                let pacer = open.pacer.take().expect("joined once");
                let released = pacer.join().expect("the pacer does not panic");
                released.saturating_sub(open.taken.load(Ordering::Relaxed))
            }
        }
    }
}

impl Open {
    async fn next(&self) -> Option<Instant> {
        // Closed at the end, which refuses what is left.
        self.due.acquire().await.ok()?.forget();
        // Whichever send this permit was meant for, the earliest that is missing comes first.
        let due = self.schedule.at(self.taken.fetch_add(1, Ordering::Relaxed));
        (due < self.end).then_some(due)
    }
}

/// Returns how many sends it released.
fn release_when_due(schedule: &Schedule, end: Instant, due: &Semaphore) -> u64 {
    let mut released = 0;
    loop {
        let now = Instant::now();
        let by_now = schedule.due(now.min(end));
        let new = usize::try_from(by_now - released).unwrap_or(Semaphore::MAX_PERMITS);
        due.add_permits(new);
        released = by_now;
        if now >= end {
            due.close();
            return released;
        }
        let next = schedule.at(released).min(end);
        thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(per_second).unwrap()
    }

    #[test]
    fn sends_are_due_at_even_intervals() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1, rate(1000));
        assert_eq!(schedule.at(0), start);
        assert_eq!(schedule.at(1), start + Duration::from_millis(1));
        assert_eq!(schedule.at(5000), start + Duration::from_secs(5));
        assert_eq!(schedule.due(start), 1);
        assert_eq!(schedule.due(start + Duration::from_micros(999)), 1);
        assert_eq!(schedule.due(start + Duration::from_millis(1)), 2);
    }

    #[test]
    fn a_rate_counts_messages_not_sends() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 100, rate(1000));
        assert_eq!(schedule.at(10), start + Duration::from_secs(1));
        assert_eq!(schedule.due(start + Duration::from_millis(999)), 10);
    }

    proptest! {
        #[test]
        fn exactly_those_are_due_whose_time_has_come(
            per_second in 1u64..2_000_000, batch in 1u64..500, after_ns in 0u64..20_000_000_000,
        ) {
            let start = Instant::now();
            let schedule = Schedule::new(start, batch, rate(per_second));
            let now = start + Duration::from_nanos(after_ns);
            let due = schedule.due(now);
            prop_assert!(due == 0 || schedule.at(due - 1) <= now);
            prop_assert!(schedule.at(due) > now);
        }
    }

    #[tokio::test]
    async fn a_slow_sender_is_handed_the_times_it_missed() {
        let start = Instant::now();
        let end = start + Duration::from_millis(100);
        let pace = Pace::open(Schedule::new(start, 1, rate(1000)), end);
        let mut taken = 0u32;
        while let Some(due) = pace.next().await {
            assert_eq!(due, start + Duration::from_millis(taken.into()));
            taken += 1;
            // Five times too slow for the rate.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!((1..=25).contains(&taken), "{taken}");
        // All hundred of the interval are accounted for.
        let not_sent = pace.not_sent();
        assert!((99..=101).contains(&(not_sent + u64::from(taken))), "{taken} + {not_sent}");
    }

    #[tokio::test]
    async fn a_closed_loop_sends_until_the_end() {
        let pace = Pace::closed(Instant::now() + Duration::from_secs(60));
        assert!(pace.next().await.is_some());
        assert_eq!(pace.not_sent(), 0);
        assert!(Pace::closed(Instant::now()).next().await.is_none());
    }
}
