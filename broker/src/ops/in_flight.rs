//! Deliveries that are not acknowledged, for administrators.

use std::time::Instant;

use proto::{ConsumerGroup, Topic};

use super::Broker;
use crate::{Error, command::Rejection, state::InFlightAt};

/// Deliveries of one answer.
const MOST: usize = 10_000;

impl Broker {
    /// Deliveries of a group, at most `most` (0 for the server's own bound), and whether there are
    /// more. Linearizable.
    pub async fn in_flight(
        &self,
        group: &ConsumerGroup,
        topic: Option<&Topic>,
        most: usize,
        deadline: Instant,
    ) -> Result<(Vec<InFlightAt>, bool), Error> {
        self.leading()?;
        self.catch_up(deadline).await?;
        let most = if most == 0 { MOST } else { most.min(MOST) };
        let found = self.view.in_flight(group, topic, most + 1);
        let mut found = found.ok_or(Error::Rejected(Rejection::GroupNotFound))?;
        let more = found.len() > most;
        found.truncate(most);
        Ok((found, more))
    }
}
