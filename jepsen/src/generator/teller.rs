//! Transfers money by transactions, and answers questions about those that fell silent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Client, Keys};
use crate::history::{Call, Message, Outcome, Resolution};

/// Of the transactions, this share commits.
const COMMITS: f64 = 0.7;
/// Of the producers that decided, this share says nothing and waits to be asked.
const SILENT: f64 = 0.2;
const ACCOUNTS: u32 = 4;
/// Of so many transactions, one producer asks for the opposite of what it was just told is done.
const CONTRARY: u64 = 8;

/// What producers of transactions decided: their own book, which survives everything.
#[derive(Debug, Default)]
pub struct Ledger {
    decided: BTreeMap<Message, Resolution>,
    /// Transactions whose producer fell silent, and since when.
    silent: Vec<(Message, u64)>,
}

impl Ledger {
    /// What was decided of a transaction; one that nobody decided is rolled back from now on.
    pub fn resolve(&mut self, tx: Message) -> Resolution {
        *self.decided.entry(tx).or_insert(Resolution::Rollback)
    }
}

fn open(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("no holder panics")
}

/// A producer of transactions.
#[derive(Debug)]
pub struct Teller {
    sender: u32,
    keys: Keys,
    next: u32,
    ledger: Arc<Mutex<Ledger>>,
    then: Option<Call>,
    /// The opposite of an end that was confirmed: it has to be refused.
    contrary: Option<Call>,
    now: u64,
}

impl Teller {
    #[must_use]
    pub fn new(sender: u32, keys: Keys, ledger: &Arc<Mutex<Ledger>>) -> Self {
        Self {
            sender,
            keys,
            next: 0,
            ledger: Arc::clone(ledger),
            then: None,
            contrary: None,
            now: 0,
        }
    }
}

impl Client for Teller {
    fn call(&mut self, now: u64, draining: bool, random: &mut StdRng) -> Option<Call> {
        self.now = now;
        if let Some(contrary) = self.contrary.take() {
            return Some(contrary);
        }
        match self.then.take() {
            Some(Call::Decide { tx, .. }) => {
                let commits = random.random_bool(COMMITS);
                let resolution = if commits { Resolution::Commit } else { Resolution::Rollback };
                // Who was asked before it decided has answered for it.
                let resolution = *open(&self.ledger).decided.entry(tx).or_insert(resolution);
                return Some(Call::Decide { tx, resolution });
            }
            Some(end) => {
                if let (Call::End { tx, .. }, true) = (&end, random.random_bool(SILENT)) {
                    open(&self.ledger).silent.push((*tx, now));
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
        let from = random.random_range(0..ACCOUNTS);
        let key = self.keys.nth(random.random_range(0..self.keys.count));
        let to = (from + 1) % ACCOUNTS;
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
                open(&self.ledger).silent.push((*tx, self.now));
            }
            (Call::Decide { tx, resolution }, Outcome::Ok(_)) => {
                self.then = Some(Call::End { tx: *tx, resolution: *resolution });
            }
            (Call::End { tx, resolution }, _)
                if open(&self.ledger).decided.get(tx) != Some(resolution) => {}
            (Call::End { tx, resolution }, Outcome::Ok(_)) if tx.count() % CONTRARY == 3 => {
                let resolution = match resolution {
                    Resolution::Commit => Resolution::Rollback,
                    Resolution::Rollback | Resolution::Undecided => Resolution::Commit,
                };
                self.contrary = Some(Call::End { tx: *tx, resolution });
            }
            (Call::End { tx, .. }, Outcome::Unknown(_) | Outcome::Failed(_)) => {
                open(&self.ledger).silent.push((*tx, self.now));
            }
            _ => {}
        }
    }
}

/// Is asked about what fell silent, by a cluster that asks `after` ns, and answers from the ledger.
#[derive(Debug)]
pub struct Questions {
    pub ledger: Arc<Mutex<Ledger>>,
    pub after: u64,
}

impl Client for Questions {
    fn call(&mut self, now: u64, _: bool, _: &mut StdRng) -> Option<Call> {
        let mut ledger = open(&self.ledger);
        let due = ledger.silent.iter().position(|(_, at)| at + self.after < now)?;
        let (tx, _) = ledger.silent.remove(due);
        Some(Call::Check { tx })
    }

    fn resolution(&mut self, tx: Message) -> Resolution {
        open(&self.ledger).resolve(tx)
    }
}
