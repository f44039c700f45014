//! Finishes the change of the membership that a leader before left half done.
//!
//! Between two sets of voters a majority of each is needed for everything, so that the group would
//! be more fragile than either. It goes on to the new set; who loses its vote stays as a learner.

use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::{MissedTickBehavior, interval};

use super::turn::Turn;
use crate::network::server::RaftNode;

/// How often a leader looks whether there is something to finish.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Never returns, unless consensus has ended.
pub(crate) async fn finish_changes(raft: RaftNode, turn: Turn) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if !is_left_over(&raft) {
            continue;
        }
        let Ok(_turn) = turn.take("finishing a change that a leader before has begun") else {
            continue;
        };
        // It may have been finished before the turn came.
        if is_left_over(&raft) {
            let nobody = ChangeMembers::AddVoterIds([].into());
            match raft.change_membership(nobody, true).await {
                Ok(_) => tracing::info!("finished a change of the membership"),
                Err(error) => tracing::info!(%error, "finish a change of the membership"),
            }
        }
    }
}

fn is_left_over(raft: &RaftNode) -> bool {
    let server = raft.server_metrics();
    let server = server.borrow_watched();
    let is_joint = server.membership_config.membership().get_joint_config().len() > 1;
    is_joint && server.state.is_leader()
}
