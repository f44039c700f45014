//! Commands as bytes. `docs/protocol/commands.md` has the pictures.
//!
//! Integers are big-endian. Whatever is variable in size comes with its size before it, so that
//! decoding never looks further than the bytes at hand, and arbitrary bytes give an error, never a
//! panic. Message bytes come last and are neither copied in nor copied out.

mod administration;
mod give_back;
mod offsets;
mod retention;
mod timers;
mod transactions;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use proto::{InvalidName, QueueId, QueueOffset, Timestamp, v2};

pub(crate) use administration::{decode_limited, encode_limited};
pub(crate) use transactions::{verdict_byte, verdict_of};

use super::{
    Ack, Again, Append, Backoff, ChangeInvisible, Command, GroupConfig, Handle, Mark, NewMessage,
    Pick, Pop, PutGroup, PutTopic, RaiseLevel, Release, Renew, TopicConfig, level, ordered_codec,
};

/// The first byte of a command. Persisted: never reuse one.
pub(super) mod tag {
    pub(super) const PUT_TOPIC: u8 = 1;
    pub(super) const PUT_GROUP: u8 = 2;
    pub(super) const APPEND: u8 = 3;
    pub(super) const POP: u8 = 4;
    pub(super) const ACK: u8 = 5;
    pub(super) const CHANGE_INVISIBLE: u8 = 6;
    pub(super) const RENEW: u8 = 7;
    pub(super) const RELEASE: u8 = 8;
    pub(super) const DELETE_TOPIC: u8 = 60;
    pub(super) const DELETE_GROUP: u8 = 61;
    pub(super) const SWITCH_GROUP: u8 = 62;
    pub(super) const PUT_QUOTA: u8 = 63;
    pub(super) const PUT_RETENTION: u8 = 64;
    pub(super) const EXPIRE: u8 = 65;
    pub(super) const CLOSE_QUEUES: u8 = 66;
    pub(super) const PUT_SETTING: u8 = 85;
    pub(super) const RETIRE_TOPIC: u8 = 86;
    pub(super) const APPEND_DELAYED: u8 = 30;
    pub(super) const FIRE: u8 = 31;
    pub(super) const RECALL: u8 = 32;
    pub(super) const COMMIT_OFFSET: u8 = 50;
    pub(super) const RESET_OFFSETS: u8 = 51;
    pub(super) const FOLLOW_RESET: u8 = 52;
    pub(in super::super) const POP_FIFO: u8 = 20;
    pub(in super::super) const DEAD_LETTER: u8 = 21;
    pub(in super::super) const REDRIVE: u8 = 22;
    pub(super) const APPEND_HALF: u8 = 40;
    pub(super) const END_TRANSACTION: u8 = 41;
    pub(super) const CHECK_TRANSACTIONS: u8 = 42;
    pub(super) const PARK_TRANSACTIONS: u8 = 43;
    pub(super) const CARRY: u8 = 75;
    pub(super) const EXPIRE_TRANSACTIONS: u8 = 76;
    pub(super) const GIVE_BACK: u8 = 80;
    pub(super) const MARK: u8 = 90;
    pub(in super::super) const RAISE_LEVEL: u8 = 95;
    pub(super) const PUT_LIVE_SETTING: u8 = 105;
    /// In no release: stands for a command of the next one where that matters.
    pub(in super::super) const NEXT: u8 = 99;
}

/// The tag of a command that the leader can be held at, see `fault`.
pub(crate) fn tag_named(name: &str) -> Option<u8> {
    Some(match name {
        "Pop" => tag::POP,
        "PopFifo" => tag::POP_FIFO,
        "Ack" => tag::ACK,
        "DeadLetter" => tag::DEAD_LETTER,
        "Fire" => tag::FIRE,
        "Recall" => tag::RECALL,
        "AppendHalf" => tag::APPEND_HALF,
        "EndTransaction" => tag::END_TRANSACTION,
        "CheckTransactions" => tag::CHECK_TRANSACTIONS,
        _ => return None,
    })
}

