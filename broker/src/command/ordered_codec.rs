//! The bytes of [`super::PopFifo`], [`super::DeadLetter`] and [`super::Redrive`].

use bytes::{BufMut, BytesMut};

use super::codec::{DecodeError, Input, count_u16, handle, tag, text};
use super::{DeadLetter, FifoAgain, FifoFresh, FifoPick, PopFifo, Redrive};

pub(super) fn pop_fifo(out: &mut BytesMut, c: &PopFifo) {
    out.put_u8(tag::POP_FIFO);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    text(out, c.client.as_str());
    out.put_u8(c.auto_renew.into());
    out.put_u64(c.invisible_ms);
    out.put_u8(c.attempt_id.is_some().into());
    if let Some(attempt) = c.attempt_id {
        out.put_u64(attempt);
    }
    out.put_u16(count_u16(c.picks.len()));
    for pick in &c.picks {
        out.put_u32(pick.queue.0);
        out.put_u64(pick.from.0);
        out.put_u64(pick.to.0);
        out.put_u16(count_u16(pick.again.len()));
        for again in &pick.again {
            out.put_u64(again.offset.0);
            out.put_u64(again.delivery);
            out.put_u64(again.block);
        }
        out.put_u16(count_u16(pick.fresh.len()));
        for fresh in &pick.fresh {
            out.put_u64(fresh.offset.0);
            out.put_u64(fresh.block);
            out.put_u8(fresh.deliver.into());
        }
    }
}

pub(super) fn dead_letter(out: &mut BytesMut, c: &DeadLetter) {
    out.put_u8(tag::DEAD_LETTER);
    text(out, c.group.as_str());
    text(out, c.topic.as_str());
    handle(out, &c.handle);
}

pub(super) fn redrive(out: &mut BytesMut, c: &Redrive) {
    out.put_u8(tag::REDRIVE);
    text(out, c.topic.as_str());
    out.put_u32(c.queue.0);
    out.put_u64(c.from.0);
    out.put_u32(c.count);
}

impl Input {
    pub(super) fn pop_fifo(&mut self) -> Result<PopFifo, DecodeError> {
        Ok(PopFifo {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            client: self.name("client id")?,
            auto_renew: self.flag("auto_renew")?,
            invisible_ms: self.u64()?,
            attempt_id: match self.flag("attempt_id")? {
                true => Some(self.u64()?),
                false => None,
            },
            picks: self.list(24, Self::fifo_pick)?,
        })
    }

    fn fifo_pick(&mut self) -> Result<FifoPick, DecodeError> {
        Ok(FifoPick {
            queue: self.queue()?,
            from: self.offset()?,
            to: self.offset()?,
            again: self.list(24, |i| {
                Ok(FifoAgain { offset: i.offset()?, delivery: i.u64()?, block: i.u64()? })
            })?,
            fresh: self.list(17, |i| {
                let (offset, block) = (i.offset()?, i.u64()?);
                Ok(FifoFresh { offset, block, deliver: i.flag("deliver")? })
            })?,
        })
    }

    pub(super) fn dead_letter(&mut self) -> Result<DeadLetter, DecodeError> {
        Ok(DeadLetter {
            group: self.name("consumer group")?,
            topic: self.name("topic")?,
            handle: self.handle()?,
        })
    }

    pub(super) fn redrive(&mut self) -> Result<Redrive, DecodeError> {
        Ok(Redrive {
            topic: self.name("topic")?,
            queue: self.queue()?,
            from: self.offset()?,
            count: self.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use proto::{QueueId, QueueOffset};

    use super::*;
    use crate::command::{Command, Handle};

    fn bytes(command: &Command) -> Bytes {
        command.encode().concat().into()
    }

    fn pop(attempt_id: Option<u64>, n: (u64, u64, u64), deliver: bool) -> Command {
        let again = FifoAgain { offset: QueueOffset(n.0), delivery: n.1, block: n.2 };
        let fresh = FifoFresh { offset: QueueOffset(n.0), block: n.2, deliver };
        let pick = FifoPick {
            queue: QueueId(2),
            from: QueueOffset(3),
            to: QueueOffset(5),
            again: vec![again],
            fresh: vec![fresh],
        };
        Command::PopFifo(PopFifo {
            group: "g".parse().unwrap(),
            topic: "t".parse().unwrap(),
            client: "c".parse().unwrap(),
            auto_renew: true,
            invisible_ms: 7,
            attempt_id,
            picks: vec![pick],
        })
    }

    fn dead_letter() -> Command {
        let (group, topic) = ("g".parse().unwrap(), "t".parse().unwrap());
        let handle = Handle { queue: QueueId(2), offset: QueueOffset(3), delivery: 4 };
        Command::DeadLetter(DeadLetter { group, topic, handle })
    }

    fn redrive() -> Command {
        let topic = "%DLQ%g".parse().unwrap();
        Command::Redrive(Redrive { topic, queue: QueueId(2), from: QueueOffset(3), count: 4 })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            attempt: Option<u64>, n: (u64, u64, u64), deliver: bool, cut in 1..40_usize,
        ) {
            for command in [pop(attempt, n, deliver), dead_letter(), redrive()] {
                let bytes = bytes(&command);
                prop_assert_eq!(Command::decode(bytes.clone()), Ok(command));
                let end = bytes.len().saturating_sub(cut);
                prop_assert!(Command::decode(bytes.slice(..end)).is_err());
            }
        }
    }

    #[test]
    fn golden() {
        let check = |command: &Command, expected: &str| {
            let hex: String = bytes(command).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected.replace(' ', ""), "{command:?}");
        };
        check(
            &pop(Some(9), (4, 6, 8), true),
            "14 0001 67 0001 74 0001 63 01 0000000000000007 01 0000000000000009 0001 \
             00000002 0000000000000003 0000000000000005 \
             0001 0000000000000004 0000000000000006 0000000000000008 \
             0001 0000000000000004 0000000000000008 01",
        );
        check(&dead_letter(), "15 0001 67 0001 74 00000002 0000000000000003 0000000000000004");
        check(&redrive(), "16 0006 25444c512567 00000002 0000000000000003 00000004");
    }
}
