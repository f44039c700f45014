//! How a new replica comes to a group that exists: it asks any member until the leader lets it
//! wait, stores whose group it waits in, and goes on asking until it is added.
//!
//! Only a leader that a quorum has just confirmed says yes: a member that lags might not know that
//! this very id has a vote, which a node without its data must not cast.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proto::raft_rpc as rpc;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::adoption::Adoption;
use super::decision::Holding;
use crate::failure::Failure;
use crate::local::{self, Local};
use crate::network::auth::{self, Credentials, Method};
use crate::network::links::Links;
use crate::{GroupId, NodeId, Refusal};

/// Pause between two rounds of questions.
const RETRY: Duration = Duration::from_millis(500);
/// How long one member may take: the leader asks a quorum meanwhile.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a waiting node says what it waits for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Brings this node to the group of those that it was told of.
pub(crate) struct Joining {
    pub(crate) local: Arc<Local>,
    pub(crate) links: Arc<Links>,
    pub(crate) credentials: Credentials,
    pub(crate) adoption: Arc<Adoption>,
    pub(crate) failure: Failure,
    /// Raft addresses of members.
    pub(crate) seeds: Vec<String>,
    pub(crate) segment_size: u64,
}

/// What a round of questions has brought.
enum Asked {
    Welcome(GroupId),
    Refused(Refusal),
    /// Nobody could tell; why not, of the last one asked.
    Nobody(String),
}

/// What one member said.
enum Answer {
    Welcome(GroupId),
    Refused(Refusal),
    /// These may know.
    Others(Vec<String>),
}

impl Joining {
    /// Returns once this node may wait in a group; `None` if it must not, which then was reported.
    pub(crate) async fn find_group(&self) -> Option<GroupId> {
        let mut said = None;
        loop {
            if let Some(group) = self.local.group.get() {
                return Some(*group);
            }
            match self.ask().await {
                Asked::Welcome(group) => match self.adoption.join(group) {
                    Ok(()) => tracing::info!(%group, "found the group to join"),
                    Err(error) => {
                        self.failure.report(error);
                        return None;
                    }
                },
                Asked::Refused(refusal) => {
                    self.failure.report(refusal.into());
                    return None;
                }
                Asked::Nobody(reason) => {
                    say(&mut said, || {
                        tracing::info!(join = self.seeds.join(","), %reason, "looking for the group's leader");
                    });
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Returns once this node was added, or must not be, which then was reported. Meanwhile the
    /// leader hears that it is there.
    pub(crate) async fn wait(&self) {
        let mut said = None;
        while !matches!(self.local.holding(), Holding::Formed(_)) {
            if let Asked::Refused(refusal) = self.ask().await {
                return self.failure.report(refusal.into());
            }
            say(&mut said, || {
                let Local { node, broker_name, raft_addr, .. } = &*self.local;
                tracing::info!(%node, %raft_addr, "waiting to be added: mqadmin addLearner -b {broker_name} -i {node}");
            });
            sleep(RETRY).await;
        }
        tracing::info!(node = %self.local.node, "added to the group");
    }

    /// Asks every member that is known or named on the way, until one can tell.
    async fn ask(&self) -> Asked {
        let mut to_ask: VecDeque<String> = self.seeds.iter().cloned().collect();
        let mut asked = BTreeSet::new();
        let mut reason = "no member to ask".to_owned();
        while let Some(addr) = to_ask.pop_front() {
            if !asked.insert(addr.clone()) {
                continue;
            }
            match timeout(ASK_TIMEOUT, self.ask_one(&addr)).await {
                Ok(Ok(Answer::Welcome(group))) => return Asked::Welcome(group),
                Ok(Ok(Answer::Refused(refusal))) => return Asked::Refused(refusal),
                Ok(Ok(Answer::Others(others))) => {
                    reason = format!("{addr} does not lead");
                    // The leader is the first of them.
                    others.into_iter().rev().for_each(|addr| to_ask.push_front(addr));
                }
                Ok(Err(status)) => reason = format!("{addr}: {}", status.message()),
                Err(_) => reason = format!("{addr} does not answer"),
            }
        }
        Asked::Nobody(reason)
    }

    async fn ask_one(&self, addr: &str) -> Result<Answer, tonic::Status> {
        let link = self.links.anybody(addr);
        let nonce = auth::nonce();
        let message = rpc::JoinRequest {
            from: Some(self.local.introduction()),
            nonce: bytes::Bytes::copy_from_slice(&nonce),
            segment_size: self.segment_size,
        };
        let wrong_secret = || Refusal::WrongSecretToJoin { addr: addr.to_owned() };
        let request = link.request(Method::Join, message);
        let answer = match link.control().join(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if is_secret(status.code()) => return Ok(Answer::Refused(wrong_secret())),
            Err(status) => return Err(status),
        };
        if !self.credentials.is_proof(NodeId(answer.node_id), &nonce, &answer.proof) {
            return Ok(Answer::Refused(wrong_secret()));
        }
        if !answer.refused.is_empty() {
            let (addr, reason) = (addr.to_owned(), answer.refused);
            return Ok(Answer::Refused(Refusal::MustNotJoin { addr, reason }));
        }
        if let Some(group) = local::group_id(&answer.group_id) {
            return Ok(Answer::Welcome(group));
        }
        Ok(Answer::Others(answer.members.into_iter().map(|peer| peer.raft_addr).collect()))
    }
}

fn is_secret(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied)
}

/// Says something now and then.
fn say(said: &mut Option<Instant>, what: impl FnOnce()) {
    let now = Instant::now();
    if said.is_none_or(|at| now >= at + SAY_EVERY) {
        *said = Some(now);
        what();
    }
}
