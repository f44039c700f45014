//! Wakes a task that sleeps until something is due when something is due earlier.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use proto::{Timestamp, clock::wall_now};
use tokio::{sync::Notify, time::timeout};

/// The longest sleep: wall clocks are set, and a sleep does not see that.
const LONGEST: Duration = Duration::from_secs(60);

/// One sleeper, and many who may wake it.
#[derive(Debug, Default)]
pub struct Alarm {
    /// What is due earlier wakes the sleeper. 0 while nobody sleeps.
    until: AtomicU64,
    rung: Notify,
}

impl Alarm {
    /// From now on everything that is due wakes the sleeper: it is about to look what is.
    pub fn arm(&self) {
        self.until.store(u64::MAX, Ordering::SeqCst);
    }

    /// Something is due then.
    pub fn due(&self, at: Timestamp) {
        if at.0 < self.until.load(Ordering::SeqCst) {
            self.rung.notify_one();
        }
    }

    /// Wakes the sleeper, whatever it waits for.
    pub fn ring(&self) {
        self.rung.notify_one();
    }

    /// Sleeps until that time by the wall clock, or until woken; without a time, until woken.
    pub async fn sleep(&self, until: Option<Timestamp>) {
        let Some(until) = until else { return self.rung.notified().await };
        self.until.store(until.0, Ordering::SeqCst);
        let left = until.since(wall_now()).min(LONGEST);
        // Early or late: the sleeper looks again.
        let _ = timeout(left, self.rung.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn only_what_is_due_earlier_wakes_the_sleeper() {
        let alarm = Alarm::default();
        let hour = wall_now().plus(Duration::from_secs(3600));
        alarm.due(Timestamp(1));
        alarm.arm();
        assert!(timeout(SOON, alarm.sleep(Some(hour))).await.is_err(), "nobody slept");
        alarm.due(hour);
        assert!(timeout(SOON, alarm.sleep(Some(hour))).await.is_err(), "not earlier");
        alarm.due(Timestamp(hour.0 - 1));
        alarm.sleep(Some(hour)).await;
        alarm.arm();
        alarm.due(hour);
        alarm.sleep(None).await;
    }
}
