//! Deliveries that may never have reached their client.
//!
//! When a leader or an access point dies, answers to receive calls die with it: the messages in
//! them count as delivered, and nobody has them. Without automatic renewal they come back when
//! their invisible duration ends. With it they would be renewed for hours, because their client
//! lives. So what was handed out shortly before such a death, and is not acknowledged shortly
//! after it, is taken out of renewal: it comes again. A client that had it all the same, and takes
//! longer than that, sees its message delivered twice, which at-least-once allows.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use proto::ClientId;
use tracing::{debug, info};

use super::Broker;
use crate::state::RenewedDelivery;

/// An answer that is on its way for longer has arrived, or its client is gone as well.
const ON_ITS_WAY: Duration = Duration::from_secs(10);
/// Clients that have the message, and are done with it, repeat their acks within this.
const ACKS_REPEATED: Duration = Duration::from_secs(5);
/// What is still in doubt then is visible again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(15);
/// Deliveries looked at for one death.
const MOST: usize = 100_000;
/// Commands on their way at a time.
const AT_ONCE: usize = 64;
const PROPOSAL_WAIT: Duration = Duration::from_secs(5);

impl Broker {
    /// Answers to these clients, or to all, may have been lost just now. Returns at once.
    pub fn doubt(self: &Arc<Self>, clients: Option<HashSet<ClientId>>) {
        let until = self.view.log_time();
        let from = until.minus(ON_ITS_WAY);
        // A node that stops does not wait for this.
        let broker = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(ACKS_REPEATED).await;
            let Some(broker) = broker.upgrade() else { return };
            if broker.leading().is_err() {
                // The next leader has its own doubts.
                return;
            }
            let mut doubtful = broker.view.renewed_between(from, until, MOST);
            if let Some(clients) = clients {
                doubtful.retain(|delivery| clients.contains(&delivery.client));
            }
            if doubtful.is_empty() {
                return;
            }
            info!(deliveries = doubtful.len(), "deliveries that may be lost will come again");
            let again = |delivery| broker.end_renewal(delivery);
            stream::iter(doubtful).for_each_concurrent(AT_ONCE, again).await;
        });
    }

    async fn end_renewal(&self, delivery: RenewedDelivery) {
        let RenewedDelivery { group, topic, handle, .. } = delivery;
        let deadline = Instant::now() + PROPOSAL_WAIT;
        if let Err(error) = self.move_due(group, topic, handle, AGAIN_AFTER, deadline).await {
            // Acknowledged meanwhile, most likely.
            debug!(%error, "doubtful delivery left as it is");
        }
    }
}
