//! Storing messages.

use std::time::Instant;

use bytes::Bytes;
use commitlog::Bug;
use md5::{Digest, Md5};
use proto::{
    ClientId, InvalidMessage, QueueId, QueueOffset, RecallHandle, SendMessageRequest, Topic,
    TransactionId,
    clock::wall_now,
    message, tag_hash, v2,
    v2::{MessageType, Permission},
};

use super::{Broker, quota::Load, sown, unexpected};
use crate::{
    Error,
    command::{Append, Command, Limited, NewMessage, Outcome, Rejection, TopicConfig},
    directory::route,
    error::Bound,
};

/// Where a message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The client's own id of it.
    pub message_id: String,
    /// Its place in its queue; final. None while the message is in no queue.
    pub offset: Option<QueueOffset>,
    /// Transactional messages only.
    pub transaction: Option<TransactionId>,
    /// Delayed messages only: takes it back.
    pub recall: Option<RecallHandle>,
}

impl Broker {
    /// Stores the messages of one request, all or none, in one queue. One answer each, in order.
    pub async fn send(
        &self,
        client: Option<&ClientId>,
        request: SendMessageRequest,
        deadline: Instant,
    ) -> Result<Vec<Sent>, Error> {
        self.store(client, request, deadline).await.map_err(|error| match error {
            // The queue was chosen here, and closed before the messages came to it.
            Error::Rejected(Rejection::QueueNotFound { .. }) => Error::ClosedHere,
            other => other,
        })
    }

    async fn store(
        &self,
        client: Option<&ClientId>,
        request: SendMessageRequest,
        deadline: Instant,
    ) -> Result<Vec<Sent>, Error> {
        self.leading()?;
        if self.disk.is_full() {
            return Err(Error::Overloaded(Bound::Disk));
        }
        let bytes: usize = request.messages.iter().map(Bytes::len).sum();
        let Some(_lease) = self.send_budget.take(bytes) else {
            return Err(Error::Overloaded(Bound::SendBytes));
        };
        let messages = message::decode(&request)?;
        let topic = message::check_all(&messages, &self.tunables().rules, wall_now())?;
        let config = self.topic(&topic, deadline).await?;
        check_topic(&topic, &config, &messages)?;

        let queue = match message_group(&messages)? {
            Some(group) => self.ordered_queue(&topic, &config, group)?,
            None if config.queues == 0 => return Err(Error::ClosedHere),
            None => self.queue_for(&messages, config.queues),
        };
        self.spend(client, &topic, &messages)?;
        let mut new: Vec<NewMessage> = messages
            .iter()
            .zip(request.messages)
            .map(|(message, bytes)| new_message(client, &topic, message, bytes))
            .collect();
        if message::message_type(&messages[0]) == MessageType::Transaction {
            assert_eq!(new.len(), 1, "a transactional message was checked to be alone");
            let new = new.remove(0);
            let sent = self.send_half(client, (topic, queue), &messages[0], new, deadline).await?;
            return Ok(vec![sent]);
        }
        if messages.iter().any(|message| message::message_type(message) == MessageType::Delay) {
            return self.send_delayed((topic, queue), messages, new, deadline).await;
        }
        let mut placed = match Bug::B27.is_sown() && new.len() > 1 {
            true => sown::append_first(self, (&topic, queue), &mut new, deadline).await?,
            false => Vec::new(),
        };
        let command = Command::Append(Append { topic: topic.clone(), queue, messages: new });
        let parts = command.encode();
        drop(command);
        match self.submit(parts, deadline).await? {
            Outcome::Appended { messages, .. } => placed.extend(messages),
            other => unexpected(&other),
        }
        assert_eq!(placed.len(), messages.len(), "one place for each message");
        let kind = message::message_type(&messages[0]);
        let bodies = messages.iter().map(|message| message.body.len());
        self.metrics.sent((&topic, kind), bytes, bodies);
        Ok(messages
            .into_iter()
            .zip(placed)
            .map(|(message, place)| Sent {
                message_id: id_of(message),
                offset: Some(place.offset),
                transaction: None,
                recall: None,
            })
            .collect())
    }

    /// The queue that keeps a message group's order: one of all that the topic has anywhere. The
    /// access point finds it from the same placement, so that it differs only while the placement
    /// is being changed.
    fn ordered_queue(
        &self,
        topic: &Topic,
        config: &TopicConfig,
        message_group: &str,
    ) -> Result<QueueId, Error> {
        let route = route(topic.clone(), config.clone());
        let (broker, queue) = gateway::fifo_queue(&route, message_group);
        if *broker != self.settings.name || queue.0 >= config.queues {
            return Err(Error::PlacedElsewhere(broker.clone()));
        }
        Ok(queue)
    }

    /// Takes the messages from the quotas of the topic and the client.
    fn spend(
        &self,
        client: Option<&ClientId>,
        topic: &Topic,
        messages: &[v2::Message],
    ) -> Result<(), Error> {
        let topic = Limited::Topic(topic.clone());
        let quotas = match client {
            Some(client) => self.view.quotas_of([topic, Limited::Client(client.clone())]),
            None => self.view.quotas_of([topic]),
        };
        let bytes = messages.iter().map(|message| message.body.len() as u64).sum();
        let load = Load { messages: messages.len() as u64, bytes };
        self.buckets.take(&quotas, load, Instant::now()).map_err(Error::QuotaExceeded)
    }

