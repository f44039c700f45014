//! Writes a history while it happens.

use std::io::{self, Write};

use crate::history::{Body, Event, Process};

/// Gives events their index and writes one line for each.
///
/// Times must not go backwards: a reader relies on the order of the lines.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    next: u64,
    last: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Self {
        Self { to, next: 0, last: 0 }
    }

    /// Writes one event and returns its index. What was written is in the hands of `W`: a run
    /// flushes every 250 ms, so that a harness that dies leaves evidence.
    ///
    /// # Panics
    /// When `time` lies before that of the event before.
    pub fn write(&mut self, time: u64, process: Process, body: Body) -> io::Result<u64> {
        assert!(self.last <= time, "time went back from {} to {time}", self.last);
        let index = self.next;
        let event = Event { index, time, process, body };
        writeln!(self.to, "{}", event.to_line())?;
        self.next += 1;
        self.last = time;
        Ok(index)
    }

    /// Hands everything to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// The end of the history: what it was written to.
    pub fn into_inner(self) -> W {
        self.to
    }
}
