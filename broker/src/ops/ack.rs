//! Ending deliveries.

use std::{str::FromStr, time::Instant};

use commitlog::Bug;
use proto::{ConsumerGroup, ReceiptHandle, Topic, clock::wall_now, limits};

use super::{Broker, sown, unexpected};
use crate::{
    Error,
    command::{Ack, AckOutcome, Command, Handle, Outcome},
    delivery::Place,
};

/// What became of each handle, in order.
pub type Acknowledged = Vec<Result<(), Error>>;

impl Broker {
    /// Marks the deliveries as consumed: one answer for each handle. Repeating it is harmless.
    pub async fn ack(
        &self,
        group: ConsumerGroup,
        topic: Topic,
        handles: &[&str],
        deadline: Instant,
    ) -> Result<Acknowledged, Error> {
        self.leading()?;
        if handles.len() > limits::ACK_ENTRIES {
            let (found, max) = (handles.len(), limits::ACK_ENTRIES);
            return Err(Error::TooManyEntries { found, max });
        }
        let parsed: Vec<Result<Handle, Error>> =
            handles.iter().map(|text| self.handle(text, &group, &topic)).collect();
        let valid: Vec<Handle> =
            parsed.iter().filter_map(|handle| handle.as_ref().ok().copied()).collect();
        if valid.is_empty() {
            return Ok(parsed.into_iter().map(|handle| handle.map(|_| ())).collect());
        }
        let place = Place { group: group.clone(), topic: topic.clone() };
        let command = Command::Ack(Ack { group, topic, handles: valid });
        if Bug::B15.is_sown() {
            sown::propose_later(self, &command, deadline);
            return Ok(parsed.into_iter().map(|handle| handle.map(|_| ())).collect());
        }
        let outcomes = match self.propose(&command, deadline).await? {
            Outcome::Acked(outcomes) => outcomes,
            other => unexpected(&other),
        };
        let acked = outcomes.iter().filter(|outcome| **outcome == AckOutcome::Acked).count();
        self.metrics.acked(acked);
        self.call_for_room(&place);
        let mut outcomes = outcomes.into_iter();
        let mut next = || match outcomes.next().expect("one outcome for each handle") {
            AckOutcome::Acked => Ok(()),
            AckOutcome::InvalidHandle => Err(Error::StaleHandle),
        };
        Ok(parsed.into_iter().map(|handle| handle.and_then(|_| next())).collect())
    }

    /// A queue with too many deliveries in flight gives out nothing until some are acknowledged:
    /// whoever waits for that looks again.
    pub(super) fn call_for_room(&self, place: &Place) {
        if self.waiting.has_line(place)
            && self.view.has_anything(&place.group, &place.topic, wall_now())
        {
            self.waiting.pass_on(place);
        }
    }

    /// Reads a handle that must be of this broker, group and topic.
    pub(super) fn handle(
        &self,
        text: &str,
        group: &ConsumerGroup,
        topic: &Topic,
    ) -> Result<Handle, Error> {
        let handle = ReceiptHandle::from_str(text)?;
        if handle.broker != self.settings.name {
            return Err(Error::ForeignHandle("broker"));
        }
        if !handle.is_of(group) {
            return Err(Error::ForeignHandle("consumer group"));
        }
        if handle.topic != *topic {
            return Err(Error::ForeignHandle("topic"));
        }
        let ReceiptHandle { queue, offset, delivery, .. } = handle;
        Ok(Handle { queue, offset, delivery })
    }
}
