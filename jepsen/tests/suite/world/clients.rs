//! What the clients of each workload do.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use jepsen::history::{Answer, Call, Change, Key, Message, Outcome, Resolution};
use rand::RngExt;
use rand::rngs::StdRng;

/// One client.
pub trait Client {
    /// What it asks next, if anything. `draining`: only what reads to the end.
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call>;
    /// What its ledger says of a transaction.
    fn resolution(&mut self, _tx: Message) -> Resolution {
        unreachable!("only tellers are asked")
    }
    /// How that ended.
    fn told(&mut self, _call: &Call, _outcome: &Outcome) {}
}

/// Sends, one by one or in batches, with or without a message group or a delay.
pub struct Producer {
    pub sender: u32,
    pub keys: u32,
    pub batches: bool,
    pub message_groups: u32,
    pub delay_from_wall_ms: Option<u64>,
    /// Sends again what it knows nothing of.
    pub again: bool,
    pub next: u32,
    pub repeat: Option<Call>,
    pub sent: Vec<Message>,
}

impl Producer {
    pub fn new(sender: u32, keys: u32) -> Self {
        Self {
            sender,
            keys,
            batches: false,
            message_groups: 0,
            delay_from_wall_ms: None,
            again: false,
            next: 0,
            repeat: None,
            sent: Vec::new(),
        }
    }

    fn id(&mut self) -> Message {
        self.next += 1;
        Message::new(self.sender, self.next)
    }
}

impl Client for Producer {
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        if draining {
            return None;
        }
        if let Some(call) = self.repeat.take() {
            return Some(call);
        }
        if self.delay_from_wall_ms.is_some() && !self.sent.is_empty() && random.random_bool(0.05) {
            let id = self.sent[random.random_range(0..self.sent.len())];
            return Some(Call::Recall { id });
        }
        let batch = if self.batches && random.random_bool(0.3) { 4 } else { 1 };
        let ids: Vec<Message> = (0..batch).map(|_| self.id()).collect();
        let key = random.random_range(0..self.keys);
        let wall = self.delay_from_wall_ms;
        let delay = random.random_range(200..4_000);
        let deliver_at = wall.map(|wall| wall + now / super::MS + delay);
        let message_group = (0 < self.message_groups).then(|| {
            let of = random.random_range(0..self.message_groups);
            format!("p{}-{of}", self.sender)
        });
        // A message group lives in one queue.
        let key = if message_group.is_some() { self.sender % self.keys } else { key };
        Some(Call::Send { key, ids, message_group, deliver_at })
    }

    fn told(&mut self, call: &Call, outcome: &Outcome) {
        match (call, outcome) {
            (Call::Send { ids, .. }, Outcome::Ok(_)) => self.sent.extend(ids),
            (Call::Send { .. }, Outcome::Unknown(_)) if self.again => {
                self.repeat = Some(call.clone());
            }
            _ => {}
        }
    }
}

/// Receives and acks, now and then late, or not at all.
pub struct Consumer {
    pub group: String,
    pub keys: u32,
    pub held: VecDeque<(Message, u64, bool)>,
    /// Has messages that it never gets done.
    pub poisoned: bool,
    pub dead_read: bool,
    pub turn: u32,
    pub receives: u32,
}

impl Consumer {
    pub fn new(group: &str, keys: u32) -> Self {
        Self {
            group: group.into(),
            keys,
            held: VecDeque::new(),
            poisoned: false,
            dead_read: false,
            turn: 0,
            receives: 0,
        }
    }
}

/// A message that its consumers never get done.
fn is_poison(id: Message) -> bool {
    id.count() % 97 == 41
}

