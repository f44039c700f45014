//! Storing transactional messages, which nobody sees before they are committed.

use std::time::{Duration, Instant};

use proto::{
    ClientId, QueueId, Topic, TransactionId,
    clock::{duration, millis},
    v2::{self, MessageType},
};

use super::{Broker, Sent, unexpected};
use crate::{
    Error,
    command::{AppendHalf, Command, NewMessage, Outcome},
};

impl Broker {
    /// Stores a half message that was checked.
    pub(super) async fn send_half(
        &self,
        client: Option<&ClientId>,
        (topic, queue): (Topic, QueueId),
        message: &v2::Message,
        new: NewMessage,
        deadline: Instant,
    ) -> Result<Sent, Error> {
        // Somebody must be there to be asked about it.
        let client = client.ok_or(Error::NoClientId)?.clone();
        let system = message.system_properties.clone().unwrap_or_default();
        let asked = system.orphaned_transaction_recovery_duration.as_ref().and_then(duration);
        let left_alone = asked
            .filter(|asked| *asked > Duration::ZERO)
            .unwrap_or(self.tunables().transactions.timeout);
        let bytes = new.bytes.len();
        let command = Command::AppendHalf(AppendHalf {
            topic: topic.clone(),
            queue,
            client,
            first_check_ms: millis(left_alone),
            message: new,
        });
        let parts = command.encode();
        drop(command);
        let number = match self.submit(parts, deadline).await? {
            Outcome::HalfAppended { transaction, .. } => transaction,
            other => unexpected(&other),
        };
        let bodies = std::iter::once(message.body.len());
        self.metrics.sent((&topic, MessageType::Transaction), bytes, bodies);
        let broker = self.settings.name.clone();
        Ok(Sent {
            message_id: system.message_id,
            offset: None,
            transaction: Some(TransactionId { broker, number }),
            recall: None,
        })
    }
}