/// Kinds of retry policy. Persisted.
mod backoff {
    pub(super) const CUSTOMIZED: u8 = 0;
    pub(super) const EXPONENTIAL: u8 = 1;
}

/// Bytes that are no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("command ends early")]
    Short,
    #[error("{bytes} bytes after the end of the command")]
    Trailing { bytes: usize },
    #[error("unknown command tag {tag}: a newer release wrote it, start that one")]
    UnknownTag { tag: u8 },
    #[error(
        "the group was raised to feature level {found}, this release understands up to \
         {supported}: start the release that this node ran before, or a newer one"
    )]
    NewerLevel { found: u32, supported: u32 },
    #[error("{field} is not valid UTF-8")]
    NotText { field: &'static str },
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("{field} has the unknown value {value}")]
    UnknownValue { field: &'static str, value: u8 },
    #[error("an append without messages")]
    NoMessages,
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

impl Command {
    /// The command as parts that follow each other: a small header, and the bytes of each message
    /// as they are.
    ///
    /// # Panics
    /// A list is longer than the `MAX_` constant of its command, or a name than 64 KiB. Both are
    /// checked where requests come in.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::with_capacity(128);
        match self {
            Self::PutTopic(c) => put_topic(&mut out, c),
            Self::PutGroup(c) => put_group(&mut out, c),
            Self::Append(c) => return append(out, c),
            Self::Pop(c) => pop(&mut out, c),
            Self::Ack(c) => ack(&mut out, c),
            Self::ChangeInvisible(c) => change_invisible(&mut out, c),
            Self::Renew(c) => renew(&mut out, c),
            Self::Release(c) => release(&mut out, c),
            Self::GiveBack(c) => give_back::give_back(&mut out, c),
            Self::DeleteTopic(c) => administration::delete_topic(&mut out, c),
            Self::DeleteGroup(c) => administration::delete_group(&mut out, c),
            Self::SwitchGroup(c) => administration::switch_group(&mut out, c),
            Self::PutQuota(c) => administration::put_quota(&mut out, c),
            Self::PutRetention(c) => administration::put_retention(&mut out, c),
            Self::Expire(c) => administration::expire(&mut out, c),
            Self::CloseQueues(c) => administration::close_queues(&mut out, c),
            Self::PutSetting(c) => administration::put_setting(&mut out, c),
            Self::RetireTopic(c) => administration::retire_topic(&mut out, c),
            Self::PutLiveSetting(c) => administration::put_live_setting(&mut out, c),
            Self::AppendDelayed(c) => return timers::append_delayed(out, c),
            Self::Fire(c) => timers::fire(&mut out, *c),
            Self::Recall(c) => timers::recall(&mut out, c),
            Self::CommitOffset(c) => offsets::commit_offset(&mut out, c),
            Self::ResetOffsets(c) => offsets::reset_offsets(&mut out, c),
            Self::FollowReset(c) => offsets::follow_reset(&mut out, c),
            Self::PopFifo(c) => ordered_codec::pop_fifo(&mut out, c),
            Self::DeadLetter(c) => ordered_codec::dead_letter(&mut out, c),
            Self::Redrive(c) => ordered_codec::redrive(&mut out, c),
            Self::AppendHalf(c) => return transactions::append_half(out, c),
            Self::EndTransaction(c) => transactions::end_transaction(&mut out, c),
            Self::CheckTransactions(c) => transactions::check_transactions(&mut out, c),
            Self::ParkTransactions(c) => transactions::park_transactions(&mut out, c),
            Self::Carry(c) => return retention::carry(out, c),
            Self::ExpireTransactions(c) => retention::expire_transactions(&mut out, c),
            Self::Mark(Mark) => out.put_u8(tag::MARK),
            Self::RaiseLevel(c) => {
                out.put_u8(tag::RAISE_LEVEL);
                out.put_u32(c.level);
            }
        }
        vec![out.freeze()]
    }

    /// Reads one command that fills `bytes`. Messages are slices of it.
    ///
    /// # Errors
    /// `bytes` are not exactly one command of a known layout.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut input = Input(bytes);
        let command = match input.u8()? {
            tag::PUT_TOPIC => Self::PutTopic(input.put_topic()?),
            tag::PUT_GROUP => Self::PutGroup(input.put_group()?),
            tag::APPEND => Self::Append(input.append()?),
            tag::POP => Self::Pop(input.pop()?),
            tag::ACK => Self::Ack(input.ack()?),
            tag::CHANGE_INVISIBLE => Self::ChangeInvisible(input.change_invisible()?),
            tag::RENEW => Self::Renew(input.renew()?),
            tag::RELEASE => Self::Release(input.release()?),
            tag::GIVE_BACK => Self::GiveBack(input.give_back()?),
            tag::DELETE_TOPIC => Self::DeleteTopic(input.delete_topic()?),
            tag::DELETE_GROUP => Self::DeleteGroup(input.delete_group()?),
            tag::SWITCH_GROUP => Self::SwitchGroup(input.switch_group()?),
            tag::PUT_QUOTA => Self::PutQuota(input.put_quota()?),
            tag::PUT_RETENTION => Self::PutRetention(input.put_retention()?),
            tag::EXPIRE => Self::Expire(input.expire()?),
            tag::CLOSE_QUEUES => Self::CloseQueues(input.close_queues()?),
            tag::PUT_SETTING => Self::PutSetting(input.put_setting()?),
            tag::RETIRE_TOPIC => Self::RetireTopic(input.retire_topic()?),
            tag::PUT_LIVE_SETTING => Self::PutLiveSetting(input.put_live_setting()?),
            tag::APPEND_DELAYED => Self::AppendDelayed(input.append_delayed()?),
            tag::FIRE => Self::Fire(input.fire()?),
            tag::RECALL => Self::Recall(input.recall()?),
            tag::COMMIT_OFFSET => Self::CommitOffset(input.commit_offset()?),
            tag::RESET_OFFSETS => Self::ResetOffsets(input.reset_offsets()?),
            tag::FOLLOW_RESET => Self::FollowReset(input.follow_reset()?),
            tag::POP_FIFO => Self::PopFifo(input.pop_fifo()?),
            tag::DEAD_LETTER => Self::DeadLetter(input.dead_letter()?),
            tag::REDRIVE => Self::Redrive(input.redrive()?),
            tag::APPEND_HALF => Self::AppendHalf(input.append_half()?),
            tag::END_TRANSACTION => Self::EndTransaction(input.end_transaction()?),
            tag::CHECK_TRANSACTIONS => Self::CheckTransactions(input.check_transactions()?),
            tag::PARK_TRANSACTIONS => Self::ParkTransactions(input.park_transactions()?),
            tag::CARRY => Self::Carry(input.carry()?),
            tag::EXPIRE_TRANSACTIONS => Self::ExpireTransactions(input.expire_transactions()?),
            tag::MARK => Self::Mark(Mark),
            tag::RAISE_LEVEL => Self::RaiseLevel(input.raise_level()?),
            tag => return Err(DecodeError::UnknownTag { tag }),
        };
        input.end(command)
    }
}

