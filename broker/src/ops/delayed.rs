//! Messages that are delivered later: storing them, and taking them back.

use std::time::Instant;

use proto::{QueueId, RecallHandle, Topic, clock::wall_now, message, v2, v2::MessageType};

use super::{
    Broker,
    send::{Sent, id_of},
    unexpected,
};
use crate::{
    Error,
    command::{
        Accepted, AppendDelayed, Command, DelayedMessage, NewMessage, Outcome, Recall,
        RecallOutcome, TimerId,
    },
};

impl Broker {
    /// Stores messages of which at least one is delayed, all or none. One answer each, in order.
    pub(super) async fn send_delayed(
        &self,
        (topic, queue): (Topic, QueueId),
        messages: Vec<v2::Message>,
        new: Vec<NewMessage>,
        deadline: Instant,
    ) -> Result<Vec<Sent>, Error> {
        let delayed = |(wire, message): (&v2::Message, NewMessage)| DelayedMessage {
            due: message::delivery_time(wire).unwrap_or_default(),
            message,
        };
        let bytes = new.iter().map(|new| new.bytes.len()).sum();
        let new = messages.iter().zip(new).map(delayed).collect();
        let command =
            Command::AppendDelayed(AppendDelayed { topic: topic.clone(), queue, messages: new });
        let parts = command.encode();
        drop(command);
        let accepted = match self.submit(parts, deadline).await? {
            Outcome::Delayed { messages, .. } => messages,
            other => unexpected(&other),
        };
        assert_eq!(accepted.len(), messages.len(), "one answer for each message");
        let bodies = messages.iter().map(|message| message.body.len());
        self.metrics.sent((&topic, MessageType::Delay), bytes, bodies);
        let now = wall_now();
        for message in &messages {
            let due = message::delivery_time(message).unwrap_or_default();
            self.metrics.delayed(&topic, due.since(now));
        }
        messages
            .into_iter()
            .zip(accepted)
            .map(|(message, accepted)| self.told(&topic, id_of(message), accepted))
            .collect()
    }

    fn told(&self, topic: &Topic, message_id: String, accepted: Accepted) -> Result<Sent, Error> {
        let (offset, recall) = match accepted {
            Accepted::Queued(placed) => (Some(placed.offset), None),
            Accepted::Waits { timer: TimerId { due, number }, .. } => {
                let (broker, topic) = (self.settings.name.clone(), topic.clone());
                let message_id = message_id.parse()?;
                (None, Some(RecallHandle { broker, topic, due, number, message_id }))
            }
        };
        Ok(Sent { message_id, offset, transaction: None, recall })
    }

    /// Takes a delayed message back before it is delivered; it never appears then. Its sender's id
    /// of it. Doing so twice is doing it once.
    pub async fn recall(
        &self,
        topic: &Topic,
        handle: &str,
        deadline: Instant,
    ) -> Result<String, Error> {
        self.leading()?;
        let handle: RecallHandle = handle.parse()?;
        if handle.broker != self.settings.name {
            return Err(Error::ForeignRecallHandle("broker"));
        }
        if handle.topic != *topic {
            return Err(Error::ForeignRecallHandle("topic"));
        }
        let config = self.topic(topic, deadline).await?;
        if !config.accepts.contains(&MessageType::Delay) {
            let found = MessageType::Delay;
            return Err(proto::InvalidMessage::Type { found }.into());
        }
        let timer = TimerId { due: handle.due, number: handle.number };
        let command = Command::Recall(Recall { topic: topic.clone(), timer });
        let outcome = match self.propose(&command, deadline).await? {
            Outcome::Recalled(outcome) => outcome,
            other => unexpected(&other),
        };
        self.metrics.recalled(outcome);
        match outcome {
            RecallOutcome::Done => Ok(handle.message_id.to_string()),
            RecallOutcome::Delivered => Err(Error::AlreadyDelivered),
            RecallOutcome::Unknown => Err(Error::NothingToRecall),
        }
    }
}
