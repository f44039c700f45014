//! Queues, message groups, transactions, delays: what consumers are handed.

use jepsen::history::{Answer, Body, Call, Message, Op, Outcome, Resolution, Workload};
use jepsen::judge::Kind;

use super::Mutation;
use crate::edit::{Edit, delivered, sends};
use crate::world::{MS, QUIET, SECOND};

fn queue(name: &'static str, kind: Kind, change: fn(&mut Edit)) -> Mutation {
    Mutation { name, workload: Workload::Queue, kind, change }
}

fn fifo(name: &'static str, kind: Kind, change: fn(&mut Edit)) -> Mutation {
    Mutation { name, workload: Workload::Fifo, kind, change }
}

fn txn(name: &'static str, kind: Kind, change: fn(&mut Edit)) -> Mutation {
    Mutation { name, workload: Workload::Txn, kind, change }
}

fn delay(name: &'static str, kind: Kind, change: fn(&mut Edit)) -> Mutation {
    Mutation { name, workload: Workload::Delay, kind, change }
}

pub fn mutations() -> Vec<Mutation> {
    vec![
        queue("one group never got a message", Kind::LostWrite, |e| {
            let id = acked(e);
            e.undeliver(Some("audit"), id);
        }),
        queue("nobody got a message", Kind::LostWrite, |e| {
            let id = acked(e);
            e.undeliver(None, id);
        }),
        queue("the last message of a sender is lost", Kind::LostWrite, |e| {
            let last = e.all(|op| op.is_ok() && !sends(op).is_empty()).pop().unwrap();
            e.undeliver(Some("billing"), sends(&last)[0]);
        }),
        queue("a message of unknown fate came to one group only", Kind::Vanished, |e| {
            let id = unknown_but_delivered(e);
            e.undeliver(Some("billing"), id);
        }),
        queue("an offset holds nothing", Kind::Gap, |e| {
            let id = unknown_but_delivered(e);
            e.undeliver(None, id);
        }),
        queue("a message that nobody sent", Kind::Phantom, |e| {
            e.deliver(20 * SECOND, "audit", 0, Message::new(99, 1), None);
        }),
        queue("a message before it was sent", Kind::Phantom, |e| {
            let id = acked(e);
            let at = e.sent(id).began - MS;
            e.deliver(at, "audit", 0, id, None);
        }),
        queue("a message that was refused", Kind::AbortedRead, |e| {
            let id = sends(&e.find(|op| op.is_failed() && !sends(op).is_empty()))[0];
            e.deliver(20 * SECOND, "audit", 0, id, None);
        }),
        queue("a sender was told that a delivered message never will be", Kind::AbortedRead, |e| {
            let op = e.find(|op| op.is_ok() && !sends(op).is_empty());
            e.fail(&op);
        }),
        queue("a changed body", Kind::CorruptPayload, |e| {
            let op = e.find(|op| !delivered(op).is_empty());
            let Answer::Receive { corrupt, .. } = e.answer(&op) else { unreachable!() };
            corrupt.push("512 bytes, one of them wrong".into());
        }),
        queue("delivered after its ack", Kind::RedeliveryAfterAck, |e| {
            let ack = e.find(|op| op.is_ok() && matches!(op.call, Call::Ack { .. }));
            let Call::Ack { group, id, .. } = &ack.call else { unreachable!() };
            e.deliver(ack.ended + 1, group, 0, *id, None);
        }),
        queue("two consumers at once", Kind::DoubleLease, |e| {
            let op = e.find(|op| !delivered(op).is_empty());
            let id = delivered(&op)[0].id;
            let Call::Receive { group, .. } = &op.call else { unreachable!() };
            e.deliver(op.ended + 1, group, 0, id, None);
        }),
        queue("a lease that was longer than it held", Kind::DoubleLease, |e| {
            let change = e.find(|op| {
                let Call::ChangeInvisible { invisible_ms: 1_500, group, id, .. } = &op.call else {
                    return false;
                };
                let again = |r: &Op| op.ended < r.began;
                op.is_ok() && e.receives(Some(group), *id).iter().any(again)
            });
            let Call::ChangeInvisible { invisible_ms, .. } = e.call(&change) else {
                unreachable!()
            };
            *invisible_ms = 30_000;
        }),
        queue("a receive that asked for a longer lease", Kind::DoubleLease, |e| {
            for op in e.all(|op| matches!(op.call, Call::Receive { .. })) {
                let Call::Receive { invisible_ms, .. } = e.call(&op) else { unreachable!() };
                *invisible_ms = 30_000;
            }
        }),
        queue("attempt zero", Kind::NoAttempt, |e| {
            let op = e.find(|op| !delivered(op).is_empty());
            e.deliveries(&op)[0].attempt = 0;
        }),
        queue("elsewhere than acknowledged", Kind::OffsetMismatch, |e| {
            let id = acked(e);
            for op in e.receives(None, id) {
                let delivery = e.deliveries(&op).iter_mut().find(|d| d.id == id).unwrap();
                delivery.offset = Some(90_000);
            }
        }),
        queue("two messages at one offset", Kind::InconsistentOffset, |e| {
            let op = e.find(|op| 2 < delivered(op).len());
            let offset = delivered(&op)[0].offset;
            e.deliveries(&op)[1].offset = offset;
        }),
        queue("one message at two offsets", Kind::Duplicate, |e| {
            let id = acked(e);
            let op = e.receives(Some("billing"), id).remove(0);
            let at = op.ended + 1;
            e.deliver(at, "billing", 0, id, Some(90_000));
        }),
        queue("a message that was ready was not handed out", Kind::Stuck, |e| {
            let early = e.all(|op| op.is_ok() && !sends(op).is_empty() && op.began < SECOND);
            e.withhold("billing", sends(&early[0])[0]);
        }),
        queue("given up too early", Kind::DeadLetterEarly, |e| {
            e.plan().groups[0].max_attempts = Some(9);
        }),
        queue("given up too late", Kind::DeadLetterLate, |e| {
            e.plan().groups[0].max_attempts = Some(2);
        }),
        queue("delivered after it was given up", Kind::RedeliveryAfterDeadLetter, |e| {
            let read = e.find(|op| matches!(op.answer(), Some(Answer::DeadLetters { .. })));
            let Some(Answer::DeadLetters { ids }) = read.answer() else { unreachable!() };
            e.deliver(read.ended + 1, "audit", 0, ids[0], None);
        }),
        fifo("past an unacked message", Kind::HolViolation, |e| {
            let id = acked(e);
            unack(e, "billing", id);
        }),
        fifo("a redelivery past an unacked message", Kind::SkipRedelivery, |e| {
            let again = |id: &Message| 1 < e.receives(Some("audit"), *id).len();
            let twice = in_groups(e).into_iter().rfind(again).expect("a redelivery");
            let group = message_group(e, twice);
            let before = e.all(|op| {
                op.is_ok()
                    && matches!(&op.call, Call::Send { message_group, .. } if *message_group == group)
                    && sends(op)[0] < twice
            });
            for send in before {
                unack(e, "audit", sends(&send)[0]);
            }
        }),
        fifo("out of order in one receive", Kind::FifoOrder, |e| {
            let groups = e.all(|op| !sends(op).is_empty());
            let of = |id: Message| {
                groups.iter().find(|op| sends(op).contains(&id)).and_then(|op| match &op.call {
                    Call::Send { message_group, .. } => message_group.clone(),
                    _ => None,
                })
            };
            let op = e.find(|op| {
                delivered(op).len() == 2 && of(delivered(op)[0].id) == of(delivered(op)[1].id)
            });
            e.deliveries(&op).reverse();
        }),
        fifo("for the first time after later ones", Kind::FifoOrder, |e| {
            let id = acked(e);
            let offset = e.offset(id);
            let key = e.sent(id).call.key().unwrap();
            e.undeliver(Some("audit"), id);
            e.deliver(40 * SECOND, "audit", key, id, Some(offset));
        }),
        fifo("a message group with two consumers", Kind::FifoDoubleOwner, |e| {
            let op =
                e.find(|op| delivered(op).len() == 1 && op.began < QUIET && 9 * SECOND < op.began);
            let held = delivered(&op)[0].id;
            let (group, key) = (message_group(e, held), op.call.key().unwrap());
            let later = e.find(|send| {
                matches!(&send.call, Call::Send { message_group, .. } if *message_group == group)
                    && send.is_ok()
                    && send.ended < op.began - SECOND
                    && !sends(send).contains(&held)
            });
            let Call::Receive { group, .. } = &op.call else { unreachable!() };
            let other = sends(&later)[0];
            e.deliver(op.ended + 1, group, key, other, Some(e.offset(other)));
        }),
        fifo("other messages for the same attempt", Kind::AttemptMismatch, |e| {
            let of_audit =
                |op: &Op| matches!(&op.call, Call::Receive { group, .. } if group == "audit");
            for op in e.all(|op| of_audit(op) && !delivered(op).is_empty()).iter().take(2) {
                let Call::Receive { attempt_id, .. } = e.call(op) else { unreachable!() };
                *attempt_id = Some("again".into());
            }
        }),
        fifo("the head of a message group was not handed out", Kind::Stuck, |e| {
            let last = in_groups(e).into_iter().filter(|id| id.sender() == 1).max().unwrap();
            e.withhold("billing", last);
        }),
        fifo("an ordered message is lost", Kind::LostWrite, |e| {
            let id = acked(e);
            e.undeliver(Some("audit"), id);
        }),
        txn("a half message was delivered", Kind::EarlyHalf, |e| {
            let prepare = committed(e);
            let (tx, key) = (sends(&prepare)[0], prepare.call.key().unwrap());
            e.deliver(prepare.ended + 1, "audit", key, tx, None);
        }),
        txn("a transaction that was rolled back was delivered", Kind::PhantomCommit, |e| {
            let op = e.find(|op| op.is_ok() && ends(op) == Some(Resolution::Rollback));
            let Call::End { tx, .. } = op.call else { unreachable!() };
            let key = prepared(e, tx).call.key().unwrap();
            e.deliver(op.ended + SECOND, "audit", key, tx, None);
        }),
        txn("a committed transaction never came", Kind::LostCommit, |e| {
            let tx = sends(&committed(e))[0];
            e.undeliver(Some("audit"), tx);
        }),
        txn("money is lost", Kind::Unbalanced, |e| {
            let tx = sends(&committed(e))[0];
            e.undeliver(Some("billing"), tx);
        }),
        txn("two ends were confirmed", Kind::Conflict, |e| {
            let op = e.find(|op| op.is_ok() && ends(op) == Some(Resolution::Commit));
            let Call::End { tx, .. } = op.call else { unreachable!() };
            let call = Call::End { tx, resolution: Resolution::Rollback };
            e.insert(op.began, op.ended + MS, call, Outcome::Ok(Answer::End {}));
        }),
        txn("a transaction came twice", Kind::DoubleCommit, |e| {
            let prepare = committed(e);
            let (tx, key) = (sends(&prepare)[0], prepare.call.key().unwrap());
            e.deliver(42 * SECOND, "billing", key, tx, Some(90_000));
        }),
        txn("a question long after the end", Kind::CheckAfterResolve, |e| {
            let op = e.all(|op| op.is_ok() && ends(op) == Some(Resolution::Commit)).pop().unwrap();
            let Call::End { tx, .. } = op.call else { unreachable!() };
            let answer = Answer::Check { resolution: Resolution::Commit };
            let at = op.ended + 9 * SECOND;
            e.insert(at, at + MS, Call::Check { tx }, Outcome::Ok(answer));
        }),
        txn("nobody asked about a silent transaction", Kind::CheckMissing, |e| {
            let check = e.find(|op| {
                let answer = Answer::Check { resolution: Resolution::Rollback };
                op.answer() == Some(&answer)
                    && matches!(op.call, Call::Check { tx } if prepared(e, tx).is_ok()
                        && e.all(|op| matches!(op.call, Call::End { tx: t, .. } if t == tx)).is_empty())
            });
            e.remove(&check);
        }),
        delay("before its time", Kind::Early, |e| {
            let op = e.find(|op| op.is_ok() && !sends(op).is_empty());
            shift(e, &op, 20_000);
        }),
        delay("sixty ms before its time", Kind::Early, |e| {
            let send = e.find(|op| op.is_ok() && !sends(op).is_empty());
            let first = e.receives(None, sends(&send)[0]).into_iter().min_by_key(|op| op.ended);
            let at = e.plan().wall_start_ms + first.unwrap().ended / MS + 60;
            let Call::Send { deliver_at, .. } = e.call(&send) else { unreachable!() };
            *deliver_at = Some(at);
        }),
        delay("long after its time", Kind::Late, |e| {
            let send = acked_delay(e);
            let (id, key) = (sends(&send)[0], send.call.key().unwrap());
            e.withhold("audit", id);
            e.deliver(42 * SECOND, "audit", key, id, None);
        }),
        delay("taken back and delivered", Kind::RecalledButDelivered, |e| {
            let recall = e.find(|op| op.answer() == Some(&Answer::Recall { done: false }));
            *e.answer(&recall) = Answer::Recall { done: true };
        }),
        delay("fired twice", Kind::Duplicate, |e| {
            let send = acked_delay(e);
            let (id, key) = (sends(&send)[0], send.call.key().unwrap());
            e.deliver(42 * SECOND, "audit", key, id, Some(90_000));
        }),
        delay("never fired", Kind::LostWrite, |e| {
            let id = sends(&acked_delay(e))[0];
            e.undeliver(None, id);
        }),
        delay("refused and fired", Kind::AbortedRead, |e| {
            let op = acked_delay(e);
            e.fail(&op);
        }),
    ]
}

