//! Dead letters: giving a message up, and putting what was given up back.

use std::time::Instant;

use proto::{ConsumerGroup, Topic};

use super::{Broker, unexpected};
use crate::{
    Error,
    command::{Command, DeadLetter, Outcome, Redrive, Rejection, dead_letter_topic},
    delivery::Place,
};

/// Messages that one command puts back.
const REDRIVEN_AT_ONCE: u32 = 512;

impl Broker {
    /// The message that a delivery is of goes to the dead-letter queue of the consumer group.
    /// Repeating it is harmless.
    pub async fn give_up(
        &self,
        group: ConsumerGroup,
        topic: Topic,
        handle: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.leading()?;
        let handle = self.handle(handle, &group, &topic)?;
        let place = Place { group: group.clone(), topic: topic.clone() };
        let command = Command::DeadLetter(DeadLetter { group, topic, handle });
        match self.propose(&command, deadline).await {
            Ok(Outcome::DeadLettered) => {
                self.call_for_room(&place);
                Ok(())
            }
            Ok(other) => unexpected(&other),
            Err(Error::Rejected(Rejection::InvalidHandle)) => Err(Error::StaleHandle),
            Err(error) => Err(error),
        }
    }

    /// Puts the dead letters of a consumer group back into their queues, at most `max` of them, 0
    /// for all that there are now. Each is put back once, whoever asks how often. How many it were.
    pub async fn redrive(
        &self,
        group: &ConsumerGroup,
        max: u64,
        deadline: Instant,
    ) -> Result<u64, Error> {
        self.catch_up(deadline).await?;
        let topic = dead_letter_topic(group);
        let most = if max == 0 { u64::MAX } else { max };
        let mut count = 0;
        for (queue, _, end) in self.view.queue_ends(&topic) {
            loop {
                let from = self.view.redriven_to(&topic, queue);
                let left = end.0.saturating_sub(from.0).min(most - count);
                let at_once = u32::try_from(left).unwrap_or(u32::MAX).min(REDRIVEN_AT_ONCE);
                if at_once == 0 {
                    break;
                }
                let topic = topic.clone();
                let command = Command::Redrive(Redrive { topic, queue, from, count: at_once });
                match self.propose(&command, deadline).await {
                    Ok(Outcome::Redriven { count: more, .. }) => count += u64::from(more),
                    Ok(other) => unexpected(&other),
                    // Somebody else puts them back at the same time: go on behind.
                    Err(Error::Rejected(Rejection::StaleRedrive { .. })) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        tracing::info!(%group, count, "dead letters put back");
        Ok(count)
    }
}