    /// The queue that the client chose, if the topic has it here; else they take turns.
    fn queue_for(&self, messages: &[v2::Message], queues: u32) -> QueueId {
        let hint = messages
            .first()
            .and_then(|message| message.system_properties.as_ref())
            .and_then(|system| u32::try_from(system.queue_id).ok())
            .filter(|id| *id < queues);
        QueueId(hint.unwrap_or_else(|| self.next_turn() % queues))
    }
}

/// The message group of all messages of a request, which go to one queue together.
fn message_group(messages: &[v2::Message]) -> Result<Option<&str>, Error> {
    let first = messages.first().and_then(group_of);
    match messages.iter().all(|message| group_of(message) == first) {
        true => Ok(first),
        false => Err(Error::MixedMessageGroups),
    }
}

fn group_of(message: &v2::Message) -> Option<&str> {
    message.system_properties.as_ref()?.message_group.as_deref()
}

fn check_topic(topic: &Topic, config: &TopicConfig, messages: &[v2::Message]) -> Result<(), Error> {
    if !matches!(config.permission, Permission::Write | Permission::ReadWrite) {
        return Err(Error::NotWritable(topic.clone()));
    }
    for message in messages {
        message::check_type(message, &config.accepts)?;
        let kind = message::message_type(message);
        match kind {
            MessageType::Normal
            | MessageType::Fifo
            | MessageType::Delay
            | MessageType::Transaction => {}
            MessageType::Lite | MessageType::Priority | MessageType::Unspecified => {
                return Err(Error::unsupported_type(kind));
            }
        }
        // One byte counts the keys of a message in the log, and its id is one of them.
        let keys = message.system_properties.as_ref().map_or(0, |system| system.keys.len());
        let max = NewMessage::MAX_KEYS - 1;
        if keys > max {
            let found = keys;
            return Err(InvalidMessage::TooManyProperties { found, max }.into());
        }
    }
    Ok(())
}

fn new_message(
    client: Option<&ClientId>,
    topic: &Topic,
    message: &v2::Message,
    bytes: Bytes,
) -> NewMessage {
    let system = message.system_properties.as_ref();
    let keys = system.map_or(&[][..], |system| &system.keys);
    NewMessage {
        tag_hash: tag_hash(system.and_then(|s| s.tag.as_deref()).unwrap_or_default()),
        // The function is that of tags: both are names that are looked up by hash.
        key_hashes: keys
            .iter()
            .map(|key| tag_hash(key))
            .chain(system.map(|s| s.message_id.as_str()).filter(|id| !id.is_empty()).map(id_hash))
            .collect(),
        dedupe: client.zip(system).map(|(client, s)| dedupe_key(client, topic, s, message)),
        bytes,
    }
}

/// What a message's id is looked up by. It shares the index of keys, and must not be mixed up with
/// a key of the same letters more often than by accident.
pub(super) fn id_hash(message_id: &str) -> u64 {
    const MARK: u64 = 0x6964_0000_0000_6964;
    tag_hash(message_id) ^ MARK
}

/// Names one logical send across the attempts of its client. Ids alone are not enough: containers
/// that share an address and a process number make the same ones.
fn dedupe_key(
    client: &ClientId,
    topic: &Topic,
    system: &v2::SystemProperties,
    message: &v2::Message,
) -> u128 {
    let body = &message.body;
    let mut hash = Md5::new();
    for text in [client.as_str(), topic.as_str(), &system.message_id] {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(u64::try_from(body.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(crc32fast::hash(body).to_be_bytes());
    // A repeated send is answered with its own time: it must be that of the first.
    if let Some(due) = message::delivery_time(message) {
        hash.update(due.0.to_be_bytes());
    }
    u128::from_be_bytes(hash.finalize().into())
}

pub(super) fn id_of(message: v2::Message) -> String {
    message.system_properties.map(|system| system.message_id).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: &str, topic: &str, id: &str, body: &[u8]) -> u128 {
        let system = v2::SystemProperties { message_id: id.into(), ..Default::default() };
        let client = client.parse().expect("a client id");
        let message = v2::Message { body: Bytes::copy_from_slice(body), ..Default::default() };
        dedupe_key(&client, &topic.parse().expect("a topic"), &system, &message)
    }

    #[test]
    fn a_repeated_send_has_the_same_key_and_another_send_another() {
        let first = key("c", "t", "id", b"body");
        assert_eq!(first, key("c", "t", "id", b"body"));
        let others = [
            key("d", "t", "id", b"body"),
            key("c", "u", "id", b"body"),
            key("c", "t", "ie", b"body"),
            key("c", "t", "id", b"bodz"),
            key("ct", "i", "d", b"body"),
        ];
        for other in others {
            assert_ne!(first, other);
        }
    }

    /// Leaders of different versions must agree, or a retry across an upgrade is stored twice.
    #[test]
    fn keys_never_change() {
        assert_eq!(key("c", "t", "id", b"body"), 0xa00e_3a57_6b18_f024_2bdc_011e_1792_daa3);
    }
}