impl Input {
    fn raise_level(&mut self) -> Result<RaiseLevel, DecodeError> {
        let (found, supported) = (self.u32()?, level::understood());
        match found <= supported {
            true => Ok(RaiseLevel { level: found }),
            false => Err(DecodeError::NewerLevel { found, supported }),
        }
    }
}

/// Reads what [`encode_topic_config`] wrote.
pub(crate) fn decode_topic_config(bytes: Bytes) -> Result<TopicConfig, DecodeError> {
    let mut input = Input(bytes);
    let config = input.topic_config()?;
    input.end(config)
}

/// Reads what [`encode_group_config`] wrote.
pub(crate) fn decode_group_config(bytes: Bytes) -> Result<GroupConfig, DecodeError> {
    let mut input = Input(bytes);
    let config = input.group_config()?;
    input.end(config)
}

fn put_topic(out: &mut BytesMut, c: &PutTopic) {
    out.put_u8(tag::PUT_TOPIC);
    text(out, c.topic.as_str());
    out.put_u8(c.create_only.into());
    encode_topic_config(out, &c.config);
}

/// A topic's settings, the same in a command and in the key-value store.
pub(crate) fn encode_topic_config(out: &mut BytesMut, c: &TopicConfig) {
    out.put_u32(c.queues);
    out.put_u8(enum_byte(c.permission.into()));
    out.put_u8(count_u8(c.accepts.len()));
    for accepted in &c.accepts {
        out.put_u8(enum_byte((*accepted).into()));
    }
    out.put_u16(count_u16(c.placement.len()));
    for (broker, queues) in &c.placement {
        text(out, broker.as_str());
        out.put_u32(*queues);
    }
    out.put_u64(c.version);
}

