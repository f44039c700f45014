//! The common book of all clients of one test: one clock, one history.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Instant;

use jepsen::{Action, Event, Fate, History, Message, Verdict};

/// What every client of a test did so far.
#[derive(Debug)]
pub struct Ledger {
    start: Instant,
    history: Mutex<History>,
}

impl Ledger {
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), history: Mutex::default() }
    }

    /// Nanoseconds since the ledger was opened.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a test ends within 500 years")
    }

    /// Enters what began at `began` and has just ended.
    pub fn record(&self, began: u64, action: Action) {
        let event = Event { began, ended: self.now(), action };
        self.history.lock().expect("no holder panics").record(event);
    }

    /// Notes a fault for the reader of the history.
    pub fn fault(&self, what: impl Into<String>) {
        self.record(self.now(), Action::Fault { what: what.into() });
    }

    /// Messages that were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeSet<Message> {
        let history = self.history.lock().expect("no holder panics");
        let done = history.events().iter().filter_map(|event| match &event.action {
            Action::Send { message, fate: Fate::Done, .. } => Some(*message),
            _ => None,
        });
        done.collect()
    }

    /// Messages that `group` received so far.
    #[must_use]
    pub fn received(&self, group: &str) -> BTreeSet<Message> {
        let history = self.history.lock().expect("no holder panics");
        let received = history.events().iter().filter_map(|event| match &event.action {
            Action::Receive { group: g, message, .. } if g == group => Some(*message),
            _ => None,
        });
        received.collect()
    }

    /// Judges what happened so far; `complete` names the groups that read to the end.
    #[must_use]
    pub fn verdict(&self, complete: &[&str]) -> Verdict {
        jepsen::check(&self.history.lock().expect("no holder panics"), complete)
    }

    /// The whole history, for an artefact.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().expect("no holder panics").clone()
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
