//! What happened, in the order in which it was recorded: one event per line when written to a file.
//!
//! Times are nanoseconds of one monotonic clock, so that "after" means after for every client of
//! one run.

use std::fmt;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

/// One message of a run. The sender's number is in the upper half, its count in the lower, so that
/// ids are unique over all senders and ordered within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Message(pub u64);

impl Message {
    /// The `count`-th message of `sender`.
    #[must_use]
    pub fn new(sender: u32, count: u32) -> Self {
        Self(u64::from(sender) << 32 | u64::from(count))
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(self) -> u64 {
        self.0 >> 32
    }

    /// Which of the sender's messages it is.
    #[must_use]
    pub fn count(self) -> u64 {
        self.0 & 0xffff_ffff
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sender(), self.count())
    }
}

/// One queue of one topic in one broker group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Queue {
    pub topic: String,
    pub broker: String,
    pub id: u32,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}[{}]", self.topic, self.broker, self.id)
    }
}

/// Where a message lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    pub queue: Queue,
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.queue, self.offset)
    }
}

/// How an operation ended, as far as its caller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It happened.
    Done,
    /// It did not happen and never will.
    Refused,
    /// It may have happened, or may yet.
    Unknown,
}

/// What one client did, recorded when it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "snake_case")]
pub enum Action {
    /// A send. `offset` is what the acknowledgement named; clients that do not show it leave it out.
    Send { message: Message, fate: Fate, offset: Option<u64> },
    /// A delivery. `place` is absent where the client library does not show it.
    Receive { group: String, message: Message, place: Option<Place>, attempt: u32 },
    /// An acknowledgement of a delivery.
    Ack { group: String, message: Message, fate: Fate },
    /// A delivery that is no message of this run, or whose body was changed.
    Garbage { group: String, what: String },
    /// What was done to the cluster, for the reader of the file.
    Fault { what: String },
}

/// An action with the time in which it took place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Before the first byte was sent, in ns.
    pub began: u64,
    /// After the last byte was read, in ns.
    pub ended: u64,
    #[serde(flatten)]
    pub action: Action,
}

/// A history file that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("write the history")]
    Write(#[source] io::Error),
    #[error("read the history")]
    Read(#[source] io::Error),
    #[error("history line {line} is no event")]
    Line { line: usize, source: serde_json::Error },
}

/// All events of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Appends one event.
    pub fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    /// The events in the order of their recording.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Writes one JSON object per line.
    pub fn write(&self, mut to: impl Write) -> Result<(), Error> {
        for event in &self.events {
            let line = serde_json::to_string(event).map_err(|e| Error::Write(e.into()))?;
            writeln!(to, "{line}").map_err(Error::Write)?;
        }
        to.flush().map_err(Error::Write)
    }

    /// Reads what [`History::write`] wrote. A line that is no event is an error, not skipped.
    pub fn read(from: impl BufRead) -> Result<Self, Error> {
        let mut events = Vec::new();
        for (number, line) in from.lines().enumerate() {
            let line = line.map_err(Error::Read)?;
            let event = serde_json::from_str(&line)
                .map_err(|source| Error::Line { line: number + 1, source })?;
            events.push(event);
        }
        Ok(Self { events })
    }
}

impl FromIterator<Event> for History {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        Self { events: events.into_iter().collect() }
    }
}