pub(super) fn put_group(out: &mut BytesMut, c: &PutGroup) {
    out.put_u8(tag::PUT_GROUP);
    text(out, c.group.as_str());
    encode_group_config(out, &c.config);
}

/// A consumer group's settings, the same in a command and in the key-value store.
pub(crate) fn encode_group_config(out: &mut BytesMut, c: &GroupConfig) {
    out.put_u8(c.fifo.into());
    out.put_u32(c.max_attempts);
    match &c.backoff {
        Backoff::Customized { steps_ms } => {
            out.put_u8(backoff::CUSTOMIZED);
            out.put_u8(count_u8(steps_ms.len()));
            steps_ms.iter().for_each(|step| out.put_u64(*step));
        }
        Backoff::Exponential { initial_ms, max_ms, multiplier } => {
            out.put_u8(backoff::EXPONENTIAL);
            out.put_u64(*initial_ms);
            out.put_u64(*max_ms);
            out.put_u32(*multiplier);
        }
    }
}

fn append(mut out: BytesMut, c: &Append) -> Vec<Bytes> {
    out.put_u8(tag::APPEND);
    text(&mut out, c.topic.as_str());
    out.put_u32(c.queue.0);
    out.put_u16(count_u16(c.messages.len()));
    for message in &c.messages {
        put_message_header(&mut out, message);
    }
    let mut parts = Vec::with_capacity(1 + c.messages.len());
    parts.push(out.freeze());
    parts.extend(c.messages.iter().map(|m| m.bytes.clone()));
    parts
}

/// Everything about a message but its bytes.
fn put_message_header(out: &mut BytesMut, message: &NewMessage) {
    out.put_u32(u32::try_from(message.bytes.len()).expect("a message is below 4 GiB"));
    out.put_u64(message.tag_hash);
    out.put_u8(message.dedupe.is_some().into());
    if let Some(key) = message.dedupe {
        out.put_u128(key);
    }
    out.put_u8(count_u8(message.key_hashes.len()));
    for hash in &message.key_hashes {
        out.put_u64(*hash);
    }
}

fn pop(out: &mut BytesMut, c: &Pop) {
    out.put_u8(tag::POP);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    text(out, c.client.as_str());
    out.put_u8(c.auto_renew.into());
    out.put_u64(c.invisible_ms);
    out.put_u16(count_u16(c.picks.len()));
    for pick in &c.picks {
        out.put_u32(pick.queue.0);
        out.put_u64(pick.from.0);
        out.put_u64(pick.to.0);
        out.put_u16(count_u16(pick.fresh.len()));
        for offset in &pick.fresh {
            out.put_u64(offset.0);
        }
        out.put_u16(count_u16(pick.again.len()));
        for again in &pick.again {
            out.put_u64(again.offset.0);
            out.put_u64(again.delivery);
        }
    }
}

fn ack(out: &mut BytesMut, c: &Ack) {
    out.put_u8(tag::ACK);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    out.put_u16(count_u16(c.handles.len()));
    for h in &c.handles {
        handle(out, h);
    }
}

