//! Moving the end of a delivery's invisible duration.

use std::time::{Duration, Instant};

use proto::{ConsumerGroup, Topic, clock::millis, limits};

use super::{Broker, unexpected};
use crate::{
    Error,
    command::{ChangeInvisible, Command, Handle, Outcome},
};

impl Broker {
    /// The delivery becomes visible `invisible` from now; zero means at once. The handle stays
    /// valid until the message is delivered again.
    pub async fn change_invisible(
        &self,
        group: ConsumerGroup,
        topic: Topic,
        handle: &str,
        invisible: Duration,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.leading()?;
        if invisible > limits::INVISIBLE_MAX {
            let (asked, max) = (invisible, limits::INVISIBLE_MAX);
            return Err(Error::InvisibleTooLarge { asked, max });
        }
        let handle = self.handle(handle, &group, &topic)?;
        self.move_due(group, topic, handle, invisible, deadline).await
    }

    /// The same for a handle that is known to be ours.
    pub(crate) async fn move_due(
        &self,
        group: ConsumerGroup,
        topic: Topic,
        handle: Handle,
        invisible: Duration,
        deadline: Instant,
    ) -> Result<(), Error> {
        let invisible_ms = millis(invisible);
        let change = ChangeInvisible { group, topic, handle, invisible_ms };
        match self.propose(&Command::ChangeInvisible(change), deadline).await {
            Ok(Outcome::InvisibleChanged { .. }) => Ok(()),
            Ok(other) => unexpected(&other),
            Err(Error::Rejected(crate::command::Rejection::InvalidHandle)) => {
                Err(Error::StaleHandle)
            }
            Err(error) => Err(error),
        }
    }
}
