//! How a group comes into being, and how a node finds out that it must not take part.
//!
//! [`decision`] decides; this asks the peers and does what was decided.

pub(crate) mod adoption;
pub(crate) mod arrival;
pub(crate) mod decision;
pub(crate) mod identity;
pub(crate) mod join;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::raft_rpc as rpc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::adoption::Adoption;
use self::decision::{Holding, Me, Step, decide};
use crate::failure::Failure;
use crate::local::Local;
use crate::membership::Node;
use crate::network::auth::Method;
use crate::network::links::Links;
use crate::network::presence::Presence;
use crate::network::server::RaftNode;
use crate::{Error, GroupId, NodeId, Refusal};

/// Pause between attempts to invite or to initialise.
const RETRY: Duration = Duration::from_millis(100);
const INVITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a waiting node says whom it waits for.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// A node that refuses to start goes on answering for this long, so that the peers it disagrees
/// with hear why.
const LINGER: Duration = Duration::from_millis(1500);

/// Brings this node into its group.
pub(crate) struct Bootstrap {
    pub(crate) local: Arc<Local>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) links: Arc<Links>,
    pub(crate) adoption: Arc<Adoption>,
    pub(crate) waiting_for: Arc<WaitingFor>,
    pub(crate) failure: Failure,
}

/// Whom this node waits for, for the status page.
#[derive(Debug, Default)]
pub(crate) struct WaitingFor(Mutex<Vec<NodeId>>);

impl WaitingFor {
    pub(crate) fn get(&self) -> Vec<NodeId> {
        self.0.lock().expect("no holder panics").clone()
    }

    fn set(&self, nodes: Vec<NodeId>) {
        *self.0.lock().expect("no holder panics") = nodes;
    }
}

impl Bootstrap {
    /// Returns once this node belongs to a group; `None` if it must not take part, which then was
    /// reported.
    pub(crate) async fn find_group(&self) -> Option<GroupId> {
        let mut changed = self.presence.changed();
        let mut adopted = self.adoption.adopted();
        let mut speaker = Speaker::default();
        loop {
            if let Some(group) = self.local.group.get() {
                return Some(*group);
            }
            match self.step() {
                Step::Found => {
                    let group = GroupId(rand::random());
                    match self.adoption.adopt(group) {
                        Ok(()) => tracing::info!(%group, "all peers are ready, founding the group"),
                        Err(error) => {
                            self.failure.report(error);
                            return None;
                        }
                    }
                }
                Step::Refuse(refusal) => {
                    self.refuse(refusal).await;
                    return None;
                }
                Step::Wait(nodes) => self.wait_for(nodes, &mut speaker),
                // These need a group, which ends this loop.
                Step::Invite(_) | Step::Initialise | Step::Run => {}
            }
            // Whatever changes, it is looked at again; the pause bounds how late a log line is.
            tokio::select! {
                _ = changed.changed() => {}
                _ = adopted.changed() => {}
                () = sleep(SAY_EVERY) => {}
            }
        }
    }

