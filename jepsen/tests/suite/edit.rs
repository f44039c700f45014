//! Changes to a recorded history.

use jepsen::history::{
    Answer, Body, Call, Delivery, Entry, Event, Failure, Message, Op, Outcome, Process, Record,
};

use crate::world::{History, MS};

/// A history under the knife. Operations are found in the record as it was; events keep their
/// places until the history is closed.
pub struct Edit {
    history: History,
    pub record: Record,
    removed: Vec<u64>,
    added: u64,
}

impl Edit {
    pub fn of(history: &History) -> Self {
        let record = Record::of(history.events.iter().cloned()).expect("a paired history");
        Self { history: history.clone(), record, removed: Vec::new(), added: 0 }
    }

    /// The changed history.
    pub fn close(mut self) -> History {
        let removed = self.removed;
        self.history.events.retain(|e| !removed.contains(&e.index));
        self.history.ordered()
    }

    pub fn plan(&mut self) -> &mut jepsen::history::Plan {
        &mut self.history.plan
    }

    /// The operation in the middle of those that `wanted` likes.
    pub fn find(&self, wanted: impl Fn(&Op) -> bool) -> Op {
        let all: Vec<&Op> = self.record.ops.iter().filter(|op| wanted(op)).collect();
        assert!(!all.is_empty(), "no operation to change");
        all[all.len() / 2].clone()
    }

    pub fn all(&self, wanted: impl Fn(&Op) -> bool) -> Vec<Op> {
        self.record.ops.iter().filter(|op| wanted(op)).cloned().collect()
    }

    pub fn event(&mut self, index: u64) -> &mut Event {
        let place = usize::try_from(index).expect("a place");
        &mut self.history.events[place]
    }

    pub fn events(&mut self) -> &mut Vec<Event> {
        &mut self.history.events
    }

    pub fn call(&mut self, op: &Op) -> &mut Call {
        match &mut self.event(op.index).body {
            Body::Invoke { call, .. } => call,
            other => panic!("{other:?} is no invocation"),
        }
    }

    pub fn answer(&mut self, op: &Op) -> &mut Answer {
        match &mut self.event(op.completion.expect("it ended")).body {
            Body::Ok(answer) => answer,
            other => panic!("{other:?} is no answer"),
        }
    }

    pub fn remove(&mut self, op: &Op) {
        self.removed.push(op.index);
        self.removed.extend(op.completion);
    }

    /// Its caller was told that it never happened.
    pub fn fail(&mut self, op: &Op) {
        let name = op.call.name().to_owned();
        let failure = Failure { code: 50_002, text: "changed".into() };
        self.event(op.completion.expect("it ended")).body = Body::Fail { name, failure };
    }

    /// One more operation, by a client of its own.
    pub fn insert(&mut self, began: u64, ended: u64, call: Call, outcome: Outcome) {
        self.added += 1;
        let process = Process::Client(900_000 + self.added);
        let name = call.name().to_owned();
        let body = match outcome {
            Outcome::Ok(answer) => Body::Ok(answer),
            Outcome::Failed(failure) => Body::Fail { name, failure },
            Outcome::Unknown(failure) => Body::Info { name, failure },
        };
        let index = self.history.events.len() as u64;
        let invoke = Body::Invoke { call, node: None };
        self.history.events.push(Event { index, time: began, process, body: invoke });
        self.history.events.push(Event { index: index + 1, time: ended, process, body });
    }

    /// One more delivery to a group. Returns its handle.
    pub fn deliver(
        &mut self,
        at: u64,
        group: &str,
        key: u32,
        id: Message,
        offset: Option<u64>,
    ) -> u64 {
        let (group, attempt_id) = (group.to_owned(), None);
        let call = Call::Receive { group, key, invisible_ms: 1_000, wait_ms: 0, attempt_id };
        let handle = 1_000_000 + self.added;
        let delivery = Delivery { id, offset, handle, attempt: 1 };
        let answer = Answer::Receive { deliveries: vec![delivery], corrupt: Vec::new() };
        self.insert(at, at + MS / 100, call, Outcome::Ok(answer));
        handle
    }

    /// Takes a message out of everything that a group (or all of them) received.
    pub fn undeliver(&mut self, group: Option<&str>, id: Message) {
        for op in self.receives(group, id) {
            self.deliveries(&op).retain(|d| d.id != id);
        }
    }

    /// A group never got a message, so that nobody acked it.
    pub fn withhold(&mut self, group: &str, id: Message) {
        self.undeliver(Some(group), id);
        let acks = self.all(|op| {
            matches!(&op.call, Call::Ack { group: of, id: acked, .. } if of == group && *acked == id)
        });
        acks.iter().for_each(|ack| self.remove(ack));
    }

    pub fn receives(&self, wanted: Option<&str>, id: Message) -> Vec<Op> {
        self.all(|op| {
            matches!(&op.call, Call::Receive { group, .. } if wanted.is_none_or(|w| w == group))
                && delivered(op).iter().any(|d| d.id == id)
        })
    }

    pub fn deliveries(&mut self, op: &Op) -> &mut Vec<Delivery> {
        match self.answer(op) {
            Answer::Receive { deliveries, .. } => deliveries,
            other => panic!("{other:?} is no receive"),
        }
    }

    pub fn entries(&mut self, op: &Op) -> &mut Vec<Entry> {
        match self.answer(op) {
            Answer::Poll { entries, .. } => entries,
            other => panic!("{other:?} is no poll"),
        }
    }

    /// Exchanges two messages wherever they were read, and their acknowledged offsets.
    pub fn exchange(&mut self, one: Message, two: Message) {
        let swap = |id: &mut Message| {
            *id = if *id == one {
                two
            } else if *id == two {
                one
            } else {
                *id
            };
        };
        let (at_one, at_two) = (self.offset(one), self.offset(two));
        for event in &mut self.history.events {
            match &mut event.body {
                Body::Ok(Answer::Poll { entries, .. }) => {
                    entries.iter_mut().for_each(|e| swap(&mut e.id));
                }
                Body::Ok(Answer::Receive { deliveries, .. }) => {
                    deliveries.iter_mut().for_each(|d| swap(&mut d.id));
                }
                _ => {}
            }
        }
        for (id, offset) in [(one, at_two), (two, at_one)] {
            let op = self.sent(id);
            *self.answer(&op) = Answer::Send { offsets: vec![offset] };
        }
        let lookups = self.all(|op| {
            matches!(&op.call, Call::Lookup { id, .. } if *id == one || *id == two) && op.is_ok()
        });
        lookups.iter().for_each(|op| self.remove(op));
    }

    /// The acknowledged send of one message.
    pub fn sent(&self, wanted: Message) -> Op {
        self.find(|op| sends(op).contains(&wanted) && op.is_ok())
    }

    pub fn offset(&self, id: Message) -> u64 {
        match self.sent(id).answer() {
            Some(Answer::Send { offsets }) => offsets[0],
            other => panic!("{other:?} names no offset"),
        }
    }
}

/// The messages that an operation sends.
pub fn sends(op: &Op) -> &[Message] {
    match &op.call {
        Call::Send { ids, .. } => ids,
        Call::Prepare { tx, .. } => std::slice::from_ref(tx),
        _ => &[],
    }
}

/// What a receive handed out.
pub fn delivered(op: &Op) -> &[Delivery] {
    match op.answer() {
        Some(Answer::Receive { deliveries, .. }) => deliveries,
        _ => &[],
    }
}

/// What a read of a log showed.
pub fn read(op: &Op) -> &[Entry] {
    match op.answer() {
        Some(Answer::Poll { entries, .. }) => entries,
        _ => &[],
    }
}
