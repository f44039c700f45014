//! Logs, their readers and their bounds.

use jepsen::history::{Answer, Call, Entry, Message, Op, Outcome, Workload};
use jepsen::judge::Kind;

use super::Mutation;
use crate::edit::{Edit, read, sends};
use crate::world::{MS, SECOND};

fn log(name: &'static str, kind: Kind, change: fn(&mut Edit)) -> Mutation {
    Mutation { name, workload: Workload::Log, kind, change }
}

pub fn mutations() -> Vec<Mutation> {
    let mut all = vec![
        log("a message is in no read", Kind::LostWrite, |e| {
            let id = single(e);
            unread(e, id);
        }),
        log("a read leaves one out", Kind::IntPollSkip, |e| {
            let op = e.find(|op| 2 < read(op).len());
            e.entries(&op).remove(1);
        }),
        log("a read goes back", Kind::IntNonmonotonicPoll, |e| {
            let op = e.find(|op| 2 < read(op).len());
            e.entries(&op).swap(0, 1);
        }),
        log("a read begins too late", Kind::PollSkip, |e| {
            let op = e.find(|op| 1 < read(op).len());
            e.entries(&op).remove(0);
        }),
        log("a read begins too early", Kind::NonmonotonicPoll, |e| {
            let op = e.find(|op| !read(op).is_empty());
            let Call::Poll { from, .. } = e.call(&op) else { unreachable!() };
            *from = from.map(|from| from + 1);
        }),
        log("a reader goes on too late", Kind::PollSkip, |e| {
            let (_, second) = going_on(e, 0);
            e.entries(&second).remove(0);
        }),
        log("a reader gets something again", Kind::NonmonotonicPoll, |e| {
            let (first, second) = going_on(e, 0);
            let again = read(&first).last().copied().unwrap();
            e.entries(&second).insert(0, again);
        }),
        log("a read does not see what was acknowledged", Kind::StalePoll, |e| {
            let op = e.find(|op| !read(op).is_empty() && 25 * SECOND < op.began);
            e.entries(&op).clear();
        }),
        log("a read shows another message", Kind::InconsistentOffset, |e| {
            let op = e.find(|op| 2 < read(op).len());
            let other = read(&op)[0].id;
            e.entries(&op)[2].id = other;
        }),
        log("a read shows what nobody sent", Kind::Phantom, |e| {
            let op = e.find(|op| !read(op).is_empty());
            let offset = read(&op).last().unwrap().offset + 1;
            e.entries(&op).push(Entry { offset, id: Message::new(99, 1) });
        }),
        log("a read shows what was refused", Kind::AbortedRead, |e| {
            let op = e.find(|op| op.is_ok() && !sends(op).is_empty());
            e.fail(&op);
        }),
        log("a read shows what was sent to another queue", Kind::Phantom, |e| {
            let op = e.find(|op| !read(op).is_empty() && op.call.key() == Some(0));
            let id = sends(
                &e.find(|op| op.is_ok() && op.call.key() == Some(1) && !sends(op).is_empty()),
            )[0];
            e.entries(&op)[0].id = id;
        }),
        log("an acknowledgement names another offset", Kind::OffsetMismatch, |e| {
            let op = e.find(|op| op.is_ok() && sends(op).len() == 1);
            let Answer::Send { offsets } = e.answer(&op) else { unreachable!() };
            offsets[0] += 5;
        }),
        log("one message at two offsets", Kind::Duplicate, |e| {
            let op = e.find(|op| 2 < read(op).len());
            let last = read(&op).last().copied().unwrap();
            let entry = Entry { offset: last.offset + 1, id: last.id };
            e.entries(&op).push(entry);
        }),
        log("a part of a batch is missing", Kind::BatchTorn, |e| {
            let op = e.find(|op| op.is_ok() && 1 < sends(op).len());
            unread(e, sends(&op)[1]);
        }),
        log("a batch does not lie in one piece", Kind::BatchTorn, |e| {
            let batch = e.find(|op| op.is_ok() && 1 < sends(op).len());
            let key = batch.call.key();
            let other = e.find(|op| op.is_ok() && sends(op).len() == 1 && op.call.key() == key);
            let (one, two) = (sends(&batch)[1], sends(&other)[0]);
            for op in e.all(|op| !read(op).is_empty()) {
                for entry in e.entries(&op) {
                    entry.id = if entry.id == one {
                        two
                    } else if entry.id == two {
                        one
                    } else {
                        entry.id
                    };
                }
            }
        }),
        log("a bound that is too low", Kind::StaleMaxOffset, |e| {
            let op = e.find(
                |op| matches!(op.answer(), Some(Answer::MaxOffset { offset }) if 90 < *offset),
            );
            let Answer::MaxOffset { offset } = e.answer(&op) else { unreachable!() };
            *offset -= 40;
        }),
        log("a bound that goes back", Kind::StaleMaxOffset, |e| {
            let op = e.find(
                |op| matches!(op.answer(), Some(Answer::MaxOffset { offset }) if 90 < *offset),
            );
            let Some(Answer::MaxOffset { offset }) = op.answer().cloned() else { unreachable!() };
            let answer = Answer::MaxOffset { offset: offset - 1 };
            let call = op.call.clone();
            e.insert(op.ended + 1, op.ended + 2, call, Outcome::Ok(answer));
        }),
        log("a bound that is too high", Kind::PhantomMaxOffset, |e| {
            let op = e.find(|op| matches!(op.answer(), Some(Answer::MaxOffset { .. })));
            let Answer::MaxOffset { offset } = e.answer(&op) else { unreachable!() };
            *offset += 10_000;
        }),
        log("a beginning beyond the end", Kind::MinOffset, |e| {
            let op = e.find(|op| matches!(op.answer(), Some(Answer::MinOffset { .. })));
            *e.answer(&op) = Answer::MinOffset { offset: 10_000 };
        }),
        log("a beginning that goes back", Kind::MinOffset, |e| {
            let op = e.find(|op| {
                matches!(op.answer(), Some(Answer::MinOffset { .. })) && 9 * SECOND < op.began
            });
            *e.answer(&op) = Answer::MinOffset { offset: 5 };
        }),
        log("a look-up that finds nothing", Kind::IndexLost, |e| {
            let op = e.find(|op| {
                let Call::Lookup { id, .. } = op.call else { return false };
                let acked = |send: &&Op| send.is_ok() && sends(send).contains(&id);
                op.is_ok() && e.record.ops.iter().any(|send| acked(&send))
            });
            *e.answer(&op) = Answer::Lookup { offset: None };
        }),
        log("a look-up that finds another", Kind::OffsetMismatch, |e| {
            let op = e.find(|op| matches!(op.answer(), Some(Answer::Lookup { offset: Some(_) })));
            *e.answer(&op) = Answer::Lookup { offset: Some(90_000) };
        }),
        log("acknowledged before another was sent, and behind it", Kind::RealtimeOrder, |e| {
            let (one, two) = apart(e, false);
            e.exchange(one, two);
        }),
        log("a sender's messages out of order", Kind::NonmonotonicSend, |e| {
            let (one, two) = apart(e, true);
            e.exchange(one, two);
        }),
        log("a changed body", Kind::CorruptPayload, |e| {
            let op = e.find(|op| !read(op).is_empty());
            let Answer::Poll { corrupt, .. } = e.answer(&op) else { unreachable!() };
            corrupt.push("a flipped bit".into());
        }),
    ];
    let broadcast =
        |name, kind, change| Mutation { name, workload: Workload::Broadcast, kind, change };
    all.extend([
        broadcast("one reader sees another log", Kind::InconsistentOffset, |e| {
            let op = e.find(|op| 1 < read(op).len());
            e.entries(&op)[1].id = Message::new(1, 1);
        }),
        broadcast("one reader misses one", Kind::IntPollSkip, |e| {
            let op = e.find(|op| 2 < read(op).len());
            e.entries(&op).remove(1);
        }),
        broadcast("no reader sees one", Kind::LostWrite, |e| {
            let id = single(e);
            unread(e, id);
        }),
    ]);
    let idem = |name, kind, change| Mutation { name, workload: Workload::Idem, kind, change };
    all.extend([
        idem("a repetition was given another offset", Kind::OffsetMismatch, |e| {
            let op = e.find(|op| op.is_ok() && !sends(op).is_empty());
            let call = op.call.clone();
            let answer = Answer::Send { offsets: vec![90_000] };
            e.insert(op.ended + MS, op.ended + 2 * MS, call, Outcome::Ok(answer));
        }),
        idem("a repetition was stored again", Kind::Duplicate, |e| {
            let op = e.find(|op| op.is_ok() && !sends(op).is_empty());
            let (id, key) = (sends(&op)[0], op.call.key().unwrap());
            e.deliver(42 * SECOND, "audit", key, id, Some(90_000));
        }),
        idem("a repetition that was acknowledged is lost", Kind::LostWrite, |e| {
            let twice = e.find(|op| {
                let again = |o: &&Op| sends(o) == sends(op) && o.index != op.index;
                op.is_ok() && !sends(op).is_empty() && e.record.ops.iter().any(|o| again(&o))
            });
            e.undeliver(None, sends(&twice)[0]);
        }),
    ]);
    all
}