fn change_invisible(out: &mut BytesMut, c: &ChangeInvisible) {
    out.put_u8(tag::CHANGE_INVISIBLE);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    handle(out, &c.handle);
    out.put_u64(c.invisible_ms);
}

fn renew(out: &mut BytesMut, c: &Renew) {
    out.put_u8(tag::RENEW);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    out.put_u32(c.queue.0);
    text(out, c.client.as_str());
    out.put_u64(c.trusted_since.0);
    out.put_u64(c.invisible_ms);
}

fn release(out: &mut BytesMut, c: &Release) {
    out.put_u8(tag::RELEASE);
    text(out, c.client.as_str());
    text(out, c.group.as_str());
    out.put_u64(c.after_ms);
}

pub(super) fn handle(out: &mut BytesMut, h: &Handle) {
    out.put_u32(h.queue.0);
    out.put_u64(h.offset.0);
    out.put_u64(h.delivery);
}

pub(super) fn text(out: &mut BytesMut, text: &str) {
    out.put_u16(count_u16(text.len()));
    out.put_slice(text.as_bytes());
}

fn enum_byte(value: i32) -> u8 {
    u8::try_from(value).expect("the protocol's enums have small values")
}

fn count_u8(n: usize) -> u8 {
    u8::try_from(n).expect("list was bounded where the request came in")
}

pub(super) fn count_u16(n: usize) -> u16 {
    u16::try_from(n).expect("list was bounded where the request came in")
}

/// What is left of the bytes.
pub(super) struct Input(Bytes);