impl Client for Consumer {
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        let group = self.group.clone();
        if let Some((id, handle, poison)) = self.held.pop_front() {
            let careless = !draining;
            if poison || careless && random.random_bool(0.05) {
                let invisible_ms = if random.random_bool(0.5) { 0 } else { 1_500 };
                return Some(Call::ChangeInvisible { group, id, handle, invisible_ms });
            }
            if careless && random.random_bool(0.03) {
                // It crashes with what it holds.
                self.held.clear();
                return None;
            }
            return Some(Call::Ack { group, id, handle });
        }
        if now > 43 * super::SECOND && !self.dead_read {
            self.dead_read = true;
            return Some(Call::DeadLetters { group });
        }
        self.turn += 1;
        self.receives += 1;
        let attempt_id = None;
        let key = self.turn % self.keys;
        Some(Call::Receive { group, key, invisible_ms: 1_000, wait_ms: 20, attempt_id })
    }

    fn told(&mut self, _: &Call, outcome: &Outcome) {
        if let Outcome::Ok(Answer::Receive { deliveries, .. }) = outcome {
            let poison = |id| self.poisoned && is_poison(id);
            self.held.extend(deliveries.iter().map(|d| (d.id, d.handle, poison(d.id))));
        }
    }
}

/// Reads a log by offset, from the beginning and from anywhere, and asks for its bounds.
pub struct Reader {
    pub keys: u32,
    pub group: Option<String>,
    pub commits: bool,
    pub next: BTreeMap<Key, u64>,
    pub lookups: Vec<(Key, Message)>,
    pub committed: BTreeMap<Key, u64>,
    pub resume: bool,
    pub seeks: bool,
}

impl Reader {
    pub fn new(keys: u32) -> Self {
        Self {
            keys,
            group: None,
            commits: false,
            next: BTreeMap::new(),
            lookups: Vec::new(),
            committed: BTreeMap::new(),
            resume: false,
            seeks: true,
        }
    }
}

impl Client for Reader {
    fn call(&mut self, _: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        let key = random.random_range(0..self.keys);
        let group = self.group.clone();
        let next = self.next.get(&key).copied().unwrap_or(0);
        if let (true, Some(group), false) = (self.commits, group.clone(), draining) {
            let committed = self.committed.get(&key).copied().unwrap_or(0);
            match random.random_range(0..4) {
                0 if committed < next => {
                    self.committed.insert(key, next);
                    return Some(Call::Commit { group, key, offset: next });
                }
                1 => return Some(Call::Query { group, key }),
                2 if self.resume => return Some(Call::Resume { group, key }),
                _ => {}
            }
        } else if self.seeks && !draining {
            match random.random_range(0..8) {
                0 => return Some(Call::MaxOffset { key }),
                1 => return Some(Call::MinOffset { key }),
                2 => {
                    let (key, id) = self.lookups.pop()?;
                    return Some(Call::Lookup { key, id });
                }
                3 => {
                    let from = random.random_range(0..=next);
                    self.next.insert(key, from);
                }
                _ => {}
            }
        }
        Some(Call::Poll { key, from: Some(next), group })
    }

    fn told(&mut self, call: &Call, outcome: &Outcome) {
        if let (Call::Poll { key, .. }, Outcome::Ok(Answer::Poll { entries, .. })) = (call, outcome)
            && let Some(last) = entries.last()
        {
            self.next.insert(*key, last.offset + 1);
            self.lookups.push((*key, last.id));
        }
    }
}

/// What producers of transactions decided.
#[derive(Default)]
pub struct Ledger {
    pub decided: BTreeMap<Message, Resolution>,
    /// Transactions whose producer fell silent, and since when.
    pub silent: Vec<(Message, u64)>,
}

/// Transfers money, and answers questions about transfers that fell silent.
pub struct Teller {
    pub sender: u32,
    pub keys: u32,
    pub next: u32,
    pub ledger: Rc<RefCell<Ledger>>,
    pub then: Option<Call>,
    pub now: u64,
}

