//! Judges a history against the promises of the broker: nothing acknowledged is lost, offsets are
//! dense and never reused, what was seen stays, what was acked stays acked.

use std::collections::{BTreeMap, BTreeSet};

use crate::accounting::history::{Action, Event, Fate, History, Message, Place, Queue};
use crate::accounting::verdict::{Anomaly, Verdict};

/// Judges `history`. `complete` names the groups that read every queue to its end: for them a
/// message that is missing is lost, and an offset that is missing is a gap.
#[must_use]
pub fn check(history: &History, complete: &[&str]) -> Verdict {
    let book = Book::of(history);
    let mut verdict = book.counts(complete);
    book.phantoms(&mut verdict);
    book.places(&mut verdict);
    for group in complete {
        book.losses(group, &mut verdict);
        book.gaps(group, &mut verdict);
    }
    book.resurrections(&mut verdict);
    verdict
}

struct Send {
    fate: Fate,
    offset: Option<u64>,
}

struct Receive<'a> {
    group: &'a str,
    message: Message,
    place: Option<&'a Place>,
    began: u64,
    attempt: u32,
}

/// The history sorted by what the questions ask for.
struct Book<'a> {
    sends: BTreeMap<Message, Send>,
    receives: Vec<Receive<'a>>,
    seen: BTreeMap<&'a str, BTreeSet<Message>>,
    /// When the ack of a message was first confirmed to a group.
    acked: BTreeMap<(&'a str, Message), u64>,
    garbage: Vec<(&'a str, &'a str)>,
}

impl<'a> Book<'a> {
    fn of(history: &'a History) -> Self {
        let mut book = Self {
            sends: BTreeMap::new(),
            receives: Vec::new(),
            seen: BTreeMap::new(),
            acked: BTreeMap::new(),
            garbage: Vec::new(),
        };
        for event in history.events() {
            book.enter(event);
        }
        book
    }

    fn enter(&mut self, event: &'a Event) {
        match &event.action {
            Action::Send { message, fate, offset } => self.enter_send(*message, *fate, *offset),
            Action::Receive { group, message, place, attempt } => {
                self.seen.entry(group).or_default().insert(*message);
                self.receives.push(Receive {
                    group,
                    message: *message,
                    place: place.as_ref(),
                    began: event.began,
                    attempt: *attempt,
                });
            }
            Action::Ack { group, message, fate: Fate::Done } => {
                let first = self.acked.entry((group, *message)).or_insert(event.ended);
                *first = (*first).min(event.ended);
            }
            Action::Ack { fate: Fate::Refused | Fate::Unknown, .. } | Action::Fault { .. } => {}
            Action::Garbage { group, what } => self.garbage.push((group, what)),
        }
    }

    /// A message may be sent again after an attempt of unknown fate; the best news counts, and a
    /// refusal of a later attempt says nothing about an earlier one of unknown fate.
    fn enter_send(&mut self, message: Message, fate: Fate, offset: Option<u64>) {
        let send = self.sends.entry(message).or_insert(Send { fate, offset });
        match (send.fate, fate) {
            (Fate::Refused | Fate::Unknown, Fate::Done) => *send = Send { fate, offset },
            (Fate::Refused, Fate::Unknown) => send.fate = Fate::Unknown,
            (Fate::Done, _) | (Fate::Unknown, _) | (Fate::Refused, Fate::Refused) => {}
        }
    }

    fn counts(&self, complete: &[&str]) -> Verdict {
        let with = |fate| self.sends.values().filter(|s| s.fate == fate).count() as u64;
        let distinct: usize = self.seen.values().map(BTreeSet::len).sum();
        let received =
            complete.iter().filter_map(|g| self.seen.get(g)).map(BTreeSet::len).sum::<usize>();
        Verdict {
            sent: self.sends.len() as u64,
            acknowledged: with(Fate::Done),
            unknown: with(Fate::Unknown),
            refused: with(Fate::Refused),
            received: received as u64,
            duplicates: (self.receives.len() - distinct) as u64,
            anomalies: Vec::new(),
        }
    }

