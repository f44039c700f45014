//! What the leader does on its own: look at the state, propose, sleep. Runs while it leads.

mod answers;
mod auto_renew;
mod clients;
mod level;
mod orphans;
mod retention;
mod shrink;
mod timers;

use std::sync::Arc;

use proto::Timestamp;
use tokio::task::JoinSet;

use crate::ops::Broker;

/// Starts all of them; they end when `duties` is shut down.
pub fn start(broker: &Arc<Broker>, duties: &mut JoinSet<()>) {
    duties.spawn(answers::take_back(Arc::clone(broker)));
    duties.spawn(auto_renew::run(Arc::clone(broker)));
    duties.spawn(clients::expire(Arc::clone(broker)));
    duties.spawn(level::run(Arc::clone(broker)));
    duties.spawn(orphans::run(Arc::clone(broker)));
    duties.spawn(timers::run(Arc::clone(broker)));
    duties.spawn(retention::run(Arc::clone(broker)));
    duties.spawn(shrink::run(Arc::clone(broker)));
    let waiting = Arc::clone(&broker.waiting);
    duties.spawn(async move { waiting.watch_due_times().await });
}

/// Renews every delivery that ends until then, whoever holds it.
pub async fn renew_until(broker: &Arc<Broker>, until: Timestamp) {
    auto_renew::renew_all(broker, until, |_| true).await;
}
