//! The layouts of the commands that keep the log from growing for ever.

use bytes::{BufMut, Bytes, BytesMut};
use commitlog::position::LogOffset;
use proto::Timestamp;

use super::{DecodeError, Input, count_u16, tag, text};
use crate::command::{CarriedMessage, Carry, ExpireTransactions, Reference, TimerId};

/// How a [`Reference`] begins. Persisted.
mod reference {
    pub(super) const ENTRY: u8 = 0;
    pub(super) const TIMER: u8 = 1;
    pub(super) const HALF: u8 = 2;
}

/// The shortest reference, and the shortest header of a message.
const REFERENCE: usize = 9;
const MESSAGE: usize = 14;

pub(super) fn carry(mut out: BytesMut, c: &Carry) -> Vec<Bytes> {
    out.put_u8(tag::CARRY);
    out.put_u16(count_u16(c.messages.len()));
    for message in &c.messages {
        out.put_u64(message.from.0);
        out.put_u32(u32::try_from(message.bytes.len()).expect("a message is below 4 GiB"));
        out.put_u16(count_u16(message.references.len()));
        message.references.iter().for_each(|one| put_reference(&mut out, one));
    }
    let mut parts = Vec::with_capacity(1 + c.messages.len());
    parts.push(out.freeze());
    parts.extend(c.messages.iter().map(|m| m.bytes.clone()));
    parts
}

fn put_reference(out: &mut BytesMut, one: &Reference) {
    match one {
        Reference::Entry { topic, queue, offset } => {
            out.put_u8(reference::ENTRY);
            text(out, topic.as_str());
            out.put_u32(queue.0);
            out.put_u64(offset.0);
        }
        Reference::Timer(timer) => {
            out.put_u8(reference::TIMER);
            out.put_u64(timer.due.0);
            out.put_u64(timer.number);
        }
        Reference::Half(transaction) => {
            out.put_u8(reference::HALF);
            out.put_u64(*transaction);
        }
    }
}

pub(super) fn expire_transactions(out: &mut BytesMut, c: &ExpireTransactions) {
    out.put_u8(tag::EXPIRE_TRANSACTIONS);
    out.put_u16(count_u16(c.transactions.len()));
    c.transactions.iter().for_each(|transaction| out.put_u64(*transaction));
}

impl Input {
    pub(super) fn carry(&mut self) -> Result<Carry, DecodeError> {
        let mut lens = Vec::new();
        let mut messages = self.list(MESSAGE, |i| {
            let from = LogOffset(i.u64()?);
            lens.push(i.u32()? as usize);
            let references = i.list(REFERENCE, Self::reference)?;
            Ok(CarriedMessage { from, references, bytes: Bytes::new() })
        })?;
        for (message, len) in messages.iter_mut().zip(lens) {
            message.bytes = self.take(len)?;
        }
        Ok(Carry { messages })
    }

    fn reference(&mut self) -> Result<Reference, DecodeError> {
        Ok(match self.u8()? {
            reference::ENTRY => Reference::Entry {
                topic: self.name("topic")?,
                queue: self.queue()?,
                offset: self.offset()?,
            },
            reference::TIMER => {
                Reference::Timer(TimerId { due: Timestamp(self.u64()?), number: self.u64()? })
            }
            reference::HALF => Reference::Half(self.u64()?),
            value => return Err(DecodeError::UnknownValue { field: "reference", value }),
        })
    }

    pub(super) fn expire_transactions(&mut self) -> Result<ExpireTransactions, DecodeError> {
        Ok(ExpireTransactions { transactions: self.list(8, Self::u64)? })
    }
}
