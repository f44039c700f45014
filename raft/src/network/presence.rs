//! Who is there: what each peer last said about itself, and whether its process lives.
//!
//! To each peer a call is held open whose end shows at once that a connection broke. What that
//! means is found out by dialling again: refused means that nobody listens there any more, another
//! boot id means another process, anything else may be the network.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::raft_rpc as rpc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::auth::{self, Method};
use super::hello::hello;
use super::links::Link;
use crate::bootstrap::decision::Heard;
use crate::failure::Failure;
use crate::local::{self, Local};
use crate::{DiskSpace, NodeId, Refusal};

/// How long a peer may take to answer who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause between attempts while a group forms, and before a lost peer is dialled again.
const POLL: Duration = Duration::from_millis(100);
/// A peer that was there a moment ago is dialled at this pace, for this long: whether its process
/// is gone decides how soon a new leader is elected.
const EAGER_POLL: Duration = Duration::from_millis(15);
const EAGER_FOR: Duration = Duration::from_secs(2);

/// What is known of a peer's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// Not heard of, or the connection broke and dialling gives no clear answer.
    Unknown,
    /// Connected to the process with this boot id.
    Alive { boot_id: u64 },
    /// Nobody listens at its address.
    Refused,
}

#[derive(Debug, Clone)]
struct Peer {
    process: Process,
    heard: Option<Heard>,
    client_addr: Option<String>,
    /// It must not be handed leadership.
    drained: bool,
    /// It is to lead whenever it can.
    preferred: bool,
    /// Of the process that introduced itself last.
    feature_level: Option<u32>,
    /// Of its disk, and when it said so.
    disk: Option<(DiskSpace, Instant)>,
    /// Why it cannot be talked to, as it was last logged.
    mismatch: Option<String>,
}

const UNKNOWN: Peer = Peer {
    process: Process::Unknown,
    heard: None,
    client_addr: None,
    drained: false,
    preferred: false,
    feature_level: None,
    disk: None,
    mismatch: None,
};

/// The latest about every peer.
#[derive(Debug)]
pub(crate) struct Presence {
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    changed: watch::Sender<u64>,
}

impl Default for Presence {
    fn default() -> Presence {
        Presence { peers: Mutex::new(BTreeMap::new()), changed: watch::Sender::new(0) }
    }
}

impl Presence {
    /// Counts up whenever something about a peer has changed.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The last word from every peer that was heard.
    pub(crate) fn heard(&self) -> BTreeMap<NodeId, Heard> {
        let peers = self.peers.lock().expect("no holder panics");
        peers.iter().filter_map(|(id, peer)| Some((*id, peer.heard.clone()?))).collect()
    }

    /// Where clients reach a peer, if it said so.
    pub(crate) fn client_addr(&self, node: NodeId) -> Option<String> {
        self.peers.lock().expect("no holder panics").get(&node)?.client_addr.clone()
    }

