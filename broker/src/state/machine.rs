//! The state as consensus sees it.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use commitlog::position::LogOffset;
use raft::{ApplyError, Checkpoint, CheckpointError, Entry, Scrub, StateMachine};

use super::State;
use crate::command::{Effect, Outcome};
use crate::kv::{self, Kv};

/// Applies the log to a [`State`] that others can read meanwhile.
pub struct Machine {
    state: SharedState,
    on_effects: Box<Listener>,
}

type Listener = dyn Fn(&[Effect]) + Send + Sync;

/// A state to read from. Reads see whole calls of `apply`, and hold up the next one: be short, and
/// never wait while the guard is held.
#[derive(Debug, Clone)]
pub struct SharedState(Arc<RwLock<State>>);

impl SharedState {
    /// # Panics
    /// An apply has panicked; the process is on its way down.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().expect("apply does not panic")
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().expect("apply does not panic")
    }
}

impl Machine {
    /// The state that the store holds, over a log with segments of `segment` bytes. `on_effects` is told what happened after each call of
    /// `apply`, on its thread; it must be quick, and may read the state.
    ///
    /// # Errors
    /// The store cannot be read, is damaged, or was written by a version that this one cannot read.
    pub fn open(
        kv: Arc<dyn Kv>,
        segment: u64,
        on_effects: impl Fn(&[Effect]) + Send + Sync + 'static,
    ) -> Result<Self, kv::Error> {
        let state = SharedState(Arc::new(RwLock::new(State::open(kv, segment)?)));
        Ok(Self { state, on_effects: Box::new(on_effects) })
    }

    #[must_use]
    pub fn state(&self) -> SharedState {
        self.state.clone()
    }
}

impl SharedState {
    /// Makes everything applied so far durable: after a planned stop nothing is applied again.
    ///
    /// # Errors
    /// The store failed.
    pub fn flush(&self) -> Result<(), kv::Error> {
        self.write().flush()
    }
}

impl StateMachine for Machine {
    type Outcome = Outcome;

    fn applied(&self) -> raft::Applied {
        let state = self.state.read();
        raft::Applied { log_id: state.applied(), membership: state.membership().cloned() }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Vec<Outcome>>, ApplyError> {
        let applied = self.state.write().apply(entries).map_err(ApplyError::new)?;
        if !applied.effects.is_empty() {
            (self.on_effects)(&applied.effects);
        }
        Ok(applied.outcomes)
    }

    fn floor(&self) -> LogOffset {
        self.state.read().floor()
    }

    fn checkpoint(&self) -> Checkpoint {
        let kv = self.state.read().store();
        Box::new(move |into| {
            let mut applied = raft::Applied::default();
            let copied = kv.checkpoint(into, &mut |copy| {
                applied.log_id = kv::Frontier::load(copy)?.applied;
                applied.membership = kv::membership::load(copy)?;
                Ok(())
            });
            copied.map_err(CheckpointError::new)?;
            Ok(applied)
        })
    }

    fn scrub(&self) -> Option<Scrub> {
        let kv = self.state.read().store();
        let mut left = kv::Family::ALL.into_iter();
        let mut at = left.next().map(|family| (family, Vec::new()));
        Some(Box::new(move |bytes| {
            let mut read = 0;
            while let Some((family, from)) = at.take() {
                let (more, next) = kv.reread(family, &from, bytes).map_err(ApplyError::new)?;
                read += more;
                at = match next {
                    Some(next) => Some((family, next)),
                    None => left.next().map(|family| (family, Vec::new())),
                };
                if read > 0 {
                    break;
                }
            }
            Ok(read)
        }))
    }

    fn install(&mut self, from: &Path) -> Result<(), ApplyError> {
        let mut state = self.state.write();
        let kv = state.store();
        kv.restore(from).map_err(ApplyError::new)?;
        *state = State::open(kv, state.segment()).map_err(ApplyError::new)?;
        Ok(())
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("applied", &self.applied()).finish_non_exhaustive()
    }
}
