//! The bytes of [`GiveBack`].

use bytes::{BufMut, BytesMut};
use proto::Timestamp;

use super::{DecodeError, Input, count_u16, handle, tag, text};
use crate::command::{GiveBack, Returned};

pub(super) fn give_back(out: &mut BytesMut, c: &GiveBack) {
    out.put_u8(tag::GIVE_BACK);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    out.put_u16(count_u16(c.deliveries.len()));
    for returned in &c.deliveries {
        handle(out, &returned.handle);
        out.put_u64(returned.since.0);
        out.put_u32(returned.attempt);
    }
}

impl Input {
    pub(super) fn give_back(&mut self) -> Result<GiveBack, DecodeError> {
        Ok(GiveBack {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            deliveries: self.list(32, |input| {
                let (handle, since) = (input.handle()?, Timestamp(input.u64()?));
                Ok(Returned { handle, since, attempt: input.u32()? })
            })?,
        })
    }
}
