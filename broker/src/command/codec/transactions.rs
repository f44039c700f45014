//! The layouts of the commands about half messages.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, Input, count_u16, put_message_header, tag, text};
use crate::command::{
    AppendHalf, CheckTransactions, EndTransaction, Orphan, ParkTransactions, Resolver, Verdict,
};

const ORPHAN: usize = 12;

pub(super) fn append_half(mut out: BytesMut, c: &AppendHalf) -> Vec<Bytes> {
    out.put_u8(tag::APPEND_HALF);
    text(&mut out, c.topic.as_str());
    out.put_u32(c.queue.0);
    text(&mut out, c.client.as_str());
    out.put_u64(c.first_check_ms);
    put_message_header(&mut out, &c.message);
    vec![out.freeze(), c.message.bytes.clone()]
}

pub(super) fn end_transaction(out: &mut BytesMut, c: &EndTransaction) {
    out.put_u8(tag::END_TRANSACTION);
    out.put_u64(c.transaction);
    out.put_u8(verdict_byte(c.verdict));
    out.put_u8(match c.by {
        Resolver::Producer => 0,
        Resolver::Administrator => 1,
    });
}

pub(super) fn check_transactions(out: &mut BytesMut, c: &CheckTransactions) {
    out.put_u8(tag::CHECK_TRANSACTIONS);
    out.put_u64(c.next_ms);
    orphans(out, &c.orphans);
}

pub(super) fn park_transactions(out: &mut BytesMut, c: &ParkTransactions) {
    out.put_u8(tag::PARK_TRANSACTIONS);
    orphans(out, &c.orphans);
}

fn orphans(out: &mut BytesMut, orphans: &[Orphan]) {
    out.put_u16(count_u16(orphans.len()));
    for orphan in orphans {
        out.put_u64(orphan.transaction);
        out.put_u32(orphan.checks);
    }
}

/// A verdict in a command and in the key-value store.
pub(crate) fn verdict_byte(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Commit => 1,
        Verdict::Rollback => 2,
    }
}

/// What [`verdict_byte`] made of a verdict.
pub(crate) fn verdict_of(byte: u8) -> Option<Verdict> {
    match byte {
        1 => Some(Verdict::Commit),
        2 => Some(Verdict::Rollback),
        _ => None,
    }
}

impl Input {
    pub(super) fn append_half(&mut self) -> Result<AppendHalf, DecodeError> {
        let topic = self.name("topic")?;
        let queue = self.queue()?;
        let client = self.name("client id")?;
        let first_check_ms = self.u64()?;
        let len = self.u32()? as usize;
        let mut message = self.message_header()?;
        message.bytes = self.take(len)?;
        Ok(AppendHalf { topic, queue, client, first_check_ms, message })
    }

    pub(super) fn end_transaction(&mut self) -> Result<EndTransaction, DecodeError> {
        let transaction = self.u64()?;
        let value = self.u8()?;
        let verdict =
            verdict_of(value).ok_or(DecodeError::UnknownValue { field: "verdict", value })?;
        let by = match self.flag("resolver")? {
            false => Resolver::Producer,
            true => Resolver::Administrator,
        };
        Ok(EndTransaction { transaction, verdict, by })
    }

    pub(super) fn check_transactions(&mut self) -> Result<CheckTransactions, DecodeError> {
        Ok(CheckTransactions { next_ms: self.u64()?, orphans: self.orphans()? })
    }

    pub(super) fn park_transactions(&mut self) -> Result<ParkTransactions, DecodeError> {
        Ok(ParkTransactions { orphans: self.orphans()? })
    }

    fn orphans(&mut self) -> Result<Vec<Orphan>, DecodeError> {
        self.list(ORPHAN, |i| Ok(Orphan { transaction: i.u64()?, checks: i.u32()? }))
    }
}
