//! Raises the group's feature level once all its members understand more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info};

use crate::{
    command::{Command, RaiseLevel},
    ops::Broker,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
const PROPOSAL_WAIT: Duration = Duration::from_secs(5);

/// Runs until dropped.
pub(super) async fn run(broker: Arc<Broker>) {
    loop {
        if let Some(level) = broker.group.feature_level().filter(|l| *l > broker.view().level()) {
            let raise = Command::RaiseLevel(RaiseLevel { level });
            match broker.propose(&raise, Instant::now() + PROPOSAL_WAIT).await {
                Ok(_) => info!(level, "all replicas understand more: feature level raised"),
                // Somebody else leads, or the log is full: the next look tries again.
                Err(error) => debug!(%error, level, "feature level not raised"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
