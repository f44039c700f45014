//! What operations read of delayed messages, and how the leader's task hears of earlier ones.

use proto::{Timestamp, Topic};

use super::{View, store};
use crate::{Error, command::TimerId, ops::alarm::Alarm, state::TimerPage};

impl View {
    /// Rings when a delayed message is stored that is due before the sleeper wakes.
    pub fn timer_alarm(&self) -> &Alarm {
        &self.signals.timers
    }

    /// When the next delayed message is due.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.state.read().next_timer()
    }

    /// Delayed messages that wait.
    pub fn timers_pending(&self) -> u64 {
        self.state.read().timers_pending()
    }

    /// Delayed messages of a topic that wait.
    pub fn timers_pending_of(&self, topic: &Topic) -> u64 {
        self.state.read().timers_pending_of(topic)
    }

    /// Delayed messages of a topic that wait: how many, and a stretch of them. Looks at `looked_at`
    /// timers at most.
    pub fn timer_page(
        &self,
        topic: &Topic,
        from: TimerId,
        most: usize,
        looked_at: usize,
    ) -> Result<(u64, TimerPage), Error> {
        let state = self.state.read();
        let page = state.timer_page(topic, from, most, looked_at).map_err(|error| store(&error))?;
        Ok((state.timers_pending_of(topic), page))
    }
}
