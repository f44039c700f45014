//! Lets go of what silent clients hold.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::info;

use crate::ops::Broker;

const EVERY: Duration = Duration::from_secs(5);

/// Looks for clients that nobody heard of, until dropped.
pub(super) async fn expire(broker: Arc<Broker>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let departed = broker.clients().expire(Instant::now());
        for gone in departed {
            info!(client = %gone.client, "client not heard of any more");
            if let Some(group) = gone.group {
                broker.release(gone.client, group);
            }
        }
    }
}