/// An acknowledged message that was sent alone.
fn single(e: &Edit) -> Message {
    sends(&e.find(|op| op.is_ok() && sends(op).len() == 1))[0]
}

fn unread(e: &mut Edit, id: Message) {
    for op in e.all(|op| read(op).iter().any(|entry| entry.id == id)) {
        e.entries(&op).retain(|entry| entry.id != id);
    }
    for op in e.all(|op| matches!(op.call, Call::Lookup { id: of, .. } if of == id)) {
        e.remove(&op);
    }
}

/// Two reads of one reader, the second of which goes on where the first ended, without saying so.
fn going_on(e: &mut Edit, key: u32) -> (Op, Op) {
    let polls = e.all(|op| 1 < read(op).len() && op.call.key() == Some(key));
    let next = |first: &Op| {
        let second = polls.iter().find(|op| op.process == first.process && first.index < op.index);
        second.filter(|op| read(op)[0].offset == read(first).last().unwrap().offset + 1).cloned()
    };
    let between = |first: &Op, second: &Op| {
        let reads = e.all(|op| {
            matches!(op.call, Call::Poll { .. })
                && (op.process, op.call.key()) == (first.process, Some(key))
                && (first.index..=second.index).contains(&op.index)
        });
        reads.len()
    };
    let pair = polls.iter().find_map(|first| {
        let second = next(first)?;
        (between(first, &second) == 2).then(|| (first.clone(), second))
    });
    let (first, second) = pair.expect("a reader that goes on");
    let Call::Poll { from, .. } = e.call(&second) else { unreachable!() };
    *from = None;
    (first, second)
}

/// Two messages of one queue, one acknowledged long before the other was sent.
fn apart(e: &Edit, one_sender: bool) -> (Message, Message) {
    let singles = e.all(|op| op.is_ok() && sends(op).len() == 1 && op.call.key() == Some(0));
    let first = &singles[singles.len() / 3];
    let second = singles.iter().find(|op| {
        let same = sends(op)[0].sender() == sends(first)[0].sender();
        same == one_sender && first.ended + SECOND < op.began
    });
    (sends(first)[0], sends(second.expect("a later one"))[0])
}
