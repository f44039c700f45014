//! Which queues are polled, and the polls.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tracing::{debug, info};

use super::{Shared, work};
use crate::{
    Code, Error, FilterExpression,
    consumer::rpc::{self, Receive},
    ids,
    route::Placed,
    settings::Role,
};

/// How often assignments are asked for, as official clients do.
const SCAN: Duration = Duration::from_secs(5);
/// After a poll that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// After a poll that failed because of the connection: another way is there by then.
const SHORT_PAUSE: Duration = Duration::from_millis(50);

/// One queue and its filter: what a poll is about.
type Polled = (Placed, FilterExpression);

/// Polls what this consumer is assigned, until it stops.
pub(super) async fn keep_assignments(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let mut polls: HashMap<Polled, watch::Sender<bool>> = HashMap::new();
    loop {
        scan(&shared, &mut polls).await;
        tokio::select! {
            () = sleep(SCAN) => {}
            () = shared.rescan.notified() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    // Each poll sees for itself that the consumer is stopping.
}

/// Begins polls of new assignments, and ends those of lost ones. Where nobody answers, everything
/// stays as it is.
async fn scan(shared: &Arc<Shared>, polls: &mut HashMap<Polled, watch::Sender<bool>>) {
    let subscriptions = match &*shared.client.role.borrow() {
        Role::Consumer { subscriptions, .. } => subscriptions.clone(),
        Role::Producer { .. } => Vec::new(),
    };
    polls.retain(|(placed, filter), stop| {
        let kept = subscriptions
            .iter()
            .any(|(topic, wanted)| topic == placed.queue.topic() && wanted == filter);
        if !kept {
            stop.send_replace(true);
        }
        kept
    });
    for (topic, filter) in subscriptions {
        let assigned = match rpc::assignments(&shared.client, &shared.group, &topic).await {
            Ok(assigned) => assigned,
            Err(error) => {
                debug!(%topic, %error, "assignments not asked for anew");
                continue;
            }
        };
        polls.retain(|(placed, _), stop| {
            let kept = placed.queue.topic() != topic || assigned.contains(placed);
            if !kept {
                info!(queue = %placed.queue, "queue taken away");
                stop.send_replace(true);
            }
            kept
        });
        for placed in assigned {
            polls.entry((placed.clone(), filter.clone())).or_insert_with(|| {
                let stop = watch::Sender::new(false);
                let stopped = stop.subscribe();
                tokio::spawn(poll_until(Arc::clone(shared), placed, filter.clone(), stopped));
                stop
            });
        }
    }
}

async fn poll_until(
    shared: Arc<Shared>,
    placed: Placed,
    filter: FilterExpression,
    mut stop: watch::Receiver<bool>,
) {
    let mut stopping = shared.stopping.subscribe();
    tokio::select! {
        () = poll(&shared, &placed, &filter) => {}
        _ = stop.wait_for(|stop| *stop) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// Receives and hands over, for ever. Messages that arrive are handed over before the next await,
/// so that no stop can come in between.
async fn poll(shared: &Arc<Shared>, placed: &Placed, filter: &FilterExpression) {
    let mut paused = shared.paused.subscribe();
    let mut attempt_id = ids::message_id();
    loop {
        let Ok(_) = paused.wait_for(|paused| !paused).await else { return };
        let settings = shared.client.settings();
        // One permit is waited for, the others are taken as far as they are there.
        let Ok(mut room) = Arc::clone(&shared.room).acquire_owned().await else { return };
        let more = shared.room.available_permits().min(settings.receive_batch.saturating_sub(1));
        if let Ok(more) = u32::try_from(more)
            && let Ok(more) = Arc::clone(&shared.room).try_acquire_many_owned(more)
        {
            room.merge(more);
        }
        let receive = Receive {
            group: &shared.group,
            placed,
            filter,
            batch: room.num_permits(),
            invisible: None,
            poll: settings.long_poll,
            attempt_id: &attempt_id,
        };
        let received = tokio::select! {
            received = rpc::receive(&shared.client, &receive) => received,
            // A pause must not wait for the poll to end, which takes 20 s.
            _ = paused.wait_for(|paused| *paused) => continue,
        };
        match received {
            Ok(messages) => {
                if !messages.is_empty() {
                    attempt_id = ids::message_id();
                    work::begin(shared, messages, room, settings.fifo);
                }
            }
            Err(error) => {
                drop(room);
                pause_after(shared, placed, &error).await;
            }
        }
    }
}

async fn pause_after(shared: &Shared, placed: &Placed, error: &Error) {
    debug!(queue = %placed.queue, %error, "poll failed");
    let pause = match error {
        Error::Transport { .. } | Error::Timeout { .. } => SHORT_PAUSE,
        _ => PAUSE,
    };
    if error.code() == Some(Code::TopicNotFound) {
        shared.rescan.notify_one();
    }
    sleep(pause).await;
}
