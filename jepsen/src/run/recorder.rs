//! The one place through which everything gets into the history, with the one clock.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::history::{Body, Observation, Process, Writer};

/// How old evidence may be when this process dies.
const FLUSH: Duration = Duration::from_millis(250);

/// One event on its way to the file.
type Line = (u64, Process, Body);

/// Records events in the order of their times.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    to: Mutex<Option<Sender<Line>>>,
    writing: Mutex<Option<JoinHandle<Result<()>>>>,
}

impl Recorder {
    /// Time begins now.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let (to, from) = channel();
        let writing = std::thread::spawn(move || write(&from, file));
        Ok(Self {
            start: Instant::now(),
            to: Mutex::new(Some(to)),
            writing: Mutex::new(Some(writing)),
        })
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Records an event as of now; returns when that is. After [`Recorder::finish`] nothing is
    /// recorded.
    pub fn record(&self, process: Process, body: Body) -> u64 {
        // The time is taken under the lock: the order of the lines is that of the times.
        let to = self.to.lock().expect("no holder panics");
        let now = self.now();
        if let Some(to) = &*to {
            // A writer that is gone has a reason, and finish() tells it.
            let _ = to.send((now, process, body));
        }
        now
    }

    /// Records what was seen of the cluster.
    pub fn observe(&self, what: Observation) -> u64 {
        self.record(Process::Observer, Body::Observed(what))
    }

    /// Ends the history; fails if it could not be written.
    pub fn finish(&self) -> Result<()> {
        drop(self.to.lock().expect("no holder panics").take());
        let writing = self.writing.lock().expect("no holder panics").take();
        let writing = writing.context("the history has ended before")?;
        writing.join().map_err(|_| anyhow!("the writer of the history panicked"))?
    }
}

fn write(from: &Receiver<Line>, file: File) -> Result<()> {
    let mut writer = Writer::new(BufWriter::new(file));
    loop {
        match from.recv_timeout(FLUSH) {
            Ok((time, process, body)) => {
                writer.write(time, process, body)?;
            }
            Err(RecvTimeoutError::Timeout) => writer.flush()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(writer.flush()?),
        }
    }
}
