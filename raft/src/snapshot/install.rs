//! Replaces the log and the state of this node by those of a snapshot that has arrived whole.
//!
//! ```text
//!   assembled/ ─rename─▶ installing/ : log replaced : state replaced ─rename─▶ <index>-<term>/
//! ```
//! A crash before the first rename leaves the node as it was. After it, the next start does what is
//! left: each step can be done again.

use std::path::Path;
use std::sync::mpsc;

use commitlog::position::{LogId, LogOffset};
use commitlog::{CommitLog, Replacement, incoming_name};

use super::manifest::Manifest;
use super::store::{LOG, STATE, Store};
use super::{Error, files};
use crate::{Applied, ApplyError};

/// What an installation changes.
pub(crate) struct Target<'a> {
    pub(crate) store: &'a Store,
    pub(crate) log: &'a CommitLog,
    /// The directory of `log`.
    pub(crate) log_dir: &'a Path,
    pub(crate) state: &'a mut dyn Installs,
}

/// A state that can be replaced.
pub(crate) trait Installs: Send {
    fn applied(&self) -> Applied;
    fn install(&mut self, from: &Path) -> Result<(), ApplyError>;
}

/// How node and log stand afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    /// The state is as of this entry.
    pub(crate) last: LogId,
    /// Where the log ends, and the stamp there.
    pub(crate) log_last: LogId,
    pub(crate) log_stamp: u64,
}

/// Done up to here, durably. Tests stop at each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Noted,
    SegmentsLinked,
    LogReplaced,
    StateReplaced,
    SegmentsRemoved,
    Adopted,
}

impl Step {
    #[cfg(test)]
    pub(crate) const ALL: [Step; 6] = [
        Step::Noted,
        Step::SegmentsLinked,
        Step::LogReplaced,
        Step::StateReplaced,
        Step::SegmentsRemoved,
        Step::Adopted,
    ];
}

type Steps<'a> = &'a mut dyn FnMut(Step) -> Result<(), Error>;

/// Installs the snapshot in the directory `arrived`. Blocks.
pub(crate) fn install(target: Target<'_>, arrived: &Path) -> Result<Installed, Error> {
    install_in_steps(target, arrived, &mut |_| Ok(()))
}

fn install_in_steps(
    target: Target<'_>,
    arrived: &Path,
    step: Steps<'_>,
) -> Result<Installed, Error> {
    files::rename(arrived, &target.store.installing())?;
    step(Step::Noted)?;
    finish_in_steps(target, step)
}

/// Finishes an installation that a stop interrupted; `None` if there is none. Blocks.
pub(crate) fn finish(target: Target<'_>) -> Result<Option<Installed>, Error> {
    if !target.store.installing().exists() {
        return Ok(None);
    }
    tracing::info!("finishing the installation of a snapshot");
    finish_in_steps(target, &mut |_| Ok(())).map(Some)
}

fn finish_in_steps(target: Target<'_>, step: Steps<'_>) -> Result<Installed, Error> {
    let Target { store, log, log_dir, state } = target;
    let dir = store.installing();
    let manifest = Manifest::load(&dir)?;
    let last = manifest.last;
    if holds(log, last)? {
        // Everything from the floor on is here, since the log reaches back to this node's floor.
        log.set_committed(last.index);
    } else {
        let end = manifest.log_end.ok_or(Error::Malformed("no end of the log"))?;
        let first = link_segments(log_dir, &dir.join(LOG))?;
        step(Step::SegmentsLinked)?;
        replace_log(log, Replacement { first, end, last })?;
    }
    step(Step::LogReplaced)?;
    if state.applied().log_id < Some(last) {
        state.install(&dir.join(STATE))?;
    }
    let found = state.applied().log_id;
    if found < Some(last) {
        return Err(Error::OtherState { expected: last, found });
    }
    step(Step::StateReplaced)?;
    files::remove_dir(&dir.join(LOG))?;
    step(Step::SegmentsRemoved)?;
    store.adopt(&dir, manifest)?;
    step(Step::Adopted)?;
    let log_last = log.state().last.unwrap_or(last);
    let frames = log.reader().frames(log_last.index..log_last.index.next(), 0)?;
    let log_stamp = frames.first().map_or(0, |frame| frame.record.stamp);
    Ok(Installed { last, log_last, log_stamp })
}

/// Whether the log holds this very entry, and with it everything before that is not purged.
pub(crate) fn holds(log: &CommitLog, id: LogId) -> Result<bool, Error> {
    match log.reader().frames(id.index..id.index.next(), 0) {
        Ok(frames) => Ok(frames.first().is_some_and(|frame| frame.record.log_id == id)),
        Err(commitlog::Error::Purged { .. }) => Ok(false),
        // What a snapshot brings is what makes it good.
        Err(error @ commitlog::Error::Corrupt { .. }) => {
            tracing::warn!(%error, "a damaged entry does not count");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts the segments in `from` beside the log's own; returns the lowest base.
fn link_segments(log_dir: &Path, from: &Path) -> Result<LogOffset, Error> {
    let mut first = None;
    for (name, path) in files::list(from)? {
        let digits = name.strip_suffix(".seg").ok_or(Error::Malformed("a strange segment"))?;
        let base = digits.parse().map_err(|_| Error::Malformed("a strange segment"))?;
        let incoming = log_dir.join(incoming_name(LogOffset(base)));
        files::remove_file(&incoming)?;
        files::link(&path, &incoming)?;
        first.get_or_insert(LogOffset(base));
    }
    files::sync_dir(log_dir)?;
    first.ok_or(Error::Malformed("no segments"))
}

fn replace_log(log: &CommitLog, with: Replacement) -> Result<(), Error> {
    let (sender, done) = mpsc::channel();
    let replaced = Box::new(move |result| {
        // The receiver waits below.
        let _ = sender.send(result);
    });
    log.replace(with, replaced)?;
    done.recv().map_err(|_gone| Error::LogStopped)??;
    Ok(())
}

#[cfg(test)]
#[path = "install_test.rs"]
mod tests;