    fn phantoms(&self, verdict: &mut Verdict) {
        for (group, messages) in &self.seen {
            for message in messages {
                let sent = self.sends.get(message).is_some_and(|s| s.fate != Fate::Refused);
                if !sent {
                    let group = (*group).to_owned();
                    verdict.anomalies.push(Anomaly::Phantom { group, message: *message });
                }
            }
        }
        for receive in self.receives.iter().filter(|r| r.attempt == 0) {
            let group = receive.group.to_owned();
            verdict.anomalies.push(Anomaly::NoAttempt { group, message: receive.message });
        }
        for (group, what) in &self.garbage {
            let (group, what) = ((*group).to_owned(), (*what).to_owned());
            verdict.anomalies.push(Anomaly::Garbage { group, what });
        }
    }

    /// A message has one place, a place has one message, and it is the acknowledged one.
    fn places(&self, verdict: &mut Verdict) {
        let mut place_of: BTreeMap<Message, &Place> = BTreeMap::new();
        let mut holder_of: BTreeMap<&Place, Message> = BTreeMap::new();
        for receive in &self.receives {
            let (message, Some(place)) = (receive.message, receive.place) else { continue };
            let first = *holder_of.entry(place).or_insert(message);
            if first != message {
                let place = place.clone();
                verdict.anomalies.push(Anomaly::OffsetReused { place, first, second: message });
            }
            let known = *place_of.entry(message).or_insert(place);
            if known != place {
                let (first, second) = (known.clone(), place.clone());
                verdict.anomalies.push(Anomaly::StoredTwice { message, first, second });
            }
        }
        for (message, place) in place_of {
            let acknowledged = self.sends.get(&message).and_then(|s| s.offset);
            if let Some(acknowledged) = acknowledged.filter(|offset| *offset != place.offset) {
                let place = place.clone();
                verdict.anomalies.push(Anomaly::Misplaced { message, acknowledged, place });
            }
        }
    }

    fn losses(&self, group: &str, verdict: &mut Verdict) {
        let nothing = BTreeSet::new();
        let seen = self.seen.get(group).unwrap_or(&nothing);
        for (message, send) in &self.sends {
            if send.fate == Fate::Done && !seen.contains(message) {
                let group = group.to_owned();
                verdict.anomalies.push(Anomaly::Lost { group, message: *message });
            }
        }
        let by_anyone: BTreeSet<Message> = self.seen.values().flatten().copied().collect();
        for message in by_anyone.difference(seen) {
            // An acknowledged one is already reported as lost.
            if self.sends.get(message).is_none_or(|s| s.fate != Fate::Done) {
                let group = group.to_owned();
                verdict.anomalies.push(Anomaly::Vanished { group, message: *message });
            }
        }
    }

    fn gaps(&self, group: &str, verdict: &mut Verdict) {
        let mut offsets: BTreeMap<&Queue, BTreeSet<u64>> = BTreeMap::new();
        for receive in self.receives.iter().filter(|r| r.group == group) {
            if let Some(place) = receive.place {
                offsets.entry(&place.queue).or_default().insert(place.offset);
            }
        }
        for (queue, offsets) in offsets {
            let end = offsets.last().copied().unwrap_or(0);
            for offset in (0..end).filter(|o| !offsets.contains(o)) {
                let (group, queue) = (group.to_owned(), queue.clone());
                verdict.anomalies.push(Anomaly::Gap { group, queue, offset });
            }
        }
    }

    fn resurrections(&self, verdict: &mut Verdict) {
        for receive in &self.receives {
            let acked = self.acked.get(&(receive.group, receive.message));
            if acked.is_some_and(|acked| *acked < receive.began) {
                let group = receive.group.to_owned();
                let message = receive.message;
                verdict.anomalies.push(Anomaly::Resurrected { group, message });
            }
        }
    }
}
