//! The commands of administrators as bytes.

use bytes::{BufMut, BytesMut};

use super::{DecodeError, Input, put_group, tag, text};
use crate::command::{
    CloseQueues, DeleteGroup, DeleteTopic, Expire, Limited, PutLiveSetting, PutQuota, PutRetention,
    PutSetting, Quota, Retention, RetireTopic, Setting, SwitchGroup,
};

/// How a [`Limited`] begins. Persisted.
mod limited {
    pub(super) const TOPIC: u8 = 0;
    pub(super) const GROUP: u8 = 1;
    pub(super) const CLIENT: u8 = 2;
}

pub(super) fn delete_topic(out: &mut BytesMut, c: &DeleteTopic) {
    out.put_u8(tag::DELETE_TOPIC);
    text(out, c.topic.as_str());
}

pub(super) fn delete_group(out: &mut BytesMut, c: &DeleteGroup) {
    out.put_u8(tag::DELETE_GROUP);
    text(out, c.group.as_str());
}

pub(super) fn switch_group(out: &mut BytesMut, c: &SwitchGroup) {
    out.put_u8(tag::SWITCH_GROUP);
    text(out, c.group.as_str());
    out.put_u8(c.enabled.into());
}

pub(super) fn put_quota(out: &mut BytesMut, c: &PutQuota) {
    out.put_u8(tag::PUT_QUOTA);
    encode_limited(out, &c.of);
    out.put_u64(c.quota.messages_per_second);
    out.put_u64(c.quota.bytes_per_second);
}

/// Whose quota, the same in a command and in the key-value store.
pub(crate) fn encode_limited(out: &mut BytesMut, of: &Limited) {
    let (kind, name) = match of {
        Limited::Topic(topic) => (limited::TOPIC, topic.as_str()),
        Limited::Group(group) => (limited::GROUP, group.as_str()),
        Limited::Client(client) => (limited::CLIENT, client.as_str()),
    };
    out.put_u8(kind);
    text(out, name);
}

/// Reads what [`encode_limited`] wrote.
pub(crate) fn decode_limited(bytes: bytes::Bytes) -> Result<Limited, DecodeError> {
    let mut input = Input(bytes);
    let of = input.limited()?;
    input.end(of)
}

pub(super) fn put_retention(out: &mut BytesMut, c: &PutRetention) {
    out.put_u8(tag::PUT_RETENTION);
    text(out, c.topic.as_str());
    out.put_u64(c.retention.ms);
    out.put_u64(c.retention.bytes);
}

pub(super) fn expire(out: &mut BytesMut, c: &Expire) {
    out.put_u8(tag::EXPIRE);
    text(out, c.topic.as_str());
    out.put_u32(c.queue.0);
    out.put_u64(c.to.0);
}

pub(super) fn close_queues(out: &mut BytesMut, c: &CloseQueues) {
    out.put_u8(tag::CLOSE_QUEUES);
    text(out, c.topic.as_str());
}

/// A version before the bytes that the setting has as a command of its own.
pub(super) fn put_setting(out: &mut BytesMut, c: &PutSetting) {
    out.put_u8(tag::PUT_SETTING);
    out.put_u64(c.version);
    match &c.setting {
        Setting::Group(c) => put_group(out, c),
        Setting::Switch(c) => switch_group(out, c),
        Setting::Quota(c) => put_quota(out, c),
        Setting::Retention(c) => put_retention(out, c),
    }
}

pub(super) fn put_live_setting(out: &mut BytesMut, c: &PutLiveSetting) {
    out.put_u8(tag::PUT_LIVE_SETTING);
    out.put_u64(c.version);
    text(out, &c.key);
    out.put_u8(c.value.is_some().into());
    if let Some(value) = &c.value {
        text(out, value);
    }
}

pub(super) fn retire_topic(out: &mut BytesMut, c: &RetireTopic) {
    out.put_u8(tag::RETIRE_TOPIC);
    text(out, c.topic.as_str());
}

impl Input {
    pub(super) fn put_setting(&mut self) -> Result<PutSetting, DecodeError> {
        let version = self.u64()?;
        let setting = match self.u8()? {
            tag::PUT_GROUP => Setting::Group(self.put_group()?),
            tag::SWITCH_GROUP => Setting::Switch(self.switch_group()?),
            tag::PUT_QUOTA => Setting::Quota(self.put_quota()?),
            tag::PUT_RETENTION => Setting::Retention(self.put_retention()?),
            value => return Err(DecodeError::UnknownValue { field: "setting", value }),
        };
        Ok(PutSetting { version, setting })
    }

    pub(super) fn put_live_setting(&mut self) -> Result<PutLiveSetting, DecodeError> {
        let (version, key) = (self.u64()?, self.text("key")?);
        let value = self.flag("value")?.then(|| self.text("value")).transpose()?;
        Ok(PutLiveSetting { version, key, value })
    }

    pub(super) fn retire_topic(&mut self) -> Result<RetireTopic, DecodeError> {
        Ok(RetireTopic { topic: self.name("topic")? })
    }

    pub(super) fn delete_topic(&mut self) -> Result<DeleteTopic, DecodeError> {
        Ok(DeleteTopic { topic: self.name("topic")? })
    }

    pub(super) fn delete_group(&mut self) -> Result<DeleteGroup, DecodeError> {
        Ok(DeleteGroup { group: self.name("consumer group")? })
    }

    pub(super) fn switch_group(&mut self) -> Result<SwitchGroup, DecodeError> {
        Ok(SwitchGroup { group: self.name("consumer group")?, enabled: self.flag("enabled")? })
    }

    pub(super) fn put_quota(&mut self) -> Result<PutQuota, DecodeError> {
        let of = self.limited()?;
        let quota = Quota { messages_per_second: self.u64()?, bytes_per_second: self.u64()? };
        Ok(PutQuota { of, quota })
    }

    fn limited(&mut self) -> Result<Limited, DecodeError> {
        Ok(match self.u8()? {
            limited::TOPIC => Limited::Topic(self.name("topic")?),
            limited::GROUP => Limited::Group(self.name("consumer group")?),
            limited::CLIENT => Limited::Client(self.name("client id")?),
            value => return Err(DecodeError::UnknownValue { field: "limited", value }),
        })
    }

    pub(super) fn put_retention(&mut self) -> Result<PutRetention, DecodeError> {
        let topic = self.name("topic")?;
        let retention = Retention { ms: self.u64()?, bytes: self.u64()? };
        Ok(PutRetention { topic, retention })
    }

    pub(super) fn expire(&mut self) -> Result<Expire, DecodeError> {
        Ok(Expire { topic: self.name("topic")?, queue: self.queue()?, to: self.offset()? })
    }

    pub(super) fn close_queues(&mut self) -> Result<CloseQueues, DecodeError> {
        Ok(CloseQueues { topic: self.name("topic")? })
    }
}
