//! What can be seen of the messages that wait for their time.

use std::ops::ControlFlow;

use commitlog::position::LogOffset;
use proto::{QueueId, Timestamp, Topic};

use super::State;
use crate::command::TimerId;
use crate::kv;

/// A delayed message that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingTimer {
    pub timer: TimerId,
    /// Where it goes.
    pub queue: QueueId,
    /// Where the `v2.Message` lies in the log.
    pub position: LogOffset,
    pub len: u32,
    /// When it was stored, in log time.
    pub sent: Timestamp,
}

/// A stretch of the delayed messages of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimerPage {
    /// In the order of firing.
    pub timers: Vec<PendingTimer>,
    /// Where to go on; `None` at the end.
    pub next: Option<TimerId>,
}

impl State {
    /// When the first delayed message is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.next_due()
    }

    /// Delayed messages that wait.
    #[must_use]
    pub fn timers_pending(&self) -> u64 {
        self.timers.total()
    }

    /// Delayed messages of a topic that wait.
    #[must_use]
    pub fn timers_pending_of(&self, topic: &Topic) -> u64 {
        self.topics.id(topic).map_or(0, |topic| self.timers.pending(topic))
    }

    /// Delayed messages of a topic from `from` on, at most `most`. Looks at `looked_at` timers of
    /// all topics at most, so a page may hold fewer, even none, and not be the last.
    ///
    /// # Errors
    /// The store failed.
    pub fn timer_page(
        &self,
        topic: &Topic,
        from: TimerId,
        most: usize,
        looked_at: usize,
    ) -> Result<TimerPage, kv::Error> {
        let Some(wanted) = self.topics.id(topic) else {
            return Ok(TimerPage::default());
        };
        let (mut page, mut left) = (TimerPage::default(), looked_at);
        kv::timer::scan(&*self.kv, from, |id, timer| {
            if left == 0 || page.timers.len() == most {
                page.next = Some(id);
                return ControlFlow::Break(());
            }
            left -= 1;
            if timer.topic == wanted {
                let kv::timer::Timer { queue, position, len, sent, .. } = timer;
                page.timers.push(PendingTimer { timer: id, queue, position, len, sent });
            }
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }
}
