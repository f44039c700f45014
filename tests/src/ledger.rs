//! The common book of all clients of one test: one clock, one history.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use jepsen::{Action, Event, Fate, History, Message, Verdict};

/// What every client of a test did so far.
#[derive(Debug)]
pub struct Ledger {
    start: Instant,
    book: Mutex<Book>,
}

/// The history, and what is asked of it again and again while it grows.
#[derive(Debug, Default)]
struct Book {
    history: History,
    acknowledged: HashSet<Message>,
    received: HashMap<String, HashSet<Message>>,
}

impl Ledger {
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no holder panics")
    }

    /// Nanoseconds since the ledger was opened.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a test ends within 500 years")
    }

    /// Enters what began at `began` and has just ended.
    pub fn record(&self, began: u64, action: Action) {
        let mut book = self.book();
        match &action {
            Action::Send { message, fate: Fate::Done, .. } => {
                book.acknowledged.insert(*message);
            }
            Action::Receive { group, message, .. } => {
                book.received.entry(group.clone()).or_default().insert(*message);
            }
            Action::Send { .. }
            | Action::Ack { .. }
            | Action::Garbage { .. }
            | Action::Fault { .. } => {}
        }
        // Taken under the lock, so that the history is in the order of its ends.
        let ended = self.now();
        book.history.record(Event { began, ended, action });
    }

    /// Notes a fault for the reader of the history.
    pub fn fault(&self, what: impl Into<String>) {
        self.record(self.now(), Action::Fault { what: what.into() });
    }

    /// How many messages were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.book().acknowledged.len()
    }

    /// How many different messages `group` received so far.
    #[must_use]
    pub fn received(&self, group: &str) -> usize {
        self.book().received.get(group).map_or(0, HashSet::len)
    }

    /// Messages that were acknowledged and that `group` did not receive yet.
    #[must_use]
    pub fn missing(&self, group: &str) -> Vec<Message> {
        let book = self.book();
        match book.received.get(group) {
            Some(received) => book.acknowledged.difference(received).copied().collect(),
            None => book.acknowledged.iter().copied().collect(),
        }
    }

    /// Judges what happened so far; `complete` names the groups that read to the end.
    #[must_use]
    pub fn verdict(&self, complete: &[&str]) -> Verdict {
        jepsen::check(&self.book().history, complete)
    }

    /// The whole history, for an artefact.
    #[must_use]
    pub fn history(&self) -> History {
        self.book().history.clone()
    }

    /// # Panics
    /// When anything happened that must not.
    pub fn must_hold(&self, complete: &[&str]) -> Verdict {
        let verdict = self.verdict(complete);
        assert!(verdict.holds(), "{verdict}");
        verdict
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}
