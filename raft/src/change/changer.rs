//! Makes changes of the membership, at the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::progress::Tracker;
use super::rules::{Scene, Standing, Step, steps, survives};
use super::turn::Turn;
use super::{Change, ChangeError, ChangeRefusal, Changed};
use crate::NodeId;
use crate::bootstrap::decision::Holding;
use crate::local::{self, Local};
use crate::membership::{self, Node};
use crate::network::auth::Credentials;
use crate::network::hello::hello;
use crate::network::links::Links;
use crate::network::presence::Presence;
use crate::network::server::RaftNode;
use crate::transfer::Transfer;

/// How long a node that is to be a member, or to have a new address, may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to hear of every member.
const HEARING: Duration = Duration::from_millis(1500);
/// How long a member may take to answer whether it is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Makes changes at the leader.
#[derive(Clone)]
pub(crate) struct Changer {
    pub(crate) raft: RaftNode,
    pub(crate) local: Arc<Local>,
    pub(crate) links: Arc<Links>,
    pub(crate) credentials: Credentials,
    pub(crate) presence: Arc<Presence>,
    pub(crate) tracker: Tracker,
    pub(crate) transfer: Transfer,
    pub(crate) turn: Turn,
}

impl Changer {
    /// Makes a change. Past `deadline` it goes on by itself.
    pub(crate) async fn make(
        self,
        change: Change,
        deadline: Instant,
    ) -> Result<Changed, ChangeError> {
        let guard = self.turn.take(&change.to_string())?;
        let text = change.to_string();
        let making = tokio::spawn(async move {
            let made = self.make_alone(&change).await;
            drop(guard);
            made
        });
        match timeout_at(deadline, making).await {
            Ok(Ok(made)) => made,
            // It panicked or was aborted: the node stops.
            Ok(Err(_)) => Err(ChangeError::Stopped),
            Err(_elapsed) => Err(ChangeError::Unfinished(text)),
        }
    }

    async fn make_alone(&self, change: &Change) -> Result<Changed, ChangeError> {
        let steps = self.allowed_steps(change).await?;
        if !steps.is_empty() {
            tracing::info!(%change, "changing the membership");
        }
        for step in steps {
            self.take_step(step, change).await?;
        }
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let membership = membership.membership();
        let members = membership::members(membership);
        let survives = survives(membership.voter_ids().count());
        tracing::info!(%change, %survives, "the membership is as it was asked for");
        Ok(Changed { members, survives })
    }

