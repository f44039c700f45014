//! What happens to received messages until their fate is known.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, time::sleep};
use tracing::{Instrument, info_span, warn};

use super::{ConsumeResult, Shared};
use crate::{Error, Fate, MessageView, consumer::rpc};

/// How often a message that failed is given back before it is left to the end of its time.
const GIVE_BACKS: u32 = 5;
/// How often a message is given up before it is left to the server to do so.
const GIVE_UPS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// Begins to work on messages that were received together. Each holds a permit of `room` until its
/// fate is known.
pub(super) fn begin(
    shared: &Arc<Shared>,
    messages: Vec<MessageView>,
    mut room: OwnedSemaphorePermit,
    fifo: bool,
) {
    let mut held = |message| room.split(1).map(|permit| (message, permit));
    if !fifo {
        for message in messages {
            let Some((message, permit)) = held(message) else { return };
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                consume(&shared, message).await;
                drop(permit);
            });
        }
        return;
    }
    // Those of one message group one after the other, those without one as one group.
    let mut groups: HashMap<(i32, Option<String>), Vec<_>> = HashMap::new();
    for message in messages {
        let key = (message.queue().id(), message.message_group().map(str::to_owned));
        groups.entry(key).or_default().extend(held(message));
    }
    for group in groups.into_values() {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            for (message, permit) in group {
                // What comes after a message whose fate is open must wait for it.
                if !consume_in_order(&shared, message).await {
                    return;
                }
                drop(permit);
            }
        });
    }
}

/// Calls the listener once it is its turn; `None` when the consumer stopped before.
async fn call(shared: &Shared, message: &MessageView) -> Option<ConsumeResult> {
    let _turn = shared.turns.acquire().await.ok()?;
    match shared.is_stopping() {
        true => None,
        false => Some(listen(shared, message).await),
    }
}

async fn listen(shared: &Shared, message: &MessageView) -> ConsumeResult {
    let span = info_span!(
        "process",
        topic = message.topic(),
        message_id = message.message_id(),
        attempt = message.delivery_attempt(),
        parent = tracing::field::Empty,
    );
    if let Some(propagation) = &shared.propagation {
        propagation.resume(&span, message);
    }
    shared.listener.consume(message.clone()).instrument(span).await
}

/// Acknowledges first. Once that is done the listener is called even if the consumer stops: nobody
/// else will get the message. Whether the next one may follow.
async fn consume_at_most_once(shared: &Shared, message: MessageView) -> bool {
    let Ok(_turn) = shared.turns.acquire().await else { return false };
    if shared.is_stopping() || !shared.acker.ack(message.clone()).await {
        return false;
    }
    listen(shared, &message).await;
    true
}

async fn consume(shared: &Shared, message: MessageView) {
    if shared.at_most_once {
        consume_at_most_once(shared, message).await;
        return;
    }
    match call(shared, &message).await {
        Some(ConsumeResult::Success) => {
            shared.acker.ack(message).await;
        }
        Some(ConsumeResult::Failure) => give_back(shared, &message).await,
        None => {}
    }
}

/// Lets it come again after a pause that grows with its attempts.
async fn give_back(shared: &Shared, message: &MessageView) {
    let wait = shared.client.settings().backoff.after(message.delivery_attempt());
    repeat(GIVE_BACKS, "given back", || async {
        rpc::change_invisible(&shared.client, &shared.group, message, wait).await.map(|_| ())
    })
    .await;
}

/// Whether the next message of its group may be consumed.
async fn consume_in_order(shared: &Shared, message: MessageView) -> bool {
    if shared.at_most_once {
        return consume_at_most_once(shared, message).await;
    }
    let mut attempt = message.delivery_attempt();
    loop {
        let settings = shared.client.settings();
        match call(shared, &message).await {
            None => return false,
            Some(ConsumeResult::Success) => return shared.acker.ack(message).await,
            Some(ConsumeResult::Failure) if attempt >= settings.attempts => {
                return repeat(GIVE_UPS, "given up", || async {
                    let (client, group) = (&shared.client, &shared.group);
                    rpc::give_up(client, group, &message, attempt, settings.attempts).await
                })
                .await;
            }
            Some(ConsumeResult::Failure) => {
                let mut stopping = shared.stopping.subscribe();
                tokio::select! {
                    () = sleep(settings.backoff.after(attempt)) => attempt += 1,
                    _ = stopping.wait_for(|stopping| *stopping) => return false,
                }
            }
        }
    }
}

/// Tries until it is done, refused, or was tried often enough; whether it is done.
async fn repeat<F>(times: u32, what: &str, call: impl Fn() -> F) -> bool
where
    F: Future<Output = Result<(), Error>>,
{
    for turn in 1..=times {
        match call().await {
            Ok(()) => return true,
            Err(error) if error.fate() == Fate::Rejected || turn == times => {
                warn!(%error, "a message could not be {what}");
                return false;
            }
            Err(_) => sleep(PAUSE * turn).await,
        }
    }
    false
}
