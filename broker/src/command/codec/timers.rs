//! The commands about delayed messages as bytes.

use bytes::{BufMut, Bytes, BytesMut};
use proto::Timestamp;

use super::{DecodeError, Input, count_u16, put_message_header, tag, text};
use crate::command::{AppendDelayed, DelayedMessage, Fire, Recall, TimerId};

pub(super) fn append_delayed(mut out: BytesMut, c: &AppendDelayed) -> Vec<Bytes> {
    out.put_u8(tag::APPEND_DELAYED);
    text(&mut out, c.topic.as_str());
    out.put_u32(c.queue.0);
    out.put_u16(count_u16(c.messages.len()));
    for DelayedMessage { due, message } in &c.messages {
        out.put_u64(due.0);
        put_message_header(&mut out, message);
    }
    let mut parts = Vec::with_capacity(1 + c.messages.len());
    parts.push(out.freeze());
    parts.extend(c.messages.iter().map(|delayed| delayed.message.bytes.clone()));
    parts
}

pub(super) fn fire(out: &mut BytesMut, c: Fire) {
    out.put_u8(tag::FIRE);
    out.put_u32(c.most);
}

pub(super) fn recall(out: &mut BytesMut, c: &Recall) {
    out.put_u8(tag::RECALL);
    text(out, c.topic.as_str());
    out.put_u64(c.timer.due.0);
    out.put_u64(c.timer.number);
}

impl Input {
    pub(super) fn append_delayed(&mut self) -> Result<AppendDelayed, DecodeError> {
        let topic = self.name("topic")?;
        let queue = self.queue()?;
        let mut lens = Vec::new();
        let mut messages = self.list(22, |i| {
            let due = Timestamp(i.u64()?);
            lens.push(i.u32()? as usize);
            Ok(DelayedMessage { due, message: i.message_header()? })
        })?;
        if messages.is_empty() {
            return Err(DecodeError::NoMessages);
        }
        for (delayed, len) in messages.iter_mut().zip(lens) {
            delayed.message.bytes = self.take(len)?;
        }
        Ok(AppendDelayed { topic, queue, messages })
    }

    pub(super) fn fire(&mut self) -> Result<Fire, DecodeError> {
        Ok(Fire { most: self.u32()? })
    }

    pub(super) fn recall(&mut self) -> Result<Recall, DecodeError> {
        let topic = self.name("topic")?;
        let timer = TimerId { due: Timestamp(self.u64()?), number: self.u64()? };
        Ok(Recall { topic, timer })
    }
}
