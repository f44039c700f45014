//! Closes queues that topics are to lose, once they are drained.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info};

use crate::{
    command::{CloseQueues, Command},
    ops::Broker,
};

/// Between two looks, while a topic has queues to lose.
const EVERY: Duration = Duration::from_secs(2);
const PROPOSAL_WAIT: Duration = Duration::from_secs(5);

/// Runs until dropped. Sleeps while no topic has queues to lose.
pub(super) async fn run(broker: Arc<Broker>) {
    let mut changed = broker.view().topics_changed();
    loop {
        changed.mark_unchanged();
        for topic in broker.view().closable() {
            let close = Command::CloseQueues(CloseQueues { topic: topic.clone() });
            match broker.propose(&close, Instant::now() + PROPOSAL_WAIT).await {
                Ok(_) => info!(%topic, "drained queues removed"),
                // The next round tries again.
                Err(error) => debug!(%topic, %error, "drained queues not removed"),
            }
        }
        if broker.view().is_shrinking() {
            tokio::time::sleep(EVERY).await;
        } else if changed.changed().await.is_err() {
            return;
        }
    }
}
