//! Changes that break no promise must not be called anomalies.

use jepsen::history::{
    Answer, Body, Call, Delivery, Failure, Message, Observation, Op, Outcome, Resolution, Workload,
};
use jepsen::judge::Validity;

use crate::edit::{Edit, delivered, read, sends};
use crate::mutations::recorded;
use crate::sound::judged;
use crate::world::{MS, SECOND};

type Change = (&'static str, Workload, fn(&mut Edit));

fn unknown() -> Outcome {
    Outcome::Unknown(Failure { code: 0, text: "timeout".into() })
}

/// Its caller does not know how it ended. What the same process did later is done by another.
fn forget(e: &mut Edit, op: &Op) {
    let name = op.call.name().to_owned();
    let failure = Failure { code: 50_001, text: "changed".into() };
    e.event(op.completion.unwrap()).body = Body::Info { name, failure };
    let later = jepsen::history::Process::Client(op.process + 500_000);
    let own = jepsen::history::Process::Client(op.process);
    let after = op.completion.unwrap();
    for event in e.events().iter_mut().filter(|event| after < event.index && event.process == own) {
        event.process = later;
    }
}

/// The transaction that is ended or asked about.
fn tx_of(op: &Op) -> Message {
    match op.call {
        Call::End { tx, .. } | Call::Check { tx } => tx,
        _ => unreachable!("no end and no question"),
    }
}

/// A message that was acknowledged early, and when.
fn early_one(e: &Edit) -> (Message, u64) {
    let send = e.all(|op| op.is_ok() && !sends(op).is_empty() && op.ended < 2 * SECOND).remove(9);
    (sends(&send)[0], send.ended)
}

/// A delivery to billing whose receive began and ended at these times.
fn slow_delivery(e: &mut Edit, (began, ended): (u64, u64), id: Message) {
    let (group, attempt_id) = ("billing".into(), None);
    let call = Call::Receive { group, key: 0, invisible_ms: 1_000, wait_ms: 0, attempt_id };
    let delivery = Delivery { id, offset: None, handle: 77, attempt: 1 };
    let answer = Answer::Receive { deliveries: vec![delivery], corrupt: Vec::new() };
    e.insert(began, ended, call, Outcome::Ok(answer));
}

fn deliver_and_ack(e: &mut Edit, at: u64, key: u32, id: Message) {
    let handle = e.deliver(at, "billing", key, id, None);
    let call = Call::Ack { group: "billing".into(), id, handle };
    e.insert(at + MS, at + 2 * MS, call, Outcome::Ok(Answer::Ack {}));
}

fn changes() -> Vec<Change> {
    vec![
        ("an answer to a question of which nobody knows that it arrived", Workload::Txn, |e| {
            // Of a commit that was only ever the answer to a question.
            let ends = e.all(|op| matches!(op.call, Call::End { .. }));
            let ended: Vec<Message> = ends.iter().map(tx_of).collect();
            let commit = |op: &Op| {
                let committed = Answer::Check { resolution: Resolution::Commit };
                op.answer() == Some(&committed) && !ended.contains(&tx_of(op))
            };
            let op = e.find(commit);
            forget(e, &op);
        }),
        ("an ack of unknown outcome", Workload::Queue, |e| {
            let op = e.find(|op| op.is_ok() && matches!(op.call, Call::Ack { .. }));
            forget(e, &op);
        }),
        ("a send of unknown outcome that happened", Workload::Queue, |e| {
            let op = e.find(|op| op.is_ok() && !sends(op).is_empty());
            forget(e, &op);
        }),
        ("a send of unknown outcome that did not happen", Workload::Queue, |e| {
            let ids = vec![Message::new(77, 1)];
            let call = Call::Send { key: 0, ids, message_group: None, deliver_at: None };
            e.insert(9 * SECOND, 12 * SECOND, call, unknown());
        }),
        ("a send that was refused", Workload::Queue, |e| {
            let op = e.find(|op| op.is_failed() && !sends(op).is_empty());
            e.remove(&op);
        }),
        ("a receive of unknown outcome less", Workload::Queue, |e| {
            let op = e.find(|op| {
                matches!(op.call, Call::Receive { .. }) && delivered(op).is_empty() && op.is_ok()
            });
            e.remove(&op);
        }),
        ("a redelivery after the lease", Workload::Queue, |e| {
            let op = e.find(|op| !delivered(op).is_empty() && op.began < 20 * SECOND);
            let Call::Receive { group, .. } = op.call.clone() else { unreachable!() };
            let id = delivered(&op)[0].id;
            for ack in e.all(|op| matches!(&op.call, Call::Ack { id: of, group: g, .. } if *of == id && *g == group)) {
                e.remove(&ack);
            }
            let at = op.ended + 1_200 * MS;
            let handle = e.deliver(at, &group, 0, id, delivered(&op)[0].offset);
            let call = Call::Ack { group, id, handle };
            e.insert(at + MS, at + 2 * MS, call, Outcome::Ok(Answer::Ack {}));
        }),
        ("a delivery whose answer was long under way", Workload::Queue, |e| {
            let (id, sent) = early_one(e);
            e.withhold("billing", id);
            let at = sent + 100 * MS;
            slow_delivery(e, (at, at + 300 * MS), id);
            deliver_and_ack(e, at + 1_005 * MS, 0, id);
        }),
        ("an ack that crossed the next delivery", Workload::Queue, |e| {
            let (id, sent) = early_one(e);
            e.withhold("billing", id);
            let at = sent + 100 * MS;
            let handle = e.deliver(at, "billing", 0, id, None);
            slow_delivery(e, (at + 500 * MS, at + 1_200 * MS), id);
            let call = Call::Ack { group: "billing".into(), id, handle };
            e.insert(at + 900 * MS, at + 1_100 * MS, call, Outcome::Ok(Answer::Ack {}));
        }),
        ("a receive of unknown outcome that hid a message", Workload::Queue, |e| {
            let (id, sent) = early_one(e);
            e.withhold("billing", id);
            let (group, attempt_id) = ("billing".into(), None);
            let call =
                Call::Receive { group, key: 0, invisible_ms: 40_000, wait_ms: 20, attempt_id };
            e.insert(sent + MS, sent + 300 * MS, call, unknown());
            deliver_and_ack(e, 42 * SECOND, 0, id);
        }),
        ("late while the cluster was not ready yet", Workload::Delay, |e| {
            let wall = e.plan().wall_start_ms;
            let due = |op: &Op| match op.call {
                Call::Send { deliver_at: Some(at), .. } => at - wall,
                _ => 0,
            };
            let recalled = |id| e.record.ops.iter().any(|op| op.call == Call::Recall { id });
            let send = e.find(|op| {
                op.is_ok() && (23_200..23_800).contains(&due(op)) && !recalled(sends(op)[0])
            });
            let (id, key) = (sends(&send)[0], send.call.key().unwrap());
            e.withhold("billing", id);
            deliver_and_ack(e, 28 * SECOND, key, id);
            let ready = e
                .events()
                .iter()
                .rposition(|event| event.body == Body::Observed(Observation::Ready {}));
            e.events()[ready.unwrap()].time = 26_700 * MS;
        }),
        ("a bound that nobody asked for", Workload::Log, |e| {
            let op = e.find(|op| matches!(op.call, Call::MaxOffset { .. }) && op.is_ok());
            e.remove(&op);
        }),
        ("the same bound asked for at once by two", Workload::Log, |e| {
            let op = e.find(|op| matches!(op.call, Call::MaxOffset { .. }) && op.is_ok());
            let outcome = op.outcome.clone();
            e.insert(op.began, op.ended, op.call.clone(), outcome);
        }),
        ("one read less", Workload::Broadcast, |e| {
            let op = e.find(|op| !read(op).is_empty());
            e.remove(&op);
        }),
        ("a read twice", Workload::Broadcast, |e| {
            let op = e.find(|op| !read(op).is_empty());
            e.insert(op.ended + 1, op.ended + 2, op.call.clone(), op.outcome.clone());
        }),
        ("a shorter read", Workload::Log, |e| {
            let op = e.find(|op| 2 < read(op).len() && 40 * SECOND > op.began);
            e.entries(&op).pop();
        }),
        ("one look-up less", Workload::Log, |e| {
            let op = e.find(|op| matches!(op.call, Call::Lookup { .. }));
            e.remove(&op);
        }),
        ("a commit of unknown outcome that was seen", Workload::Offset, |e| {
            let op = e.find(|op| matches!(op.call, Call::Commit { .. }) && op.is_ok());
            forget(e, &op);
        }),
        ("a commit of unknown outcome that was never seen", Workload::Offset, |e| {
            let call = Call::Commit { group: "billing".into(), key: 0, offset: 777_777 };
            e.insert(9 * SECOND, 12 * SECOND, call, unknown());
        }),
        ("a commit of unknown outcome that took effect late", Workload::Offset, |e| {
            let call = Call::Commit { group: "billing".into(), key: 0, offset: 777_777 };
            e.insert(9 * SECOND, 12 * SECOND, call, unknown());
            let call = Call::Query { group: "billing".into(), key: 0 };
            let answer = Answer::Query { offset: Some(777_777) };
            e.insert(45 * SECOND, 45 * SECOND + MS, call, Outcome::Ok(answer));
        }),
        ("one query less", Workload::Offset, |e| {
            let op = e.find(|op| matches!(op.call, Call::Query { .. }));
            e.remove(&op);
        }),
        ("an ordered message of unknown fate that is not there", Workload::Fifo, |e| {
            let ids = vec![Message::new(77, 1)];
            let message_group = Some("p1-0".into());
            let call = Call::Send { key: 1, ids, message_group, deliver_at: None };
            e.insert(9 * SECOND, 12 * SECOND, call, unknown());
        }),
        ("an ordered ack of unknown outcome", Workload::Fifo, |e| {
            let op = e.find(|op| op.is_ok() && matches!(op.call, Call::Ack { .. }));
            forget(e, &op);
        }),
        ("a half message that may not exist", Workload::Txn, |e| {
            let (tx, key) = (Message::new(77, 1), 0);
            let call = Call::Prepare { tx, key, from: 0, to: 1, amount: 5 };
            e.insert(9 * SECOND, 12 * SECOND, call, unknown());
        }),
        ("an end of unknown outcome", Workload::Txn, |e| {
            let op = e.find(|op| op.is_ok() && matches!(op.call, Call::End { .. }));
            forget(e, &op);
        }),
        ("a question that crossed the answer", Workload::Txn, |e| {
            let op = e.find(|op| {
                op.is_ok() && matches!(op.call, Call::End { resolution: Resolution::Commit, .. })
            });
            let Call::End { tx, .. } = op.call else { unreachable!() };
            let answer = Answer::Check { resolution: Resolution::Commit };
            e.insert(op.ended + MS, op.ended + 2 * MS, Call::Check { tx }, Outcome::Ok(answer));
        }),
        ("the same end twice", Workload::Txn, |e| {
            let op = e.find(|op| op.is_ok() && matches!(op.call, Call::End { .. }));
            e.insert(op.ended + MS, op.ended + 2 * MS, op.call.clone(), op.outcome.clone());
        }),
        ("as much before its time as clocks differ", Workload::Delay, |e| {
            let send = e.find(|op| {
                op.is_ok() && !sends(op).is_empty() && {
                    !e.receives(None, sends(op)[0]).is_empty()
                }
            });
            let first = e.receives(None, sends(&send)[0]).into_iter().map(|op| op.ended).min();
            let at = e.plan().wall_start_ms + first.unwrap() / MS + 40;
            let Call::Send { deliver_at, .. } = e.call(&send) else { unreachable!() };
            *deliver_at = Some(at);
        }),
        ("one recall less that came too late", Workload::Delay, |e| {
            let op = e.find(|op| op.answer() == Some(&Answer::Recall { done: false }));
            e.remove(&op);
        }),
        ("one question about queues less", Workload::Rebalance, |e| {
            let op = e.find(|op| matches!(op.call, Call::Assignment { .. }));
            e.remove(&op);
        }),
        ("a repetition that gets the same offset", Workload::Idem, |e| {
            let op = e.find(|op| op.is_ok() && !sends(op).is_empty());
            e.insert(op.ended + MS, op.ended + 2 * MS, op.call.clone(), op.outcome.clone());
        }),
        ("a repetition that was refused", Workload::Idem, |e| {
            let op = e.find(|op| op.is_ok() && !sends(op).is_empty());
            let refused = Outcome::Failed(Failure { code: 42_900, text: "busy".into() });
            e.insert(op.ended + MS, op.ended + 2 * MS, op.call.clone(), refused);
        }),
        ("a setting of unknown outcome", Workload::Meta, |e| {
            let call = Call::Write { register: "setting-3".into(), value: 99 };
            e.insert(9 * SECOND, 12 * SECOND, call, unknown());
        }),
        ("one listing less", Workload::Meta, |e| {
            let op = e.find(|op| matches!(op.call, Call::List { .. }));
            e.remove(&op);
        }),
        ("a route of yesterday soon after the change", Workload::Meta, |e| {
            let at = 23 * SECOND;
            let answer = Answer::Route { leader: Some("n3".into()) };
            e.insert(at, at + MS, Call::Route { topic: "orders".into() }, Outcome::Ok(answer));
        }),
        ("a process that the run ended", Workload::Meta, |e| {
            let last = e.events().last().unwrap().clone();
            let (node, status) = ("n1".into(), "signal 9".into());
            let body = Body::Observed(Observation::Exit { node, expected: true, status });
            e.events().push(jepsen::history::Event { index: last.index + 1_000_000, body, ..last });
        }),
    ]
}

#[test]
fn what_breaks_no_promise_stays_valid() {
    let changes = changes();
    assert!(20 <= changes.len());
    let mut wrong = Vec::new();
    for (name, workload, change) in changes {
        let mut edit = Edit::of(&recorded(workload));
        change(&mut edit);
        let judgement = judged(&edit.close());
        if judgement.valid != Validity::Valid {
            wrong.push(format!("{name}: {judgement}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_cannot_be_told_is_unknown_and_never_valid() {
    let doubts: Vec<Change> = vec![
        ("nobody read to the end", Workload::Queue, |e| {
            e.events().retain(|event| !event.to_line().contains("drained_group"));
        }),
        ("no queue was read to its end", Workload::Log, |e| {
            e.events().retain(|event| !event.to_line().contains("drained_key"));
        }),
        ("fewer faults than asked for", Workload::Log, |e| {
            e.plan().wants.faults.insert("power".into(), 1);
        }),
        ("fewer operations than asked for", Workload::Queue, |e| {
            e.plan().wants.ok.insert("receive".into(), 1_000_000);
        }),
        ("no byte was lost", Workload::Queue, |e| e.plan().wants.lost_bytes = 1),
        ("no segment rolled", Workload::Queue, |e| {
            e.plan().wants.counts.insert("segment_rolls".into(), 3);
        }),
        ("a replica is silent", Workload::Queue, |e| {
            e.events().retain(|event| {
                !matches!(&event.body, Body::Observed(Observation::Digest { node, .. }) if node == "n3")
            });
        }),
        ("a fault was never taken away", Workload::Queue, |e| {
            let healed = e.events().iter().rposition(|event| event.to_line().contains("healed"));
            let index = e.events()[healed.unwrap()].index;
            e.events().retain(|event| event.index != index);
        }),
    ];
    for (name, workload, change) in doubts {
        let mut edit = Edit::of(&recorded(workload));
        change(&mut edit);
        let judgement = judged(&edit.close());
        assert_eq!(judgement.valid, Validity::Unknown, "{name}: {judgement}");
        assert!(judgement.doubts().next().is_some(), "{name}");
    }
}

#[test]
fn a_busy_machine_makes_times_of_recovery_unknown() {
    let mut edit = Edit::of(&recorded(Workload::Offset));
    let slow = 6 * SECOND..8 * SECOND;
    let sent = edit.all(|op| !sends(op).is_empty() && slow.contains(&op.ended));
    sent.iter().for_each(|op| edit.remove(op));
    for event in edit.events() {
        if let Body::Observed(Observation::Calibration { p99_us }) = &mut event.body {
            *p99_us = 300_000;
        }
    }
    let judgement = judged(&edit.close());
    assert_eq!(judgement.valid, Validity::Unknown, "{judgement}");
}
