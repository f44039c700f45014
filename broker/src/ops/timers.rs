//! Looking at the delayed messages that wait for their time.

use std::time::Instant;

use proto::{RecallHandle, Timestamp, Topic};

use super::{Broker, send::id_of};
use crate::{Error, command::TimerId, state::PendingTimer};

/// Delayed messages of one answer.
const LISTED: usize = 1000;
/// Timers of all topics that one answer looks at: some milliseconds.
const LOOKED_AT: usize = 10_000;
/// Bytes of messages that are read for one answer, after which it takes no further one.
const READ_BYTES: u64 = 16 << 20;

/// Which delayed messages of a topic.
#[derive(Debug, Clone, Copy)]
pub struct TimerSpan {
    /// This one and those that are delivered after it.
    pub from: TimerId,
    /// Due before this time.
    pub until: Timestamp,
    /// How many at most; the server has its own limit too.
    pub most: usize,
}

/// A delayed message that waits, and what takes it back.
#[derive(Debug, Clone)]
pub struct ListedTimer {
    /// Which it is and where it goes.
    pub timer: PendingTimer,
    /// What its sender was given.
    pub recall: RecallHandle,
}

/// A stretch of the delayed messages of a topic.
#[derive(Debug, Clone, Default)]
pub struct ListedTimers {
    /// All that wait in the topic, whenever they are due.
    pub waiting: u64,
    /// In the order of their delivery.
    pub timers: Vec<ListedTimer>,
    /// Where to go on; `None` at the end of what was asked for. There may be more although there
    /// are none here.
    pub next: Option<TimerId>,
}

impl Broker {
    /// Delayed messages that wait, as of one moment. Linearizable.
    pub async fn list_timers(
        &self,
        topic: &Topic,
        span: &TimerSpan,
        deadline: Instant,
    ) -> Result<ListedTimers, Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        if self.view.topic(topic).is_none() {
            return Err(Error::TopicNotFound(topic.clone()));
        }
        let most = span.most.clamp(1, LISTED);
        let (waiting, page) = self.view.timer_page(topic, span.from, most, LOOKED_AT)?;
        let within = |id: &TimerId| id.due < span.until;
        let mut listed =
            ListedTimers { waiting, timers: Vec::new(), next: page.next.filter(within) };
        let mut bytes = 0;
        for timer in page.timers {
            if !within(&timer.timer) {
                listed.next = None;
                break;
            }
            if bytes >= READ_BYTES {
                listed.next = Some(timer.timer);
                break;
            }
            bytes += u64::from(timer.len);
            listed.timers.extend(self.listed(topic, timer)?);
        }
        Ok(listed)
    }

    /// `None` when it does not wait any more.
    fn listed(&self, topic: &Topic, timer: PendingTimer) -> Result<Option<ListedTimer>, Error> {
        let read = |timer: &PendingTimer| self.view.message(timer.position, timer.len);
        let (timer, message) = match read(&timer) {
            Ok(message) => (timer, message),
            Err(error) => {
                // Its file may have gone meanwhile, the message having been carried or delivered.
                let (_, page) = self.view.timer_page(topic, timer.timer, 1, 1)?;
                let same = page.timers.into_iter().find(|now| now.timer == timer.timer);
                match same {
                    None => return Ok(None),
                    Some(now) if now.position == timer.position => return Err(error),
                    Some(now) => (now, read(&now)?),
                }
            }
        };
        let recall = RecallHandle {
            broker: self.settings.name.clone(),
            topic: topic.clone(),
            due: timer.timer.due,
            number: timer.timer.number,
            message_id: id_of(message).parse()?,
        };
        Ok(Some(ListedTimer { timer, recall }))
    }
}