/// An acknowledged message in the middle of the run that both groups received.
fn acked(e: &Edit) -> Message {
    let op = e.find(|op| {
        op.is_ok()
            && !sends(op).is_empty()
            && ["audit", "billing"].iter().all(|g| e_received(e, g, sends(op)[0]))
    });
    sends(&op)[0]
}

fn e_received(e: &Edit, group: &str, id: Message) -> bool {
    e.record.ops.iter().any(|op| {
        matches!(&op.call, Call::Receive { group: of, .. } if of == group)
            && delivered(op).iter().any(|d| d.id == id)
    })
}

fn unknown_but_delivered(e: &Edit) -> Message {
    let op = e.find(|op| {
        !op.is_ok()
            && !op.is_failed()
            && !sends(op).is_empty()
            && e_received(e, "audit", sends(op)[0])
            && e_received(e, "billing", sends(op)[0])
    });
    sends(&op)[0]
}

fn acks(e: &Edit, of: &str, wanted: Message) -> Vec<Op> {
    e.all(|op| matches!(&op.call, Call::Ack { group, id, .. } if group == of && *id == wanted))
}

fn unack(e: &mut Edit, group: &str, id: Message) {
    for ack in acks(e, group, id) {
        let completion = ack.completion.unwrap();
        if matches!(e.event(completion).body, Body::Ok(_)) {
            e.fail(&ack);
        } else {
            e.remove(&ack);
        }
    }
}

