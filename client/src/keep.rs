//! Keeps a client fresh: heartbeats, routes, access points, the topology.

use std::{future::pending, sync::Arc, time::Duration};

use futures::future::join_all;
use proto::{
    limits,
    registry::{SnapshotRequest, registry_client::RegistryClient},
    v2,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tracing::{debug, info};

use crate::{Error, Fate, address::Address, client::Client, error::check};

/// Refreshes that failing calls ask for are this far apart.
const BETWEEN_REFRESHES: Duration = Duration::from_millis(300);
/// Before somebody else is asked for the topology.
const TOPOLOGY_PAUSE: Duration = Duration::from_secs(1);
/// A NameServer says something at least every 5 s.
const TOPOLOGY_SILENCE: Duration = Duration::from_secs(15);
/// Topics whose routes are asked for at a time.
const AT_ONCE: usize = 16;

/// Starts what lives as long as the client.
pub(crate) fn start(client: &Arc<Client>) {
    tokio::spawn(until_stopped(Arc::clone(client), heartbeats));
    tokio::spawn(until_stopped(Arc::clone(client), routes));
    tokio::spawn(until_stopped(Arc::clone(client), access_points));
    if client.config.direct {
        tokio::spawn(until_stopped(Arc::clone(client), topology));
    }
}

async fn until_stopped<F: Future<Output = ()>>(
    client: Arc<Client>,
    task: impl FnOnce(Arc<Client>) -> F,
) {
    let mut stop = client.stopped();
    tokio::select! {
        () = task(Arc::clone(&client)) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn heartbeats(client: Arc<Client>) {
    let every = client.config.heartbeat;
    let mut turns = interval_at(Instant::now() + every, every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        join_all(client.sessions().iter().map(|address| heartbeat(&client, address))).await;
    }
}

/// Also clears the suspicion against an address that failed: a call that is answered does.
async fn heartbeat(client: &Client, address: &Address) {
    let request = {
        let role = client.role.borrow();
        let group = role.group().map(|group| client.config.resource(group));
        v2::HeartbeatRequest { group, client_type: role.kind().into() }
    };
    let wait = client.config.request_timeout;
    let answer =
        client
            .unary(address, request, wait, |mut rpc, request| async move {
                rpc.heartbeat(request).await
            })
            .await;
    let answer = answer.and_then(|answer| check(address.as_str(), answer.status.as_ref()));
    if let Err(error) = answer {
        debug!(%address, %error, "heartbeat failed");
    }
}

async fn routes(client: Arc<Client>) {
    let every = client.config.route_refresh;
    let mut due = Instant::now() + every;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = client.refresh.notified() => {}
        }
        due = Instant::now() + every;
        for topics in client.known_topics().chunks(AT_ONCE) {
            let fetches = topics.iter().map(async |topic: &String| {
                if let Err(error) = client.fetch(topic).await {
                    debug!(%topic, %error, "route not refreshed");
                }
            });
            join_all(fetches).await;
        }
        client.meet();
        sleep(BETWEEN_REFRESHES).await;
    }
}

async fn access_points(client: Arc<Client>) {
    let Some(every) = client.config.discovery.refresh() else { return pending().await };
    loop {
        sleep(every).await;
        match client.config.discovery.find().await {
            Ok(found) => client.set_access_points(found),
            Err(error) => info!(%error, "access points not found anew"),
        }
    }
}

/// Watches who leads, at whichever access point tells it.
async fn topology(client: Arc<Client>) {
    loop {
        let (mut deaf, mut access) = (0, client.access_points());
        client.by_health(&mut access);
        for address in &access {
            match watch(&client, address).await {
                // It does not know the question: a broker, or somebody else's proxy.
                Err(error) if error.fate() == Fate::Rejected => deaf += 1,
                Err(error) => debug!(%address, %error, "topology not watched"),
                Ok(()) => {}
            }
        }
        // Where nobody tells it, nobody will soon.
        let pause = if deaf == access.len() { client.config.route_refresh } else { TOPOLOGY_PAUSE };
        sleep(pause).await;
    }
}

/// Learns from one NameServer until it falls silent.
async fn watch(client: &Client, address: &Address) -> Result<(), Error> {
    let failed = |status| Error::transport(address.as_str(), status);
    let silent = |_| Error::Timeout { address: address.to_string(), waited: TOPOLOGY_SILENCE };
    let mut registry = RegistryClient::new(client.pool.channel(address)?)
        .max_decoding_message_size(limits::GRPC_BYTES);
    let asked = registry.watch(SnapshotRequest::default());
    let opened = timeout(client.config.request_timeout, asked).await.map_err(silent)?;
    let mut said = opened.map_err(failed)?.into_inner();
    while let Some(said) =
        timeout(TOPOLOGY_SILENCE, said.message()).await.map_err(silent)?.map_err(failed)?
    {
        let changed = client.topology.write().is_ok_and(|mut topology| topology.learn(&said));
        if changed {
            debug!(%address, "a leader changed");
            client.refresh.notify_one();
        }
    }
    Ok(())
}
