//! Members of a group that shares its queues out: registered for as long as their stream is open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::v2;
use tokio::task::JoinHandle;

use super::outcome::Failure;
use super::rpc::{Rpc, Telemetry};
use super::settings::puller;

/// One member, as the access point that it talks to knows it.
#[derive(Debug)]
struct Registration {
    rpc: Rpc,
    closed: Arc<AtomicBool>,
    reading: JoinHandle<()>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// The members that one client plays.
#[derive(Debug, Default)]
pub(super) struct Members {
    registered: BTreeMap<String, Registration>,
}

impl Members {
    /// The member's client at the access point of `rpc`, introduced there.
    pub(super) async fn introduced(
        &mut self,
        rpc: &Rpc,
        member: &str,
        group: &str,
        topics: &[String],
    ) -> Result<Rpc, Failure> {
        if let Some(known) = self.registered.get(member) {
            let open = !known.closed.load(Ordering::Relaxed);
            if open && known.rpc.address() == rpc.address() {
                known.rpc.heartbeat(Some(group), v2::ClientType::PullConsumer).await?;
                return Ok(known.rpc.clone());
            }
        }
        let rpc = Rpc::with_id(rpc.address(), member);
        let (_, telemetry) = rpc.telemetry(puller(group, topics)).await?;
        let closed = Arc::new(AtomicBool::new(false));
        let reading = tokio::spawn(read(telemetry, Arc::clone(&closed)));
        let registration = Registration { rpc: rpc.clone(), closed, reading };
        self.registered.insert(member.to_owned(), registration);
        Ok(rpc)
    }

    /// Says good-bye, through any access point.
    pub(super) async fn leave(
        &mut self,
        rpc: &Rpc,
        member: &str,
        group: &str,
    ) -> Result<(), Failure> {
        let rpc = Rpc::with_id(rpc.address(), member);
        let left = rpc.notify_client_termination(Some(group)).await;
        self.registered.remove(member);
        left
    }

    /// Is gone without a word.
    pub(super) fn crash(&mut self, member: &str) {
        self.registered.remove(member);
    }
}

/// Keeps the stream open by reading it.
async fn read(mut telemetry: Telemetry, closed: Arc<AtomicBool>) {
    while let Ok(Some(_)) = telemetry.down.message().await {}
    closed.store(true, Ordering::Relaxed);
}