    /// Sees the group through its forming, then keeps watching for peers of another group.
    pub(crate) async fn form(&self, raft: &RaftNode) {
        let mut changed = self.presence.changed();
        let mut speaker = Speaker::default();
        loop {
            let mut pause = SAY_EVERY;
            match self.step() {
                Step::Run => self.wait_for(self.until_formed(), &mut speaker),
                Step::Wait(nodes) => self.wait_for(nodes, &mut speaker),
                Step::Invite(nodes) => {
                    self.invite(&nodes).await;
                    pause = RETRY;
                }
                Step::Initialise => {
                    self.initialise(raft).await;
                    pause = RETRY;
                }
                Step::Refuse(refusal) => {
                    self.refuse(refusal).await;
                    return;
                }
                // Only without a group.
                Step::Found => {}
            }
            if !matches!(self.local.holding(), Holding::Formed(_)) {
                pause = pause.min(RETRY);
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn step(&self) -> Step {
        // The holding is read last: an invitation that is accepted meanwhile explains answers
        // that would otherwise look as if this node had lost its data.
        let heard = self.presence.heard();
        // Once there is one, the replicated membership counts.
        let members = self.local.members().borrow().clone();
        let me = Me {
            node: self.local.node,
            broker_name: self.local.broker_name.clone(),
            peers: if members.is_empty() { self.local.peers.clone() } else { members },
            holding: self.local.holding(),
        };
        decide(&me, &heard)
    }

    /// An invited node waits for its founder.
    fn until_formed(&self) -> Vec<NodeId> {
        match self.local.holding() {
            Holding::Formed(_) => Vec::new(),
            Holding::Nothing | Holding::Adopted(_) => {
                self.local.peers.keys().next().copied().into_iter().collect()
            }
        }
    }

    fn wait_for(&self, nodes: Vec<NodeId>, speaker: &mut Speaker) {
        speaker.say(&nodes, &self.local.peers);
        self.waiting_for.set(nodes);
    }

    async fn invite(&self, nodes: &[NodeId]) {
        let Some(group) = self.local.group.get() else { return };
        for node in nodes {
            let Some(addr) = self.local.peers.get(node) else { continue };
            let link = self.links.to(*node, addr);
            let message = rpc::InviteRequest {
                from: Some(self.local.introduction()),
                group_id: bytes::Bytes::copy_from_slice(&group.0.to_be_bytes()),
            };
            let request = link.request(Method::Invite, message);
            let mut client = link.control();
            match timeout(INVITE_TIMEOUT, client.invite(request)).await {
                Ok(Ok(response)) => {
                    let response = response.into_inner();
                    if let Some(from) = &response.from {
                        self.presence.introduced(*node, from);
                    }
                    if !response.accepted {
                        tracing::warn!(peer = %node, "peer does not accept the invitation");
                    }
                }
                Ok(Err(status)) => tracing::info!(peer = %node, %status, "invite peer"),
                Err(_) => tracing::info!(peer = %node, "peer does not answer an invitation"),
            }
        }
    }

    /// Writes the first entry: who belongs to the group.
    async fn initialise(&self, raft: &RaftNode) {
        let members: BTreeMap<u64, Node> = self
            .local
            .peers
            .iter()
            .map(|(id, addr)| {
                let client_addr = match *id == self.local.node {
                    true => Some(self.local.client_addr.clone()),
                    false => self.presence.client_addr(*id),
                };
                let client_addr = client_addr.unwrap_or_default();
                (id.0, Node { raft_addr: addr.clone(), client_addr })
            })
            .collect();
        match raft.initialize(members).await {
            Ok(()) => tracing::info!("group has formed"),
            Err(error) => {
                // Either it was initialised before, which the next look at it will show, or
                // consensus has stopped, which is reported elsewhere.
                tracing::info!(%error, "initialise the group");
            }
        }
    }

    async fn refuse(&self, refusal: Refusal) {
        tracing::error!(%refusal, "this node must not take part");
        sleep(LINGER).await;
        self.failure.report(Error::Refused(refusal));
    }
}

/// Says whom the node waits for when that changes, and now and then.
#[derive(Debug, Default)]
struct Speaker {
    last: Option<(Vec<NodeId>, Instant)>,
}

impl Speaker {
    fn say(&mut self, nodes: &[NodeId], peers: &BTreeMap<NodeId, String>) {
        let now = Instant::now();
        let said = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| last == nodes && (nodes.is_empty() || now < *at + SAY_EVERY));
        if said {
            return;
        }
        self.last = Some((nodes.to_vec(), now));
        if !nodes.is_empty() {
            let named: BTreeMap<NodeId, String> = nodes
                .iter()
                .map(|node| (*node, peers.get(node).cloned().unwrap_or_default()))
                .collect();
            tracing::info!(waiting_for = decision::list(&named), "waiting for peers");
        }
    }
}

/// Whether `stop` was asked for; also when nobody is left to ask.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