    /// A leader that was just elected has not heard of everybody: what it misses may come at once.
    async fn allowed_steps(&self, change: &Change) -> Result<Vec<Step>, ChangeError> {
        let patience = Instant::now() + HEARING;
        loop {
            let error = match self.look(change).await {
                Ok(steps) => return Ok(steps),
                Err(error) => error,
            };
            let may_pass = matches!(
                &error,
                ChangeError::Busy(_)
                    | ChangeError::Refused(
                        ChangeRefusal::NoQuorum { .. } | ChangeRefusal::NotConnected { .. }
                    )
            );
            if !may_pass || Instant::now() >= patience {
                return Err(error);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The steps of a change, if it is allowed as things are at this very moment.
    async fn look(&self, change: &Change) -> Result<Vec<Step>, ChangeError> {
        let scene = self.scene()?;
        let first = steps(&scene, change)?;
        // Someone who fell silent a second ago still looks connected, and once the change is begun
        // there is no way back: who is to count is asked.
        if first.iter().any(|step| matches!(step, Step::Voters(_))) {
            let standing = self.heard_now(&scene).await;
            return Ok(steps(&Scene { standing, ..scene }, change)?);
        }
        Ok(first)
    }

    /// The standing of the other members, those who do not answer now being not connected.
    async fn heard_now(&self, scene: &Scene) -> BTreeMap<NodeId, Standing> {
        let ask = scene.standing.iter().map(async |(node, standing)| {
            let addr = scene.membership.get_node(&node.0).map(|known| known.raft_addr.as_str());
            let link = self.links.to(*node, addr.unwrap_or_default());
            let answer =
                timeout(ANSWER_TIMEOUT, hello(&link, &self.local, &self.credentials)).await;
            let answers = matches!(&answer, Ok(Ok(greeting)) if greeting.from.node_id == node.0);
            (*node, Standing { connected: standing.connected && answers, ..*standing })
        });
        join_all(ask).await.into_iter().collect()
    }

    /// The group as this node sees it, if it leads it and nobody else is changing it.
    fn scene(&self) -> Result<Scene, ChangeError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let stored = &metrics.membership_config;
        if metrics.current_leader != Some(self.local.node.0) || metrics.replication.is_none() {
            return Err(ChangeError::NotLeader);
        }
        let membership = stored.membership().clone();
        if membership.get_joint_config().len() > 1
            || metrics.committed_membership_config.log_id() != stored.log_id()
        {
            return Err(ChangeError::Busy("one that was begun before is being finished".into()));
        }
        let highest = self.local.roster.highest().max(membership::highest_of(&membership));
        self.tracker.look(false);
        let standing = self.tracker.tracks.standing(&self.presence);
        Ok(Scene { leader: self.local.node, membership, highest, standing })
    }

    async fn take_step(&self, step: Step, change: &Change) -> Result<(), ChangeError> {
        match step {
            Step::HandOver => {
                let handed_over = self.transfer.hand_over(None).await;
                handed_over.map_err(ChangeError::NotHandedOver)?;
                // The new leader takes the rest.
                Err(ChangeError::NotLeader)
            }
            Step::AddLearner(node, raft_addr) => {
                let client_addr = self.greet(node, &raft_addr, Greeted::Waits).await?;
                let nodes = BTreeMap::from([(node.0, Node { raft_addr, client_addr })]);
                self.write(ChangeMembers::AddNodes(nodes), change).await
            }
            Step::Readdress(node, raft_addr) => {
                let client_addr = self.greet(node, &raft_addr, Greeted::IsMember).await?;
                let nodes = BTreeMap::from([(node.0, Node { raft_addr, client_addr })]);
                self.write(ChangeMembers::SetNodes(nodes), change).await
            }
            Step::Voters(voters) => {
                self.write(ChangeMembers::ReplaceAllVoters(voters), change).await
            }
            Step::Forget(node) => {
                self.write(ChangeMembers::RemoveNodes([node.0].into()), change).await
            }
        }
    }

    async fn write(
        &self,
        members: ChangeMembers<u64, Node>,
        change: &Change,
    ) -> Result<(), ChangeError> {
        // Who loses its vote stays as a learner, so that an interruption loses nobody.
        match self.raft.change_membership(members, true).await {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
            Err(RaftError::APIError(error)) => Err(match error {
                // Perhaps between the two halves of a change.
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_) => {
                    ChangeError::Unfinished(change.to_string())
                }
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                    ChangeError::Busy("one that was begun before is being finished".into())
                }
                error => ChangeRefusal::Consensus { reason: error.to_string() }.into(),
            }),
        }
    }

    /// Asks the node at `addr` who it is; returns its client address.
    async fn greet(
        &self,
        node: NodeId,
        addr: &str,
        as_what: Greeted,
    ) -> Result<String, ChangeRefusal> {
        let not_there =
            |reason: String| ChangeRefusal::NotThere { node, addr: addr.to_owned(), reason };
        let link = self.links.anybody(addr);
        let greeting = timeout(HELLO_TIMEOUT, hello(&link, &self.local, &self.credentials)).await;
        let from = match greeting {
            Ok(Ok(greeting)) => greeting.from,
            Ok(Err(status)) => return Err(not_there(status.message().to_owned())),
            Err(_) => return Err(not_there("no answer".into())),
        };
        let answer = local::answer(&from).ok_or_else(|| not_there("a malformed answer".into()))?;
        if answer.node != node {
            return Err(not_there(format!("it is node {}", answer.node)));
        }
        let ours = self.local.group.get().copied();
        let fits = match (as_what, answer.holding) {
            (Greeted::Waits, Holding::Adopted(group)) => Some(group) == ours,
            (Greeted::IsMember, Holding::Adopted(group) | Holding::Formed(group)) => {
                Some(group) == ours
            }
            (Greeted::Waits, Holding::Formed(_)) | (_, Holding::Nothing) => false,
        };
        if !fits || answer.broker_name != self.local.broker_name {
            return Err(not_there(match as_what {
                Greeted::Waits => "it does not wait to be added to this group; start it with \
                                   --join and an empty data directory"
                    .to_owned(),
                Greeted::IsMember => "it does not hold the data of this group".to_owned(),
            }));
        }
        Ok(from.client_addr)
    }
}

/// As what a node is greeted.
#[derive(Debug, Clone, Copy)]
enum Greeted {
    Waits,
    IsMember,
}
