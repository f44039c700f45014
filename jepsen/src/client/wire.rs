//! The calls of a history over the official protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::admin;
use proto::v2;
use proto::v2::receive_message_response::Content;

use super::administration::{add, bounded, list, parked, read, refused, remove, write};
use super::body;
use super::membership::Members;
use super::message::{id_of, normal_message, timestamp};
use super::outcome::Failure;
use super::rpc::{DEADLINE, Rpc, duration, resource};
use crate::history::{Answer, Call, Change, Delivery, Entry, Key, Message, Queue, Resolution};

/// Bytes of a body: small, so that the figures are about operations.
const BODY: usize = 96;
/// Messages of one receive at most.
const BATCH: i32 = 32;
/// The group on whose behalf readers without one read.
const READERS: &str = "readers";

/// What clients were told and need again: handles, ids of transactions. Shared by all of a run.
#[derive(Debug)]
pub struct Known {
    keys: Vec<Queue>,
    words: Mutex<Words>,
}

#[derive(Debug, Default)]
struct Words {
    handles: BTreeMap<String, u64>,
    receipts: BTreeMap<u64, Receipt>,
    recalls: BTreeMap<Message, String>,
    transactions: BTreeMap<Message, String>,
}

#[derive(Debug, Clone)]
struct Receipt {
    handle: String,
    message_id: String,
    topic: String,
}

impl Known {
    #[must_use]
    pub fn new(keys: Vec<Queue>) -> Arc<Self> {
        Arc::new(Self { keys, words: Mutex::default() })
    }

    /// How many queues there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.keys.len()).unwrap_or(u32::MAX)
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().expect("no holder panics")
    }

    fn queue(&self, key: Key) -> &Queue {
        &self.keys[key as usize]
    }

    /// The number that stands for a handle in the history.
    fn number(&self, receipt: Receipt) -> u64 {
        let mut words = self.words();
        let next = words.handles.len() as u64 + 1;
        let number = *words.handles.entry(receipt.handle.clone()).or_insert(next);
        words.receipts.insert(number, receipt);
        number
    }

    fn receipt(&self, number: u64) -> Receipt {
        self.words().receipts.get(&number).cloned().expect("a handle that was given")
    }
}

/// One client, which talks to one access point at a time.
#[derive(Debug)]
pub struct Wire {
    known: Arc<Known>,
    points: Vec<(String, Rpc)>,
    at: usize,
    members: Members,
}

impl Wire {
    /// A client that begins at the `at`-th of the access points.
    #[must_use]
    pub fn new(known: &Arc<Known>, points: Vec<(String, Rpc)>, at: usize) -> Self {
        Self { known: Arc::clone(known), points, at, members: Members::default() }
    }

    /// Goes to another access point.
    pub fn move_on(&mut self) {
        self.at += 1;
    }

    /// Goes to this access point.
    pub fn move_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Whom it talks to.
    #[must_use]
    pub fn point(&self) -> &str {
        &self.points[self.at % self.points.len()].0
    }

    fn rpc(&self) -> Rpc {
        self.points[self.at % self.points.len()].1.clone()
    }

    fn wire_queue(&self, key: Key) -> v2::MessageQueue {
        let queue = self.known.queue(key);
        v2::MessageQueue {
            topic: Some(resource(&queue.topic)),
            id: i32::try_from(queue.id).unwrap_or(i32::MAX),
            permission: v2::Permission::ReadWrite.into(),
            broker: Some(v2::Broker { name: queue.broker.clone(), id: 0, endpoints: None }),
            accept_message_types: Vec::new(),
        }
    }

