//! Ends what topics keep no longer.
//!
//! This is about what consumers see. When the space is free again is the matter of the log.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::clock::wall_now;
use tracing::{debug, warn};

use crate::{
    command::{Command, Expire},
    ops::Broker,
};

/// Between two looks, while a topic has a time to keep messages: that much longer they may be seen.
const EVERY: Duration = Duration::from_secs(5);
/// Queues cut in one round. What is left over is found by the next.
const MOST: usize = 10_000;
const PROPOSAL_WAIT: Duration = Duration::from_secs(5);

/// Runs until dropped. Sleeps while every topic keeps everything.
pub(super) async fn run(broker: Arc<Broker>) {
    let mut changed = broker.view().topics_changed();
    loop {
        changed.mark_unchanged();
        round(&broker).await;
        if broker.view().any_retention() {
            tokio::time::sleep(EVERY).await;
        } else if changed.changed().await.is_err() {
            return;
        }
    }
}

async fn round(broker: &Arc<Broker>) {
    let expired = match broker.view().expired(wall_now(), MOST) {
        Ok(expired) => expired,
        Err(error) => {
            warn!(%error, "expired messages not found");
            return;
        }
    };
    for (topic, queue, to) in expired {
        let expire = Command::Expire(Expire { topic: topic.clone(), queue, to });
        if let Err(error) = broker.propose(&expire, Instant::now() + PROPOSAL_WAIT).await {
            // The next round tries again.
            debug!(%topic, %queue, %error, "expired messages not ended");
        }
    }
}
