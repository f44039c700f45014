//! The commands about offsets as bytes.

use bytes::{BufMut, BytesMut};
use proto::QueueOffset;

use super::{DecodeError, Input, count_u16, tag, text};
use crate::command::{CommitOffset, FollowReset, ResetOffsets, ResetTo};

/// How a [`ResetTo`] begins. Persisted.
mod to {
    pub(super) const BEGIN: u8 = 0;
    pub(super) const END: u8 = 1;
    pub(super) const OFFSET: u8 = 2;
}

pub(super) fn commit_offset(out: &mut BytesMut, c: &CommitOffset) {
    out.put_u8(tag::COMMIT_OFFSET);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    out.put_u32(c.queue.0);
    out.put_u64(c.offset.0);
}

pub(super) fn reset_offsets(out: &mut BytesMut, c: &ResetOffsets) {
    out.put_u8(tag::RESET_OFFSETS);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    out.put_u16(count_u16(c.queues.len()));
    for (queue, reset_to) in &c.queues {
        out.put_u32(queue.0);
        match reset_to {
            ResetTo::Begin => out.put_u8(to::BEGIN),
            ResetTo::End => out.put_u8(to::END),
            ResetTo::Offset(offset) => {
                out.put_u8(to::OFFSET);
                out.put_u64(offset.0);
            }
        }
    }
}

pub(super) fn follow_reset(out: &mut BytesMut, c: &FollowReset) {
    out.put_u8(tag::FOLLOW_RESET);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    out.put_u32(c.queue.0);
    out.put_u64(c.reset);
}

impl Input {
    pub(super) fn commit_offset(&mut self) -> Result<CommitOffset, DecodeError> {
        Ok(CommitOffset {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            queue: self.queue()?,
            offset: self.offset()?,
        })
    }

    pub(super) fn reset_offsets(&mut self) -> Result<ResetOffsets, DecodeError> {
        Ok(ResetOffsets {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            queues: self.list(5, |i| Ok((i.queue()?, i.reset_to()?)))?,
        })
    }

    fn reset_to(&mut self) -> Result<ResetTo, DecodeError> {
        Ok(match self.u8()? {
            to::BEGIN => ResetTo::Begin,
            to::END => ResetTo::End,
            to::OFFSET => ResetTo::Offset(QueueOffset(self.u64()?)),
            value => return Err(DecodeError::UnknownValue { field: "reset_to", value }),
        })
    }

    pub(super) fn follow_reset(&mut self) -> Result<FollowReset, DecodeError> {
        Ok(FollowReset {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            queue: self.queue()?,
            reset: self.u64()?,
        })
    }
}
