//! The clients of this access point, shared by its requests and its sessions.

use std::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use proto::{ClientId, v2::TelemetryCommand};
use tokio::sync::watch;
use tracing::debug;

use crate::clients::{Clients, Full, Identity, Outbound, StreamId};

/// [`Clients`] behind a lock, with a signal for the sessions.
#[derive(Debug)]
pub(crate) struct Registry {
    clients: Mutex<Clients>,
    changes: watch::Sender<u64>,
}

impl Registry {
    pub(crate) fn new(max: usize) -> Self {
        Self { clients: Mutex::new(Clients::new(max)), changes: watch::Sender::new(0) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().expect("no holder panics")
    }

    /// Wakes the sessions: there may be news.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn bump(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn heard(&self, id: &ClientId) {
        self.lock().heard(id, Instant::now());
    }

    pub(crate) fn register(&self, id: &ClientId, identity: Identity) -> Result<(), Full> {
        if self.lock().register(id, identity, Instant::now())? {
            self.bump();
        }
        Ok(())
    }

    pub(crate) fn attach(&self, id: &ClientId, outbound: Outbound) -> Result<StreamId, Full> {
        self.lock().attach(id, outbound, Instant::now())
    }

    pub(crate) fn detach(&self, id: &ClientId, stream: StreamId) {
        self.lock().detach(id, stream);
    }

    pub(crate) fn terminate(&self, id: &ClientId, group: &str) {
        self.lock().terminate(id, group);
        self.bump();
    }

    pub(crate) fn lost(&self, id: &ClientId) {
        self.lock().lost(id);
        self.bump();
    }

    pub(crate) fn expire(&self) {
        let gone = self.lock().expire(Instant::now());
        if gone > 0 {
            debug!(gone, "clients were silent for too long");
            self.bump();
        }
    }

    /// Hands a command to a client's stream. False when it has none here, or does not read.
    pub(crate) fn command(&self, id: &str, command: TelemetryCommand) -> bool {
        let outbound = self.lock().outbound(id);
        outbound.is_some_and(|outbound| outbound.try_send(Ok(command)).is_ok())
    }
}