    /// Asks once. Local calls (what a producer decides) need nobody.
    pub async fn perform(&mut self, call: &Call) -> Result<Answer, Failure> {
        let rpc = self.rpc();
        match call {
            Call::Send { key, ids, message_group, deliver_at } => {
                self.send(&rpc, *key, ids, message_group.as_deref(), *deliver_at).await
            }
            Call::Recall { id } => self.recall(&rpc, *id).await,
            Call::Poll { key, from, group } => {
                let group = group.as_deref().unwrap_or(READERS);
                self.poll(&rpc, *key, from.unwrap_or(0), group).await
            }
            Call::MaxOffset { key } => {
                let offset = self.bound(&rpc, *key, v2::QueryOffsetPolicy::End).await?;
                Ok(Answer::MaxOffset { offset })
            }
            Call::MinOffset { key } => {
                let offset = self.bound(&rpc, *key, v2::QueryOffsetPolicy::Beginning).await?;
                Ok(Answer::MinOffset { offset })
            }
            Call::Lookup { key, id } => self.lookup(&rpc, *key, *id).await,
            Call::Receive { group, key, invisible_ms, wait_ms, attempt_id } => {
                let times = (*invisible_ms, *wait_ms);
                self.receive(&rpc, group, *key, times, attempt_id.as_ref()).await
            }
            Call::Ack { group, handle, .. } => self.ack(&rpc, group, *handle).await,
            Call::ChangeInvisible { group, handle, invisible_ms, .. } => {
                self.change_invisible(&rpc, group, *handle, *invisible_ms).await
            }
            Call::DeadLetters { group } => self.dead_letters(&rpc, group).await,
            Call::Commit { group, key, offset } => {
                let queue = self.wire_queue(*key);
                rpc.update_offset(group, &queue, signed(*offset)).await?;
                Ok(Answer::Commit {})
            }
            Call::Query { group, key } => {
                Ok(Answer::Query { offset: self.committed(&rpc, group, *key).await? })
            }
            Call::Resume { group, key } => {
                let offset = self.committed(&rpc, group, *key).await?.unwrap_or(0);
                Ok(Answer::Resume { offset })
            }
            Call::Prepare { tx, key, .. } => self.prepare(&rpc, *key, *tx).await,
            Call::Decide { .. } => Ok(Answer::Decide {}),
            Call::End { tx, resolution } => self.end(&rpc, *tx, *resolution).await,
            Call::Parked {} => parked(&rpc).await,
            Call::Member { group, member, change } => {
                self.change_member(&rpc, group, member, *change).await
            }
            Call::Assignment { group, member } => self.assignment(&rpc, group, member).await,
            Call::Write { register, value } => write(&rpc, register, *value).await,
            Call::Read { register } => read(&rpc, register).await,
            Call::Add { element, .. } => add(&rpc, *element).await,
            Call::Remove { element, .. } => remove(&rpc, *element).await,
            Call::List { .. } => list(&rpc).await,
            Call::Route { .. } => self.route(&rpc).await,
            Call::Check { .. } | Call::Cas { .. } => Err(Failure::Rejected {
                code: 0,
                message: "no request of the protocol does this".into(),
            }),
        }
    }

    async fn send(
        &self,
        rpc: &Rpc,
        key: Key,
        ids: &[Message],
        message_group: Option<&str>,
        deliver_at: Option<u64>,
    ) -> Result<Answer, Failure> {
        let topic = &self.known.queue(key).topic;
        let messages: Vec<v2::Message> = ids
            .iter()
            .map(|id| {
                let mut message = normal_message(topic, *id, body::of(*id, BODY));
                let properties = message.system_properties.as_mut().expect("it was built so");
                if let Some(group) = message_group {
                    properties.message_type = v2::MessageType::Fifo.into();
                    properties.message_group = Some(group.to_owned());
                }
                if let Some(at) = deliver_at {
                    properties.message_type = v2::MessageType::Delay.into();
                    properties.delivery_timestamp = Some(timestamp(at));
                }
                message
            })
            .collect();
        let entries = rpc.send(&messages, DEADLINE).await?;
        if deliver_at.is_some() {
            let mut words = self.known.words();
            for (id, entry) in ids.iter().zip(&entries) {
                words.recalls.insert(*id, entry.recall_handle.clone());
            }
            return Ok(Answer::Send { offsets: Vec::new() });
        }
        Ok(Answer::Send { offsets: entries.iter().map(|e| unsigned(e.offset)).collect() })
    }

    async fn recall(&self, rpc: &Rpc, id: Message) -> Result<Answer, Failure> {
        const TOO_LATE: i32 = v2::Code::PreconditionFailed as i32;
        let handle = self.known.words().recalls.get(&id).cloned().expect("it was acknowledged");
        match rpc.recall(self.topic_of("delay"), &handle).await {
            Ok(_) => Ok(Answer::Recall { done: true }),
            Err(Failure::Rejected { code: TOO_LATE, .. }) => Ok(Answer::Recall { done: false }),
            Err(failure) => Err(failure),
        }
    }

    /// The topic of the workload of this name: workloads whose calls do not name a queue have one.
    fn topic_of(&self, workload: &str) -> &str {
        let mut topics = self.known.keys.iter().map(|queue| &queue.topic);
        topics.find(|topic| topic.starts_with(workload)).map_or("", String::as_str)
    }

    async fn poll(&self, rpc: &Rpc, key: Key, from: u64, group: &str) -> Result<Answer, Failure> {
        let queue = self.wire_queue(key);
        let (messages, _) = rpc.pull(group, &queue, signed(from), Duration::ZERO).await?;
        let (mut entries, mut corrupt) = (Vec::new(), Vec::new());
        for message in messages {
            let properties = message.system_properties.unwrap_or_default();
            let offset = unsigned(properties.queue_offset.unwrap_or(-1));
            match body::message(&message.body) {
                Some(id) => entries.push(Entry { offset, id }),
                None => corrupt.push(format!("{} at {offset}", properties.message_id)),
            }
        }
        Ok(Answer::Poll { entries, corrupt })
    }

