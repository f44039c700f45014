//! The ways to clients: which access points a client was announced by, and commands on their way
//! down to it.
//!
//! A command counts as handed over when the access point says that the client's stream took it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use proto::{
    ClientId,
    session::{Down, ToClient, down},
    v2::TelemetryCommand,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tonic::Status;

/// An access point that does not say by then what became of a command has not handed it over.
const RECEIPT_WAIT: Duration = Duration::from_secs(2);

/// The way down to one access point.
pub type DownSender = mpsc::Sender<Result<Down, Status>>;

/// Tells sessions of access points apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) u64);

/// All sessions of this leader.
#[derive(Debug, Default)]
pub struct Couriers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: BTreeMap<SessionId, Session>,
    /// Commands whose receipts are waited for.
    receipts: HashMap<u64, oneshot::Sender<bool>>,
    /// Of sessions and commands.
    last: u64,
}

#[derive(Debug)]
struct Session {
    down: DownSender,
    clients: HashSet<ClientId>,
}

impl Couriers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    /// An access point opened a session.
    pub fn open(&self, down: DownSender) -> SessionId {
        let mut inner = self.lock();
        inner.last += 1;
        let id = SessionId(inner.last);
        inner.sessions.insert(id, Session { down, clients: HashSet::new() });
        id
    }

    /// The session is over.
    pub fn close(&self, id: SessionId) {
        self.lock().sessions.remove(&id);
    }

    /// The access point knows this client.
    pub fn met(&self, id: SessionId, client: ClientId) {
        if let Some(session) = self.lock().sessions.get_mut(&id) {
            session.clients.insert(client);
        }
    }

    /// It knows the client no more.
    pub fn left(&self, id: SessionId, client: &ClientId) {
        if let Some(session) = self.lock().sessions.get_mut(&id) {
            session.clients.remove(client);
        }
    }

    /// An access point says what became of a command.
    pub fn receipt(&self, nonce: u64, handed: bool) {
        if let Some(waiting) = self.lock().receipts.remove(&nonce) {
            // Whoever asked may have given up.
            let _ = waiting.send(handed);
        }
    }

    /// Hands a command to the client's stream, at whatever access point that is. False when no
    /// stream took it in time. Bounded by [`RECEIPT_WAIT`] for each access point.
    pub async fn hand(&self, client: &ClientId, command: &TelemetryCommand) -> bool {
        for down in self.ways_to(client) {
            if self.hand_by(&down, client, command).await {
                return true;
            }
        }
        false
    }

    /// The newest session first: a client that moved is at its new access point.
    fn ways_to(&self, client: &ClientId) -> Vec<DownSender> {
        let inner = self.lock();
        let known = inner.sessions.values().rev().filter(|s| s.clients.contains(client));
        known.map(|session| session.down.clone()).collect()
    }

    async fn hand_by(
        &self,
        down: &DownSender,
        client: &ClientId,
        command: &TelemetryCommand,
    ) -> bool {
        let (told, receipt) = oneshot::channel();
        let nonce = {
            let mut inner = self.lock();
            inner.last += 1;
            let nonce = inner.last;
            inner.receipts.insert(nonce, told);
            nonce
        };
        let to = ToClient { client_id: client.to_string(), command: Some(command.clone()), nonce };
        let exchange = async {
            down.send(Ok(Down { event: Some(down::Event::Command(to)) })).await.ok()?;
            receipt.await.ok()
        };
        let handed = timeout(RECEIPT_WAIT, exchange).await.ok().flatten();
        self.lock().receipts.remove(&nonce);
        handed.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn client(id: &str) -> ClientId {
        id.parse().expect("a client id")
    }

    fn nonce(down: Option<Result<Down, Status>>) -> u64 {
        match down.expect("open").expect("no error").event {
            Some(down::Event::Command(to)) => to.nonce,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_command_is_handed_over_when_an_access_point_says_so() {
        let couriers = Arc::new(Couriers::default());
        let (old_down, mut old) = mpsc::channel(1);
        let (new_down, mut new) = mpsc::channel(1);
        let (first, second) = (couriers.open(old_down), couriers.open(new_down));
        couriers.met(first, client("a"));
        couriers.met(second, client("a"));
        let asking = Arc::clone(&couriers);
        let asked =
            tokio::spawn(async move { asking.hand(&client("a"), &Default::default()).await });
        couriers.receipt(nonce(new.recv().await), false);
        couriers.receipt(nonce(old.recv().await), true);
        assert!(asked.await.expect("no panic"));
        assert!(couriers.lock().receipts.is_empty());
    }

    #[tokio::test]
    async fn nobody_takes_a_command_for_a_client_that_is_not_there() {
        let couriers = Couriers::default();
        let (down, mut incoming) = mpsc::channel(1);
        let session = couriers.open(down);
        couriers.met(session, client("a"));
        assert!(!couriers.hand(&client("b"), &Default::default()).await);
        couriers.left(session, &client("a"));
        assert!(!couriers.hand(&client("a"), &Default::default()).await);
        couriers.met(session, client("a"));
        couriers.close(session);
        assert!(!couriers.hand(&client("a"), &Default::default()).await);
        assert!(incoming.recv().await.is_none());
    }
}
