//! What changes when this node starts or stops leading: who is served, who waits, what runs.
//!
//! The gate itself is the role that consensus publishes: `Leader` appears there once everything
//! that was committed before is applied. This task tells the rim.

use std::sync::Arc;

use raft::Role;
use tokio::{sync::watch, task::JoinSet};
use tracing::info;

use crate::{ops::Broker, tasks};

/// Follows the role until consensus stops.
pub async fn follow(broker: Arc<Broker>, mut role: watch::Receiver<Role>) {
    let mut duties = JoinSet::new();
    let mut leading_term = None;
    loop {
        let now = *role.borrow_and_update();
        let term = now.is_leader().then_some(now.term);
        if term != leading_term {
            stop(&broker, &mut duties).await;
            if let Some(term) = term {
                info!(%term, broker = %broker.name(), "leading");
                // What the leader before handed out last may have died with it.
                broker.doubt_all();
                tasks::start(&broker, &mut duties);
            } else {
                info!(term = %now.term, leader = ?now.leader.map(|node| node.0), "following");
            }
            leading_term = term;
        }
        if role.changed().await.is_err() {
            break;
        }
    }
    stop(&broker, &mut duties).await;
}

/// Tasks end, waiting consumers are sent to the new leader, marks of proposals are forgotten.
async fn stop(broker: &Broker, duties: &mut JoinSet<()>) {
    duties.shutdown().await;
    broker.waiting.call_all();
    broker.readers.call_all();
    broker.lanes.clear();
    broker.forget_answers();
}
