//! Delivers delayed messages when their time has come.
//!
//! The task only says when to look: which messages are due is decided by log time where the
//! command is applied, so that nothing is delivered early whatever a clock shows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use commitlog::Bug;
use proto::{
    Timestamp,
    clock::{millis, wall_now},
};
use tracing::{debug, warn};

use crate::{
    command::{Command, Fire, Outcome},
    ops::{Broker, unexpected},
};

/// Messages in one command: well under a millisecond of applying.
const MOST: u32 = 500;
const PROPOSAL_WAIT: Duration = Duration::from_secs(5);
/// Before what could not be proposed is tried again.
const FAILURE_PAUSE: Duration = Duration::from_millis(20);
/// Clocks are set, and a sleep does not see that: no message is later than this because of it.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
/// Before asking again when log time turned out to be behind what was expected of it.
const EARLY_PAUSE: Duration = Duration::from_millis(5);
/// A delivery that is later than this with a leader is worth a line in the log, now and then.
const LATE: Duration = Duration::from_secs(1);
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Fires until dropped.
pub(super) async fn run(broker: Arc<Broker>) {
    if Bug::B13.is_sown() && broker.view().next_timer().is_some() {
        return;
    }
    let mut task = Task { broker, clock: LogClock::default(), complained: None };
    loop {
        task.broker.view().timer_alarm().arm();
        let due = task.broker.view().next_timer();
        let now = task.clock.now(wall_now(), task.broker.view().log_time(), Instant::now());
        match due {
            Some(due) if due <= now => task.fire().await,
            Some(due) => {
                let wait = wait(due, wall_now(), now).min(LONGEST_SLEEP);
                task.broker.view().timer_alarm().sleep(Some(wall_now().plus(wait))).await;
            }
            None => task.broker.view().timer_alarm().sleep(None).await,
        }
    }
}

struct Task {
    broker: Arc<Broker>,
    clock: LogClock,
    complained: Option<Instant>,
}

impl Task {
    /// One command, and the pause that keeps a mountain of due messages from taking the log from
    /// everybody else.
    async fn fire(&mut self) {
        let started = Instant::now();
        let fire = Command::Fire(Fire { most: MOST });
        match self.broker.propose(&fire, started + PROPOSAL_WAIT).await {
            Ok(Outcome::Fired { stamp, due, dropped }) => {
                if due.is_empty() && dropped == 0 {
                    tokio::time::sleep(EARLY_PAUSE).await;
                }
                for due in &due {
                    self.broker.metrics.fired(stamp.since(*due));
                }
                if let Some(first) = due.first() {
                    self.complain(stamp.since(*first), started);
                }
                let fired = due.len() as u64 + u64::from(dropped);
                let share = Duration::from_secs(1) * u32::try_from(fired).unwrap_or(MOST);
                let share = share / self.broker.tunables().timers_per_second;
                tokio::time::sleep_until((started + share).into()).await;
            }
            Ok(other) => unexpected(&other),
            // Somebody else leads, or the log is full: this node looks again as long as it leads.
            Err(error) => {
                debug!(%error, "due messages not delivered yet");
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
    }

    fn complain(&mut self, late: Duration, now: Instant) {
        let lately = self.complained.is_some_and(|at| now - at < COMPLAIN_EVERY);
        if late > LATE && !lately {
            warn!(?late, "delayed messages are delivered late");
            self.complained = Some(now);
        }
    }
}

/// How long until `due`, if it is log time `now`: at most until the wall clock shows it. Log time
/// that is ahead of the wall clock runs at half its speed.
fn wait(due: Timestamp, wall: Timestamp, now: Timestamp) -> Duration {
    let by_wall = due.since(wall);
    if now > wall { by_wall.min(2 * due.since(now)) } else { by_wall }
}

/// What the next entry of the log would be stamped with, about.
#[derive(Debug, Default)]
struct LogClock {
    seen: Option<(Timestamp, Instant)>,
}

impl LogClock {
    /// `last` is the last stamp.
    fn now(&mut self, wall: Timestamp, last: Timestamp, at: Instant) -> Timestamp {
        let (stamp, since) = match self.seen {
            Some((stamp, since)) if stamp == last => (stamp, since),
            _ => *self.seen.insert((last, at)),
        };
        let elapsed = millis(at.saturating_duration_since(since));
        wall.max(Timestamp(stamp.0 + elapsed / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_is_the_wall_clock_unless_that_is_behind() {
        let mut clock = LogClock::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.now(Timestamp(5000), Timestamp(4000), at(0)), Timestamp(5000));
        // The wall clock was set back by a minute: half speed.
        let wall = |ms: u64| Timestamp(1000 + ms);
        assert_eq!(clock.now(wall(0), Timestamp(4100), at(100)), Timestamp(4100));
        assert_eq!(clock.now(wall(50), Timestamp(4100), at(150)), Timestamp(4125));
        assert_eq!(clock.now(wall(60), Timestamp(4130), at(160)), Timestamp(4130));
    }

    #[test]
    fn the_wait_is_the_shorter_of_two() {
        let (due, ms) = (Timestamp(5000), Duration::from_millis);
        assert_eq!(wait(due, Timestamp(4000), Timestamp(4000)), ms(1000));
        assert_eq!(wait(due, Timestamp(1000), Timestamp(4900)), ms(200));
        assert_eq!(wait(due, Timestamp(4950), Timestamp(4960)), ms(50));
    }
}
