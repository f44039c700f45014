//! The part of a history that shows an anomaly: its events, and what else happened to the same
//! thing around them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::history::{Answer, Body, Call, Event, Message};
use crate::judge::Anomaly;

/// Operations shown before and after those of the anomaly.
const NEIGHBOURS: usize = 20;
/// Events on each side among which neighbours are looked for: a long history is not searched whole
/// for each anomaly.
const REACH: u64 = 100_000;

/// A part of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    pub anomaly: Anomaly,
    /// Lines of the history, in their order.
    pub lines: Vec<String>,
    /// Which of them are the anomaly's own.
    pub own: Vec<bool>,
}

/// What an event is about, as far as that makes it a neighbour.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Subject<'a> {
    Key(u32),
    Message(Message),
    Group(&'a str),
    Register(&'a str),
}

fn subjects(body: &Body) -> Vec<Subject<'_>> {
    match body {
        Body::Invoke { call, .. } => of_call(call),
        Body::Ok(answer) => of_answer(answer),
        Body::Fail { .. } | Body::Info { .. } | Body::Fault(_) | Body::Observed(_) => Vec::new(),
    }
}

fn of_call(call: &Call) -> Vec<Subject<'_>> {
    let mut found: Vec<Subject<'_>> = call.key().map(Subject::Key).into_iter().collect();
    match call {
        Call::Send { ids, .. } => found.extend(ids.iter().copied().map(Subject::Message)),
        Call::Recall { id } | Call::Lookup { id, .. } => found.push(Subject::Message(*id)),
        Call::Ack { id, .. } | Call::ChangeInvisible { id, .. } => {
            found.push(Subject::Message(*id));
        }
        Call::Prepare { tx, .. }
        | Call::Decide { tx, .. }
        | Call::End { tx, .. }
        | Call::Check { tx } => found.push(Subject::Message(*tx)),
        Call::Member { group, .. } | Call::Assignment { group, .. } => {
            found.push(Subject::Group(group));
        }
        Call::Write { register, .. } | Call::Cas { register, .. } | Call::Read { register } => {
            found.push(Subject::Register(register));
        }
        Call::Add { set, .. } | Call::Remove { set, .. } | Call::List { set } => {
            found.push(Subject::Register(set));
        }
        Call::Route { topic } => found.push(Subject::Register(topic)),
        Call::Poll { .. }
        | Call::MaxOffset { .. }
        | Call::MinOffset { .. }
        | Call::Receive { .. }
        | Call::DeadLetters { .. }
        | Call::Commit { .. }
        | Call::Query { .. }
        | Call::Resume { .. }
        | Call::Parked {} => {}
    }
    found
}

fn of_answer(answer: &Answer) -> Vec<Subject<'_>> {
    match answer {
        Answer::Poll { entries, .. } => entries.iter().map(|e| Subject::Message(e.id)).collect(),
        Answer::Receive { deliveries, .. } => {
            deliveries.iter().map(|d| Subject::Message(d.id)).collect()
        }
        _ => Vec::new(),
    }
}

/// The events of an anomaly, the faults around them, and their nearest neighbours.
#[must_use]
pub fn slice(events: &[Event], anomaly: &Anomaly) -> Slice {
    let at = |index: &u64| usize::try_from(*index).ok().and_then(|index| events.get(index));
    let own: Vec<&Event> = anomaly.events.iter().filter_map(at).collect();
    // Messages tell more than queues: whoever shares a message comes first.
    let about: BTreeSet<Subject<'_>> = own.iter().flat_map(|e| subjects(&e.body)).collect();
    let messages: BTreeSet<&Subject<'_>> =
        about.iter().filter(|s| matches!(s, Subject::Message(_))).collect();
    let mut shown: BTreeSet<u64> = own.iter().map(|e| e.index).collect();
    let (first, last) = match (own.first(), own.last()) {
        (Some(first), Some(last)) => (first.index, last.index),
        _ => return Slice { anomaly: anomaly.clone(), lines: Vec::new(), own: Vec::new() },
    };
    let near = |event: &&Event| event.index.abs_diff(first).min(event.index.abs_diff(last));
    let from = first.saturating_sub(REACH);
    let around = events.iter().skip(usize::try_from(from).unwrap_or(usize::MAX));
    let mut akin: Vec<(bool, u64, &Event)> = around
        .take_while(|event| event.index <= last.saturating_add(REACH))
        .filter_map(|event| {
            let of = subjects(&event.body);
            let same = of.iter().any(|s| messages.contains(s));
            let fault = matches!(event.body, Body::Fault(_)) && near(&event) < 2_000;
            (same || fault || of.iter().any(|s| about.contains(s)))
                .then(|| (!same, near(&event), event))
        })
        .collect();
    akin.sort_by_key(|(other, near, _)| (*other, *near));
    shown.extend(akin.iter().take(2 * NEIGHBOURS).map(|(_, _, event)| event.index));
    // A request is shown with its outcome, and an outcome with its request.
    let with: Vec<u64> = shown.iter().filter_map(|index| partner(events, at(index)?)).collect();
    shown.extend(with);
    let shown: Vec<&Event> = shown.iter().filter_map(at).collect();
    Slice {
        anomaly: anomaly.clone(),
        own: shown.iter().map(|e| anomaly.events.contains(&e.index)).collect(),
        lines: shown.iter().map(|e| e.to_line()).collect(),
    }
}

/// The completion of an invocation, or the invocation of a completion.
fn partner(events: &[Event], event: &Event) -> Option<u64> {
    let place = usize::try_from(event.index).ok()?;
    let mine = |other: &&Event| other.process == event.process;
    match event.body {
        Body::Invoke { .. } => events[place + 1..].iter().find(mine).map(|e| e.index),
        Body::Ok(_) | Body::Fail { .. } | Body::Info { .. } => {
            events[..place].iter().rev().find(mine).map(|e| e.index)
        }
        Body::Fault(_) | Body::Observed(_) => None,
    }
}