/// The acknowledged messages with a message group.
fn in_groups(e: &Edit) -> Vec<Message> {
    let grouped = |op: &Op| matches!(&op.call, Call::Send { message_group: Some(_), .. });
    e.all(|op| op.is_ok() && grouped(op)).iter().map(|op| sends(op)[0]).collect()
}

fn message_group(e: &Edit, id: Message) -> Option<String> {
    match e.find(|op| sends(op).contains(&id)).call {
        Call::Send { message_group, .. } => message_group,
        _ => None,
    }
}

fn ends(op: &Op) -> Option<Resolution> {
    match op.call {
        Call::End { resolution, .. } => Some(resolution),
        _ => None,
    }
}

fn prepared(e: &Edit, wanted: Message) -> Op {
    e.find(|op| matches!(op.call, Call::Prepare { tx, .. } if tx == wanted))
}

/// The prepare of a transaction whose commit was confirmed.
fn committed(e: &Edit) -> Op {
    let end = e.find(|op| op.is_ok() && ends(op) == Some(Resolution::Commit));
    let Call::End { tx, .. } = end.call else { unreachable!() };
    prepared(e, tx)
}

fn shift(e: &mut Edit, op: &Op, ms: u64) {
    let Call::Send { deliver_at, .. } = e.call(op) else { unreachable!() };
    *deliver_at = deliver_at.map(|at| at + ms);
}

/// A delayed message that was sent early, delivered, and never asked back.
fn acked_delay(e: &Edit) -> Op {
    let recalled: Vec<Message> = e
        .record
        .ops
        .iter()
        .filter_map(|op| match op.call {
            Call::Recall { id } => Some(id),
            _ => None,
        })
        .collect();
    e.find(|op| {
        op.is_ok()
            && !sends(op).is_empty()
            && !recalled.contains(&sends(op)[0])
            && e_received(e, "audit", sends(op)[0])
    })
}
