//! Registers, members, metadata, and the cluster as a whole.

use jepsen::history::{Answer, Body, Call, Observation, Op, Outcome, Workload};
use jepsen::judge::Kind;

use super::Mutation;
use crate::edit::{Edit, sends};
use crate::world::{MS, SECOND};

fn offset(name: &'static str, kind: Kind, change: fn(&mut Edit)) -> Mutation {
    Mutation { name, workload: Workload::Offset, kind, change }
}

fn rebalance(name: &'static str, kind: Kind, change: fn(&mut Edit)) -> Mutation {
    Mutation { name, workload: Workload::Rebalance, kind, change }
}

fn meta(name: &'static str, kind: Kind, change: fn(&mut Edit)) -> Mutation {
    Mutation { name, workload: Workload::Meta, kind, change }
}

pub fn mutations() -> Vec<Mutation> {
    vec![
        offset("a value of long ago", Kind::NonLinearizable, |e| {
            let first = e.all(|op| op.is_ok() && commit(op).is_some()).remove(0);
            let late = e.find(|op| op.is_ok() && is_query(op) && op.call.key() == first.call.key());
            *e.answer(&late) = Answer::Query { offset: commit(&first) };
        }),
        offset("a value of the future", Kind::NonLinearizable, |e| {
            let last = e.all(|op| op.is_ok() && commit(op).is_some()).pop().unwrap();
            let key = last.call.key();
            let early = e.find(|op| {
                op.is_ok() && is_query(op) && op.call.key() == key && op.ended < 9 * SECOND
            });
            *e.answer(&early) = Answer::Query { offset: commit(&last) };
        }),
        offset("nothing after something", Kind::NonLinearizable, |e| {
            let query = e.find(|op| op.is_ok() && is_query(op));
            *e.answer(&query) = Answer::Query { offset: None };
        }),
        offset("a confirmed commit is gone", Kind::NonLinearizable, |e| {
            let mut commits =
                e.all(|op| op.is_ok() && commit(op).is_some() && op.call.key() == Some(0));
            let (last, before) = (commits.pop().unwrap(), commits.pop().unwrap());
            let reads = e.all(|op| {
                matches!(op.answer(), Some(Answer::Query { offset }) if *offset == commit(&last))
            });
            for query in reads {
                *e.answer(&query) = Answer::Query { offset: commit(&before) };
            }
        }),
        offset("a value that nobody set", Kind::PhantomValue, |e| {
            let query = e.find(|op| op.is_ok() && is_query(op));
            *e.answer(&query) = Answer::Query { offset: Some(999_999) };
        }),
        offset("a value that was refused", Kind::AbortedRead, |e| {
            let refused = e.find(|op| op.is_failed() && commit(op).is_some());
            let query =
                e.find(|op| op.is_ok() && is_query(op) && op.call.key() == refused.call.key());
            *e.answer(&query) = Answer::Query { offset: commit(&refused) };
        }),
        offset("nobody could send for long", Kind::SlowRecovery, |e| {
            let sent =
                e.all(|op| !sends(op).is_empty() && (6 * SECOND..8 * SECOND).contains(&op.ended));
            sent.iter().for_each(|op| e.remove(op));
        }),
        rebalance("a queue without a reader", Kind::Unowned, |e| {
            for op in assignments(e) {
                let Answer::Assignment { keys } = e.answer(&op) else { unreachable!() };
                keys.retain(|key| *key != 1);
            }
        }),
        rebalance("a queue with two readers", Kind::DualOwner, |e| {
            for op in assignments(e) {
                *e.answer(&op) = Answer::Assignment { keys: vec![0, 1] };
            }
        }),
        rebalance("a consumer begins before its commit", Kind::Regress, |e| {
            let resume =
                e.find(|op| matches!(op.answer(), Some(Answer::Resume { offset }) if 90 < *offset));
            let key = resume.call.key();
            let first = e.find(|op| {
                commit(op).is_some_and(|at| at < 60) && op.call.key() == key && op.is_ok()
            });
            *e.answer(&resume) = Answer::Resume { offset: commit(&first).unwrap() };
        }),
        rebalance("the group passes something over", Kind::LostWrite, |e| {
            let polls = e.all(|op| matches!(op.answer(), Some(Answer::Poll { .. })));
            for op in polls.iter().filter(|op| op.call.key() == Some(0)) {
                e.entries(op).retain(|entry| entry.offset != 40);
            }
        }),
        meta("a setting that nobody made", Kind::NonLinearizable, |e| {
            let read = e.find(|op| matches!(op.answer(), Some(Answer::Read { value: Some(_) })));
            *e.answer(&read) = Answer::Read { value: Some(77) };
        }),
        meta("an exchange that cannot have been", Kind::NonLinearizable, |e| {
            let cas = e.find(|op| op.answer() == Some(&Answer::Cas { done: false }));
            let Call::Cas { expected, .. } = e.call(&cas) else { unreachable!() };
            *expected = 88;
            *e.answer(&cas) = Answer::Cas { done: true };
        }),
        meta("a listing leaves one out", Kind::SetStale, |e| {
            let last = listings(e).pop().unwrap();
            let Answer::List { elements } = e.answer(&last) else { unreachable!() };
            elements.remove(0);
        }),
        meta("a listing shows what nobody added", Kind::SetPhantom, |e| {
            let listing = listings(e).remove(5);
            let Answer::List { elements } = e.answer(&listing) else { unreachable!() };
            elements.push(123_456);
        }),
        meta("a listing shows what was refused", Kind::AbortedRead, |e| {
            let add = e.find(|op| op.is_failed() && matches!(op.call, Call::Add { .. }));
            let Call::Add { element, .. } = add.call else { unreachable!() };
            let last = listings(e).pop().unwrap();
            let Answer::List { elements } = e.answer(&last) else { unreachable!() };
            elements.push(element);
        }),
        meta("a listing shows what was removed", Kind::SetResurrected, |e| {
            let gone = e.find(|op| op.is_ok() && matches!(op.call, Call::Remove { .. }));
            let Call::Remove { element, .. } = gone.call else { unreachable!() };
            let last = listings(e).pop().unwrap();
            let Answer::List { elements } = e.answer(&last) else { unreachable!() };
            elements.push(element);
        }),
        meta("a route to a leader of yesterday", Kind::StaleRoute, |e| {
            let at = 40 * SECOND;
            let answer = Answer::Route { leader: Some("n3".into()) };
            let call = Call::Route { topic: "orders".into() };
            e.insert(at, at + MS, call, Outcome::Ok(answer));
        }),
        meta("replicas with different states", Kind::Divergence, |e| {
            each_observation(e, |seen| {
                if let Observation::Digest { node, digest, .. } = seen
                    && node == "n2"
                {
                    *digest = "0ddba11".into();
                }
            });
        }),
        meta("a process that died by itself", Kind::UnexpectedExit, |e| {
            observe(
                e,
                Observation::Exit { node: "n2".into(), expected: false, status: "signal 6".into() },
            );
        }),
        meta("a panic in a log", Kind::Panic, |e| {
            observe(e, Observation::Panic { node: "n1".into(), line: "broken".into() });
        }),
        meta("a member that did not come back", Kind::MembersMissing, |e| {
            each_observation(e, |seen| {
                if let Observation::Members { voters } = seen {
                    voters.pop();
                }
            });
        }),
        meta("a cluster that did not come back", Kind::NotReady, |e| {
            // The last sighting that it serves comes late.
            let place = e
                .events()
                .iter()
                .rposition(|event| event.body == Body::Observed(Observation::Ready {}));
            e.events()[place.unwrap()].time = 43 * SECOND;
        }),
    ]
}

fn commit(op: &Op) -> Option<u64> {
    match op.call {
        Call::Commit { offset, .. } => Some(offset),
        _ => None,
    }
}

fn is_query(op: &Op) -> bool {
    matches!(op.call, Call::Query { .. })
}

fn assignments(e: &Edit) -> Vec<Op> {
    e.all(|op| op.is_ok() && matches!(op.call, Call::Assignment { .. }) && 22 * SECOND < op.began)
}

fn listings(e: &Edit) -> Vec<Op> {
    e.all(|op| matches!(op.answer(), Some(Answer::List { elements }) if 2 < elements.len()))
}

fn each_observation(e: &mut Edit, change: impl Fn(&mut Observation)) {
    for event in e.events() {
        if let Body::Observed(seen) = &mut event.body {
            change(seen);
        }
    }
}

fn observe(e: &mut Edit, seen: Observation) {
    let last = e.events().last().unwrap().clone();
    let (index, process) = (last.index + 1_000_000, jepsen::history::Process::Observer);
    e.events().push(jepsen::history::Event { index, process, body: Body::Observed(seen), ..last });
}
