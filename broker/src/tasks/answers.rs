//! Takes back answers that were lost with their access point.

use std::{sync::Arc, time::Duration};

use crate::ops::Broker;

const EVERY: Duration = Duration::from_millis(500);

/// Looks for access points that are gone, until dropped.
pub(super) async fn take_back(broker: Arc<Broker>) {
    loop {
        tokio::time::sleep(EVERY).await;
        broker.take_back_lost();
    }
}
