//! Replicas that lose their vote, leave for good, or lose their disk and are replaced.
//!
//! Everything goes through the administrative service, as `mqadmin` does, and always ends with as
//! many voters as before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::admin::change_membership_request::Change;
use proto::admin::{
    AddLearner, ChangeMembershipRequest, RaftStatusRequest, RaftStatusResponse, ReplacePeer,
};

use super::{Class, Tools, processes};
use crate::client::Rpc;

/// How long one change may take, over all its repetitions.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long one request may take.
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// The group, seen by whoever answers.
async fn status(tools: &Tools) -> Option<RaftStatusResponse> {
    for node in &tools.cluster.nodes {
        let request = RaftStatusRequest { broker_name: tools.cluster.broker_name().to_owned() };
        let mut admin = Rpc::new(node.client).admin();
        let answer = tokio::time::timeout(ANSWER, admin.raft_status(request)).await;
        if let Ok(Ok(answer)) = answer
            && answer.get_ref().error.is_none()
        {
            return Some(answer.into_inner());
        }
    }
    None
}

/// Where a replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Stranger,
    Learner,
    Voter,
}

fn standing(status: &RaftStatusResponse, id: u64) -> Standing {
    let mut nodes = status.members.iter().filter_map(|member| member.node.as_ref());
    match nodes.find(|node| node.node_id == id) {
        None => Standing::Stranger,
        Some(node) if node.voter => Standing::Voter,
        Some(_) => Standing::Learner,
    }
}

/// Asks for a change, at one access point after the other, until the group is as it is to be: one
/// that was interrupted is simply made again.
pub(super) async fn insist(
    tools: &Tools,
    change: &Change,
    (id, wanted): (u64, Standing),
) -> Result<()> {
    let since = Instant::now();
    let mut told = String::from("nobody answered");
    for turn in 0.. {
        if let Some(status) = status(tools).await
            && standing(&status, id) == wanted
        {
            tools.changes.fetch_add(u64::from(0 < turn), Ordering::Relaxed);
            return Ok(());
        }
        if PATIENCE < since.elapsed() {
            break;
        }
        let node = &tools.cluster.nodes[turn % tools.cluster.nodes.len()];
        let broker_name = tools.cluster.broker_name().to_owned();
        let request = ChangeMembershipRequest { broker_name, change: Some(change.clone()) };
        let mut admin = Rpc::new(node.client).admin();
        match tokio::time::timeout(ANSWER, admin.change_membership(request)).await {
            Ok(Ok(answer)) => {
                if let Some(error) = answer.into_inner().error {
                    told = error.message;
                }
            }
            Ok(Err(error)) => told = error.to_string(),
            Err(_) => told = format!("no answer within {ANSWER:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("{change:?} was not done within {PATIENCE:?}: {told}")
}

fn id_of(tools: &Tools, places: &BTreeSet<usize>) -> Result<(usize, u64)> {
    let place = *places.first().context("one node was chosen")?;
    Ok((place, tools.cluster.nodes[place].id()))
}

/// Takes the vote, the membership or the disk.
pub(super) async fn take(tools: &Arc<Tools>, class: Class, places: &BTreeSet<usize>) -> Result<()> {
    let (place, id) = id_of(tools, places)?;
    let node = &tools.cluster.nodes[place];
    match class {
        Class::Demote => insist(tools, &Change::Demote(id), (id, Standing::Learner)).await,
        Class::Remove => {
            // It is told, and ends.
            node.let_end(true);
            node.retire();
            insist(tools, &Change::Remove(id), (id, Standing::Stranger)).await
        }
        _ => {
            processes::kill(tools, places).await?;
            node.disk()?.wipe()
        }
    }
}

/// Gives the vote back: to the same replica, or to the one that comes in its place.
pub(super) async fn give_back(
    tools: &Arc<Tools>,
    class: Class,
    places: &BTreeSet<usize>,
) -> Result<()> {
    let (place, old) = id_of(tools, places)?;
    let node = &tools.cluster.nodes[place];
    match class {
        Class::Demote => insist(tools, &Change::Promote(old), (old, Standing::Voter)).await,
        Class::Remove => {
            processes::kill(tools, places).await?;
            let id = tools.cluster.renew(place)?;
            node.let_end(false);
            node.start();
            add(tools, id).await
        }
        _ => {
            let id = tools.cluster.renew(place)?;
            node.start();
            let learner =
                Change::AddLearner(AddLearner { node_id: id, raft_address: String::new() });
            insist(tools, &learner, (id, Standing::Learner)).await?;
            let replace = Change::Replace(ReplacePeer { old, with: id });
            insist(tools, &replace, (id, Standing::Voter)).await?;
            insist(tools, &replace, (old, Standing::Stranger)).await
        }
    }
}

/// A newcomer becomes a learner, and a voter once it has caught up.
async fn add(tools: &Tools, id: u64) -> Result<()> {
    let learner = Change::AddLearner(AddLearner { node_id: id, raft_address: String::new() });
    insist(tools, &learner, (id, Standing::Learner)).await?;
    insist(tools, &Change::Promote(id), (id, Standing::Voter)).await
}