    async fn bound(
        &self,
        rpc: &Rpc,
        key: Key,
        policy: v2::QueryOffsetPolicy,
    ) -> Result<u64, Failure> {
        Ok(unsigned(rpc.query_offset(&self.wire_queue(key), policy).await?))
    }

    async fn lookup(&self, rpc: &Rpc, key: Key, id: Message) -> Result<Answer, Failure> {
        use admin::query_messages_request::By;
        let queue = self.known.queue(key);
        let request = admin::QueryMessagesRequest {
            topic: queue.topic.clone(),
            broker_name: queue.broker.clone(),
            by: Some(By::MessageId(id_of(id))),
            from_ms: 0,
            until_ms: u64::MAX,
            max: 1,
            ..Default::default()
        };
        let answer = bounded(rpc.admin().query_messages(request)).await?;
        refused(answer.error)?;
        Ok(Answer::Lookup { offset: answer.messages.first().map(|m| m.offset) })
    }

    async fn receive(
        &self,
        rpc: &Rpc,
        group: &str,
        key: Key,
        (invisible_ms, wait_ms): (u64, u64),
        attempt_id: Option<&String>,
    ) -> Result<Answer, Failure> {
        let topic = self.known.queue(key).topic.clone();
        let request = v2::ReceiveMessageRequest {
            group: Some(resource(group)),
            message_queue: Some(self.wire_queue(key)),
            filter_expression: Some(v2::FilterExpression {
                r#type: v2::FilterType::Tag.into(),
                expression: "*".into(),
            }),
            batch_size: BATCH,
            invisible_duration: Some(duration(Duration::from_millis(invisible_ms))),
            attempt_id: attempt_id.cloned(),
            ..Default::default()
        };
        let mut stream = rpc.receive(request, Duration::from_millis(wait_ms)).await?;
        let (mut deliveries, mut corrupt, mut status) = (Vec::new(), Vec::new(), None);
        while let Some(part) = stream.message().await.map_err(|e| Failure::of_error(&e))? {
            match part.content {
                Some(Content::Status(told)) => status = Some(told),
                Some(Content::Message(message)) => {
                    let properties = message.system_properties.unwrap_or_default();
                    let Some(id) = body::message(&message.body) else {
                        corrupt.push(properties.message_id);
                        continue;
                    };
                    let handle = self.known.number(Receipt {
                        handle: properties.receipt_handle.unwrap_or_default(),
                        message_id: properties.message_id,
                        topic: topic.clone(),
                    });
                    deliveries.push(Delivery {
                        id,
                        offset: properties.queue_offset.map(unsigned),
                        handle,
                        attempt: properties.delivery_attempt.unwrap_or(0).try_into().unwrap_or(0),
                    });
                }
                Some(Content::DeliveryTimestamp(_)) | None => {}
            }
        }
        let code = status.as_ref().map(|s| s.code);
        if code == Some(v2::Code::Ok.into()) || code == Some(v2::Code::MessageNotFound.into()) {
            return Ok(Answer::Receive { deliveries, corrupt });
        }
        Err(Failure::of_status(status.as_ref()))
    }

    async fn ack(&self, rpc: &Rpc, group: &str, handle: u64) -> Result<Answer, Failure> {
        let receipt = self.known.receipt(handle);
        let entry = entry(&receipt);
        let entries = rpc.ack(group, &receipt.topic, vec![entry]).await?;
        let status = entries.first().and_then(|e| e.status.as_ref());
        match status.map(|s| s.code) {
            Some(code) if code == i32::from(v2::Code::Ok) => Ok(Answer::Ack {}),
            _ => Err(Failure::of_status(status)),
        }
    }

    async fn change_invisible(
        &self,
        rpc: &Rpc,
        group: &str,
        handle: u64,
        invisible_ms: u64,
    ) -> Result<Answer, Failure> {
        let receipt = self.known.receipt(handle);
        let invisible = Duration::from_millis(invisible_ms);
        let topic = receipt.topic.clone();
        let changed =
            rpc.change_invisible_duration(group, &topic, entry(&receipt), invisible).await?;
        let handle = self.known.number(Receipt { handle: changed, ..receipt });
        Ok(Answer::ChangeInvisible { handle })
    }

    async fn dead_letters(&self, rpc: &Rpc, group: &str) -> Result<Answer, Failure> {
        const NO_TOPIC: i32 = v2::Code::TopicNotFound as i32;
        let queue = v2::MessageQueue {
            topic: Some(resource(&format!("%DLQ%{group}"))),
            id: 0,
            permission: v2::Permission::Read.into(),
            broker: self.wire_queue(0).broker,
            accept_message_types: Vec::new(),
        };
        let (mut ids, mut next) = (Vec::new(), 0);
        loop {
            let (messages, after) = match rpc.pull(READERS, &queue, next, Duration::ZERO).await {
                Ok(read) => read,
                // Nothing was ever given up.
                Err(Failure::Rejected { code: NO_TOPIC, .. }) if next == 0 => break,
                Err(failure) => return Err(failure),
            };
            if messages.is_empty() {
                break;
            }
            ids.extend(messages.iter().filter_map(|m| body::message(&m.body)));
            next = after;
        }
        Ok(Answer::DeadLetters { ids })
    }