impl Input {
    /// `done`, if nothing is left.
    fn end<T>(self, done: T) -> Result<T, DecodeError> {
        match self.0.len() {
            0 => Ok(done),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.0.try_get_u8()?)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(self.0.try_get_u32()?)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(self.0.try_get_u64()?)
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::UnknownValue { field, value }),
        }
    }

    pub(super) fn queue(&mut self) -> Result<QueueId, DecodeError> {
        Ok(QueueId(self.u32()?))
    }

    pub(super) fn offset(&mut self) -> Result<QueueOffset, DecodeError> {
        Ok(QueueOffset(self.u64()?))
    }

    /// A name, checked again: the log must not be able to bring in what the edge refuses.
    pub(super) fn name<T>(&mut self, field: &'static str) -> Result<T, DecodeError>
    where
        T: std::str::FromStr<Err = InvalidName>,
    {
        Ok(self.text(field)?.parse()?)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let len = usize::from(self.0.try_get_u16()?);
        let bytes = self.take(len)?;
        let text = str::from_utf8(&bytes).map_err(|_| DecodeError::NotText { field })?;
        Ok(text.to_owned())
    }

    fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if self.0.len() < len {
            return Err(DecodeError::Short);
        }
        Ok(self.0.split_to(len))
    }

    /// As many items as the `u16` before them says. Room is made for what the bytes at hand could
    /// hold at most, so that a corrupt count cannot ask for more.
    pub(super) fn list<T>(
        &mut self,
        item_size: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::from(self.0.try_get_u16()?);
        let mut items = Vec::with_capacity(count.min(self.0.len() / item_size));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn put_topic(&mut self) -> Result<PutTopic, DecodeError> {
        let topic = self.name("topic")?;
        let create_only = self.flag("create_only")?;
        Ok(PutTopic { topic, create_only, config: self.topic_config()? })
    }

    fn topic_config(&mut self) -> Result<TopicConfig, DecodeError> {
        let queues = self.u32()?;
        let value = self.u8()?;
        let permission = v2::Permission::try_from(i32::from(value))
            .map_err(|_| DecodeError::UnknownValue { field: "permission", value })?;
        let accepts = (0..self.u8()?).map(|_| self.message_type()).collect::<Result<_, _>>()?;
        let placement = self.list(6, |i| Ok((i.name("broker name")?, i.u32()?)))?;
        Ok(TopicConfig { queues, permission, accepts, placement, version: self.u64()? })
    }

    fn message_type(&mut self) -> Result<v2::MessageType, DecodeError> {
        let value = self.u8()?;
        v2::MessageType::try_from(i32::from(value))
            .map_err(|_| DecodeError::UnknownValue { field: "message type", value })
    }

    fn put_group(&mut self) -> Result<PutGroup, DecodeError> {
        Ok(PutGroup { group: self.name("consumer group")?, config: self.group_config()? })
    }

    fn group_config(&mut self) -> Result<GroupConfig, DecodeError> {
        let fifo = self.flag("fifo")?;
        let max_attempts = self.u32()?;
        Ok(GroupConfig { fifo, max_attempts, backoff: self.backoff()? })
    }

    fn backoff(&mut self) -> Result<Backoff, DecodeError> {
        match self.u8()? {
            backoff::CUSTOMIZED => {
                let steps = (0..self.u8()?).map(|_| self.u64());
                Ok(Backoff::Customized { steps_ms: steps.collect::<Result<_, _>>()? })
            }
            backoff::EXPONENTIAL => Ok(Backoff::Exponential {
                initial_ms: self.u64()?,
                max_ms: self.u64()?,
                multiplier: self.u32()?,
            }),
            value => Err(DecodeError::UnknownValue { field: "backoff", value }),
        }
    }

    fn append(&mut self) -> Result<Append, DecodeError> {
        let topic = self.name("topic")?;
        let queue = self.queue()?;
        let mut lens = Vec::new();
        let mut messages = self.list(14, |i| {
            lens.push(i.u32()? as usize);
            i.message_header()
        })?;
        if messages.is_empty() {
            return Err(DecodeError::NoMessages);
        }
        for (message, len) in messages.iter_mut().zip(lens) {
            message.bytes = self.take(len)?;
        }
        Ok(Append { topic, queue, messages })
    }

    fn message_header(&mut self) -> Result<NewMessage, DecodeError> {
        let tag_hash = self.u64()?;
        let dedupe = match self.flag("dedupe")? {
            true => Some(self.0.try_get_u128()?),
            false => None,
        };
        let key_hashes = (0..self.u8()?).map(|_| self.u64()).collect::<Result<_, _>>()?;
        Ok(NewMessage { tag_hash, key_hashes, dedupe, bytes: Bytes::new() })
    }

    fn pop(&mut self) -> Result<Pop, DecodeError> {
        Ok(Pop {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            client: self.name("client id")?,
            auto_renew: self.flag("auto_renew")?,
            invisible_ms: self.u64()?,
            picks: self.list(24, Self::pick)?,
        })
    }

    fn pick(&mut self) -> Result<Pick, DecodeError> {
        Ok(Pick {
            queue: self.queue()?,
            from: self.offset()?,
            to: self.offset()?,
            fresh: self.list(8, Self::offset)?,
            again: self.list(16, |i| Ok(Again { offset: i.offset()?, delivery: i.u64()? }))?,
        })
    }

    pub(super) fn handle(&mut self) -> Result<Handle, DecodeError> {
        Ok(Handle { queue: self.queue()?, offset: self.offset()?, delivery: self.u64()? })
    }

    fn ack(&mut self) -> Result<Ack, DecodeError> {
        Ok(Ack {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            handles: self.list(20, Self::handle)?,
        })
    }

    fn change_invisible(&mut self) -> Result<ChangeInvisible, DecodeError> {
        Ok(ChangeInvisible {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            handle: self.handle()?,
            invisible_ms: self.u64()?,
        })
    }

    fn renew(&mut self) -> Result<Renew, DecodeError> {
        Ok(Renew {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            queue: self.queue()?,
            client: self.name("client id")?,
            trusted_since: Timestamp(self.u64()?),
            invisible_ms: self.u64()?,
        })
    }

    fn release(&mut self) -> Result<Release, DecodeError> {
        Ok(Release {
            client: self.name("client id")?,
            group: self.name("consumer group")?,
            after_ms: self.u64()?,
        })
    }
}