impl Client for Teller {
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        self.now = now;
        match self.then.take() {
            Some(Call::Decide { tx, .. }) => {
                let commits = random.random_bool(0.7);
                let resolution = if commits { Resolution::Commit } else { Resolution::Rollback };
                self.ledger.borrow_mut().decided.insert(tx, resolution);
                return Some(Call::Decide { tx, resolution });
            }
            Some(end) => {
                if let (Call::End { tx, .. }, true) = (&end, random.random_bool(0.2)) {
                    self.ledger.borrow_mut().silent.push((*tx, now));
                    return None;
                }
                return Some(end);
            }
            None => {}
        }
        if draining {
            return None;
        }
        self.next += 1;
        let tx = Message::new(self.sender, self.next);
        let from = random.random_range(0..4);
        let (key, to) = (random.random_range(0..self.keys), (from + 1) % 4);
        Some(Call::Prepare { tx, key, from, to, amount: random.random_range(1..100) })
    }

    fn told(&mut self, call: &Call, outcome: &Outcome) {
        match (call, outcome) {
            (Call::Prepare { tx, .. }, Outcome::Ok(_)) => {
                let resolution = Resolution::Undecided;
                self.then = Some(Call::Decide { tx: *tx, resolution });
            }
            // Its half message may exist, and nobody will say what becomes of it.
            (Call::Prepare { tx, .. }, Outcome::Unknown(_)) => {
                self.ledger.borrow_mut().silent.push((*tx, self.now));
            }
            (Call::Decide { tx, resolution }, Outcome::Ok(_)) => {
                self.then = Some(Call::End { tx: *tx, resolution: *resolution });
            }
            (Call::End { tx, .. }, Outcome::Unknown(_) | Outcome::Failed(_)) => {
                self.ledger.borrow_mut().silent.push((*tx, self.now));
            }
            _ => {}
        }
    }
}

/// Is asked about what fell silent, and answers from the ledger.
pub struct Questions {
    pub ledger: Rc<RefCell<Ledger>>,
}

impl Client for Questions {
    fn call(&mut self, now: u64, _: bool, _: &mut StdRng) -> Option<Call> {
        let mut ledger = self.ledger.borrow_mut();
        let due = ledger.silent.iter().position(|(_, at)| at + super::broker::TIMEOUT < now)?;
        let (tx, _) = ledger.silent.remove(due);
        Some(Call::Check { tx })
    }

    fn resolution(&mut self, tx: Message) -> Resolution {
        *self.ledger.borrow_mut().decided.entry(tx).or_insert(Resolution::Rollback)
    }
}

/// Sets and asks for offsets, as registers.
pub struct Committer {
    pub group: String,
    pub keys: u32,
    pub next: Rc<RefCell<u64>>,
}

impl Client for Committer {
    fn call(&mut self, _: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        let (group, key) = (self.group.clone(), random.random_range(0..self.keys));
        if draining || random.random_bool(0.5) {
            return Some(Call::Query { group, key });
        }
        let mut next = self.next.borrow_mut();
        *next += 1;
        Some(Call::Commit { group, key, offset: *next })
    }
}

/// Joins and leaves, and asks what it has to read.
pub struct Member {
    pub group: String,
    pub member: String,
    pub inside: bool,
    pub stays: bool,
}

impl Client for Member {
    fn call(&mut self, now: u64, _: bool, random: &mut StdRng) -> Option<Call> {
        let (group, member) = (self.group.clone(), self.member.clone());
        let moves = !self.stays && now < 12 * super::SECOND && random.random_bool(0.01);
        if self.inside && !moves {
            return random.random_bool(0.2).then_some(Call::Assignment { group, member });
        }
        let change = match (self.inside, random.random_bool(0.5)) {
            (false, _) => Change::Join,
            (true, true) => Change::Leave,
            (true, false) => Change::Crash,
        };
        self.inside = !self.inside;
        Some(Call::Member { group, member, change })
    }
}

/// Changes and reads settings, topics and routes.
pub struct Administrator {
    pub number: u64,
    pub next: u64,
    pub mine: Vec<u64>,
}

impl Client for Administrator {
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        let register = format!("setting-{}", now / (3 * super::SECOND));
        let set = String::from("topics");
        self.next += 1;
        let element = self.number * 10_000 + self.next;
        Some(match random.random_range(0..8) {
            _ if draining => Call::List { set },
            0 => Call::Write { register, value: random.random_range(0..5) },
            1 => {
                let (expected, value) = (random.random_range(0..5), random.random_range(0..5));
                Call::Cas { register, expected, value }
            }
            2 | 3 => Call::Read { register },
            4 => {
                self.mine.push(element);
                Call::Add { set, element }
            }
            5 if 3 < self.mine.len() => {
                let element = self.mine.swap_remove(random.random_range(0..self.mine.len()));
                Call::Remove { set, element }
            }
            6 => Call::Route { topic: "orders".into() },
            _ => Call::List { set },
        })
    }
}