    async fn committed(&self, rpc: &Rpc, group: &str, key: Key) -> Result<Option<u64>, Failure> {
        const NEVER: i32 = v2::Code::OffsetNotFound as i32;
        match rpc.get_offset(group, &self.wire_queue(key)).await {
            Ok(offset) => Ok(Some(unsigned(offset))),
            Err(Failure::Rejected { code: NEVER, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn prepare(&self, rpc: &Rpc, key: Key, tx: Message) -> Result<Answer, Failure> {
        let topic = &self.known.queue(key).topic;
        let mut message = normal_message(topic, tx, body::of(tx, BODY));
        let properties = message.system_properties.as_mut().expect("it was built so");
        properties.message_type = v2::MessageType::Transaction.into();
        let entries = rpc.send(&[message], DEADLINE).await?;
        let transaction = entries.first().map(|e| e.transaction_id.clone()).unwrap_or_default();
        self.known.words().transactions.insert(tx, transaction);
        Ok(Answer::Prepare {})
    }

    async fn end(&self, rpc: &Rpc, tx: Message, resolution: Resolution) -> Result<Answer, Failure> {
        let transaction = self.known.words().transactions.get(&tx).cloned();
        let transaction = transaction.expect("its half message was acknowledged");
        rpc.end_transaction(self.topic_of("txn"), &transaction, wire_resolution(resolution))
            .await?;
        Ok(Answer::End {})
    }

    fn topics_of(&self, group: &str) -> Vec<String> {
        let mut topics: Vec<String> = self.known.keys.iter().map(|q| q.topic.clone()).collect();
        topics.dedup();
        // The group of a workload begins with the workload's name, as its topics do.
        let workload = group.split('-').next().unwrap_or_default();
        topics.retain(|topic| topic.starts_with(workload));
        topics
    }

    async fn change_member(
        &mut self,
        rpc: &Rpc,
        group: &str,
        member: &str,
        change: Change,
    ) -> Result<Answer, Failure> {
        let topics = self.topics_of(group);
        match change {
            Change::Join => {
                self.members.introduced(rpc, member, group, &topics).await?;
            }
            Change::Leave => self.members.leave(rpc, member, group).await?,
            Change::Crash => self.members.crash(member),
        }
        Ok(Answer::Member {})
    }

    async fn assignment(
        &mut self,
        rpc: &Rpc,
        group: &str,
        member: &str,
    ) -> Result<Answer, Failure> {
        let topics = self.topics_of(group);
        let own = self.members.introduced(rpc, member, group, &topics).await?;
        let mut keys = Vec::new();
        for topic in &topics {
            for assignment in own.query_assignment(topic, group).await? {
                let id = assignment.message_queue.map_or(-1, |queue| queue.id);
                let key =
                    self.known.keys.iter().position(|queue| {
                        queue.topic == *topic && i32::try_from(queue.id) == Ok(id)
                    });
                keys.extend(key.and_then(|key| Key::try_from(key).ok()));
            }
        }
        Ok(Answer::Assignment { keys })
    }

    async fn route(&self, rpc: &Rpc) -> Result<Answer, Failure> {
        let answer = bounded(rpc.admin().cluster_status(admin::ClusterStatusRequest {})).await?;
        refused(answer.error)?;
        // By its address: its id is another one once it lost its disk.
        let leader = answer.groups.first().and_then(|group| {
            let leader = group.members.iter().find(|node| node.node_id == group.leader_id)?;
            let at = |(_, rpc): &&(String, Rpc)| rpc.address().to_string() == leader.client_address;
            self.points.iter().find(at).map(|(name, _)| name.clone())
        });
        Ok(Answer::Route { leader })
    }
}

fn entry(receipt: &Receipt) -> v2::AckMessageEntry {
    v2::AckMessageEntry {
        message_id: receipt.message_id.clone(),
        receipt_handle: receipt.handle.clone(),
        ..Default::default()
    }
}

/// As the protocol has it.
#[must_use]
pub fn wire_resolution(resolution: Resolution) -> v2::TransactionResolution {
    match resolution {
        Resolution::Commit => v2::TransactionResolution::Commit,
        Resolution::Rollback => v2::TransactionResolution::Rollback,
        Resolution::Undecided => v2::TransactionResolution::Unspecified,
    }
}

/// An offset of the wire; one that no queue can have where it is negative.
fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(u64::MAX)
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