    /// Whether this process of a peer is certainly gone. `None` asks for whatever process was
    /// there last.
    pub(crate) fn is_gone(&self, node: NodeId, boot_id: Option<u64>) -> bool {
        let peers = self.peers.lock().expect("no holder panics");
        match (peers.get(&node).map(|peer| peer.process), boot_id) {
            (Some(Process::Refused), _) => true,
            (Some(Process::Alive { boot_id: now }), Some(then)) => now != then,
            (Some(Process::Alive { .. } | Process::Unknown) | None, _) => false,
        }
    }

    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        let peers = self.peers.lock().expect("no holder panics");
        peers.get(&node).is_some_and(|peer| matches!(peer.process, Process::Alive { .. }))
    }

    pub(crate) fn is_drained(&self, node: NodeId) -> bool {
        let peers = self.peers.lock().expect("no holder panics");
        peers.get(&node).is_some_and(|peer| peer.drained)
    }

    /// The peers that are to lead whenever they can, by ascending id.
    pub(crate) fn preferred(&self) -> Vec<NodeId> {
        let peers = self.peers.lock().expect("no holder panics");
        peers.iter().filter(|(_, peer)| peer.preferred).map(|(node, _)| *node).collect()
    }

    fn set_wishes(&self, node: NodeId, drained: bool, preferred: bool) {
        let mut peers = self.peers.lock().expect("no holder panics");
        let peer = peers.entry(node).or_insert(UNKNOWN);
        (peer.drained, peer.preferred) = (drained, preferred);
    }

    /// A peer introduced itself, by calling or by answering.
    pub(crate) fn introduced(&self, peer: NodeId, from: &rpc::Introduction) {
        let heard = local::answer(from).map(Heard::Answer);
        let client_addr = Some(from.client_addr.clone()).filter(|addr| !addr.is_empty());
        self.update(peer, |state| {
            state.heard = heard.or(state.heard.take());
            state.client_addr = client_addr.or(state.client_addr.take());
            state.feature_level = Some(from.feature_level.max(1));
        });
    }

    /// The newest commands that a peer understands, if it said so.
    pub(crate) fn feature_level(&self, node: NodeId) -> Option<u32> {
        self.peers.lock().expect("no holder panics").get(&node)?.feature_level
    }

    /// What a peer said of its disk, if that is no older than `age`.
    pub(crate) fn disk(&self, node: NodeId, age: Duration) -> Option<DiskSpace> {
        let (space, at) = self.peers.lock().expect("no holder panics").get(&node)?.disk?;
        (at.elapsed() <= age).then_some(space)
    }

    /// Says once that a peer cannot be talked to.
    fn mismatched(&self, node: NodeId, mismatch: &str) {
        let mut peers = self.peers.lock().expect("no holder panics");
        let state = peers.entry(node).or_insert(UNKNOWN);
        if state.mismatch.as_deref() != Some(mismatch) {
            tracing::warn!(%mismatch, "a peer cannot be talked to");
            state.mismatch = Some(mismatch.to_owned());
        }
    }

    fn told_disk(&self, peer: NodeId, space: DiskSpace) {
        if space == DiskSpace::default() {
            return;
        }
        let mut peers = self.peers.lock().expect("no holder panics");
        peers.entry(peer).or_insert(UNKNOWN).disk = Some((space, Instant::now()));
    }

    /// A peer's process said something. It was not there when it was dialled last, but it is now.
    pub(crate) fn heard_from(&self, peer: NodeId, boot_id: u64) {
        let mut peers = self.peers.lock().expect("no holder panics");
        let state = peers.entry(peer).or_insert(UNKNOWN);
        match state.process {
            Process::Alive { .. } => return,
            Process::Refused | Process::Unknown => state.process = Process::Alive { boot_id },
        }
        drop(peers);
        self.changed.send_modify(|count| *count += 1);
    }

    /// A node that is no peer any more.
    pub(crate) fn forget(&self, peer: NodeId) {
        if self.peers.lock().expect("no holder panics").remove(&peer).is_some() {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn refused_secret(&self, peer: NodeId) {
        self.update(peer, |state| state.heard = Some(Heard::WrongSecret));
    }

    pub(crate) fn process(&self, peer: NodeId, process: Process) {
        self.update(peer, |state| state.process = process);
    }

    fn update(&self, peer: NodeId, change: impl FnOnce(&mut Peer)) {
        let mut peers = self.peers.lock().expect("no holder panics");
        let state = peers.entry(peer).or_insert(UNKNOWN);
        let before = (state.process, state.heard.clone(), state.client_addr.clone());
        change(state);
        let after = (state.process, state.heard.clone(), state.client_addr.clone());
        drop(peers);
        if before != after {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

/// Keeps an eye on one peer for as long as the node runs.
pub(crate) struct Watcher {
    pub(crate) link: Link,
    pub(crate) local: Arc<Local>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) credentials: auth::Credentials,
    pub(crate) failure: Failure,
}

/// How a look at a peer ended.
enum Look {
    Refused,
    WrongSecret,
    Unclear,
    /// It answered, but there is no group yet to watch it in.
    Forming,
    /// It was there, until the connection ended.
    Lost,
}

impl Watcher {
    pub(crate) async fn run(self) {
        let node = self.link.node;
        let mut eager_until = Instant::now();
        loop {
            match self.look().await {
                Look::Refused => self.presence.process(node, Process::Refused),
                Look::WrongSecret => self.presence.refused_secret(node),
                Look::Unclear => self.presence.process(node, Process::Unknown),
                Look::Forming => {}
                Look::Lost => {
                    self.presence.process(node, Process::Unknown);
                    eager_until = Instant::now() + EAGER_FOR;
                    continue;
                }
            }
            sleep(if Instant::now() < eager_until { EAGER_POLL } else { POLL }).await;
        }
    }

    async fn look(&self) -> Look {
        match self.dial().await {
            Dialled::Connected => {}
            Dialled::Refused => return Look::Refused,
            Dialled::Unclear => return Look::Unclear,
        }
        let boot_id = match timeout(HELLO_TIMEOUT, self.hello()).await {
            Ok(Ok(boot_id)) => boot_id,
            Ok(Err(status)) if is_secret(&status) => return Look::WrongSecret,
            Ok(Err(_)) | Err(_) => return Look::Unclear,
        };
        self.presence.process(self.link.node, Process::Alive { boot_id });
        if !matches!(self.local.holding(), crate::bootstrap::decision::Holding::Formed(_)) {
            return Look::Forming;
        }
        match self.watch().await {
            Ok(()) => Look::Lost,
            Err(_) => Look::Forming,
        }
    }

    async fn hello(&self) -> Result<u64, tonic::Status> {
        let greeting = hello(&self.link, &self.local, &self.credentials).await?;
        local::check_wire(&greeting.from).map_err(|mismatch| {
            self.presence.mismatched(self.link.node, &mismatch);
            tonic::Status::failed_precondition(mismatch)
        })?;
        self.presence.introduced(self.link.node, &greeting.from);
        self.note_removed(greeting.removed);
        Ok(greeting.from.boot_id)
    }

    /// Ends when the connection does. An error means that the peer would not be watched.
    async fn watch(&self) -> Result<(), tonic::Status> {
        let request = self.link.request(Method::Watch, rpc::WatchRequest {});
        let mut stream = self.link.control().watch(request).await?.into_inner();
        while let Ok(Some(response)) = stream.message().await {
            self.note_removed(response.removed);
            self.presence.set_wishes(self.link.node, response.drained, response.preferred);
            let boot_id = response.boot_id;
            let space = DiskSpace { total: response.disk_total, free: response.disk_free };
            self.presence.told_disk(self.link.node, space);
            self.presence.process(self.link.node, Process::Alive { boot_id });
        }
        Ok(())
    }

    /// A peer that has proven the secret says whether this node was removed.
    fn note_removed(&self, removed: bool) {
        if removed {
            self.failure.report(Refusal::Removed { node: self.local.node }.into());
        }
    }

    async fn dial(&self) -> Dialled {
        match timeout(DIAL_TIMEOUT, TcpStream::connect(&*self.link.addr)).await {
            Ok(Ok(_connection)) => Dialled::Connected,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Dialled::Refused,
            Ok(Err(_)) | Err(_) => Dialled::Unclear,
        }
    }
}

enum Dialled {
    Connected,
    Refused,
    Unclear,
}

fn is_secret(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}
