//! Sends submitted messages in batches, in the background.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use futures::FutureExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use super::{
    deliver::{Courier, Shipment},
    lanes::{Bounds, Lane, Lanes},
    outgoing::Outgoing,
    receipt::{SendReceipt, receipt},
};
use crate::Error;

/// Messages and bytes of one batch: large enough to make the call around it cheap, small enough for
/// one command of the log.
const BATCH: Bounds = Bounds { messages: 256, bytes: 512 << 10, under_way: 16 };
/// Submitted messages that the batcher has not looked at.
const SUBMITTED: usize = 4096;
/// Bytes are counted in units of this many, because a semaphore counts to 2^29 or so.
const UNIT: usize = 64;

/// What to do with a result.
pub(super) enum Done {
    Tell(oneshot::Sender<Result<SendReceipt, Error>>),
    Call(Box<dyn FnOnce(Result<SendReceipt, Error>) + Send>),
}

impl Done {
    fn tell(self, result: Result<SendReceipt, Error>) {
        match self {
            // Whoever dropped the future does not want to know.
            Self::Tell(sender) => drop(sender.send(result)),
            Self::Call(call) => call(result),
        }
    }
}

struct Item {
    outgoing: Outgoing,
    done: Done,
    _room: Room,
}

/// What a message takes of the producer's bounds until its result is known.
struct Room {
    _message: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

struct Submitted {
    lane: Lane,
    item: Item,
}

/// A submitted message. Resolves when its fate is known; dropping it does not take the message back.
#[must_use = "the message is on its way, but only this tells whether it was stored"]
#[derive(Debug)]
pub struct Sending(oneshot::Receiver<Result<SendReceipt, Error>>);

impl Future for Sending {
    type Output = Result<SendReceipt, Error>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(context).map(|told| {
            // The batcher went away with the runtime.
            told.unwrap_or_else(|_| Err(Error::AfterUnknown { last: Box::new(Error::Closed) }))
        })
    }
}

impl Sending {
    pub(super) fn new() -> (Done, Self) {
        let (tell, told) = oneshot::channel();
        (Done::Tell(tell), Self(told))
    }
}

/// The door to the batcher. It ends, after everything submitted has ended, when this is dropped.
pub(super) struct Batcher {
    submit: mpsc::Sender<Submitted>,
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_messages: usize,
    max_units: usize,
}

impl Batcher {
    pub(super) fn start(
        courier: Arc<Courier>,
        max_attempts: u32,
        streamed: bool,
        max_messages: usize,
        max_bytes: usize,
    ) -> Self {
        let (submit, submitted) = mpsc::channel(SUBMITTED);
        tokio::spawn(run(courier, max_attempts, streamed, submitted));
        let max_units = (max_bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let max_messages = max_messages.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            submit,
            messages: Arc::new(Semaphore::new(max_messages)),
            bytes: Arc::new(Semaphore::new(max_units)),
            max_messages,
            max_units,
        }
    }

    /// Waits for room, or refuses when there is none.
    pub(super) async fn submit(
        &self,
        lane: Lane,
        outgoing: Outgoing,
        done: Done,
        wait: bool,
    ) -> Result<(), Error> {
        let units = (outgoing.encoded.len() / UNIT + 1).min(self.max_units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let (messages, bytes) = (Arc::clone(&self.messages), Arc::clone(&self.bytes));
        let full = || Error::Overloaded { in_flight: self.max_messages };
        let (message, bytes) = if wait {
            let message = messages.acquire_owned().await.map_err(|_| Error::Closed)?;
            (message, bytes.acquire_many_owned(units).await.map_err(|_| Error::Closed)?)
        } else {
            let message = messages.try_acquire_owned().map_err(|_| full())?;
            (message, bytes.try_acquire_many_owned(units).map_err(|_| full())?)
        };
        let room = Room { _message: message, _bytes: bytes };
        let item = Item { outgoing, done, _room: room };
        self.submit.send(Submitted { lane, item }).await.map_err(|_| Error::Closed)
    }

    /// Waits until the fate of everything that was submitted before is known.
    pub(super) async fn flush(&self) {
        let all = u32::try_from(self.max_messages).unwrap_or(u32::MAX);
        // Held by nobody for longer than a batch takes; it is never closed.
        drop(self.messages.acquire_many(all).await);
    }
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.messages.available_permits();
        f.debug_struct("Batcher").field("under_way", &(self.max_messages - free)).finish()
    }
}

async fn run(
    courier: Arc<Courier>,
    max_attempts: u32,
    streamed: bool,
    mut submitted: mpsc::Receiver<Submitted>,
) {
    let mut lanes: Lanes<Item> = Lanes::new(BATCH);
    let mut under_way: JoinSet<Lane> = JoinSet::new();
    let mut together = Vec::with_capacity(BATCH.messages);
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            count = submitted.recv_many(&mut together, BATCH.messages), if open => {
                open = count > 0;
                for Submitted { lane, item } in together.drain(..) {
                    let bytes = item.outgoing.encoded.len();
                    lanes.push(lane, item, bytes);
                }
            }
            Some(ended) = under_way.join_next() => match ended {
                Ok(lane) => lanes.done(&lane),
               // Cannot happen: nothing in a batch panics or is cancelled.
                Err(error) => tracing::error!(%error, "a batch ended early"),
            },
        }
        while let Some((lane, items)) = lanes.next() {
            let courier = Arc::clone(&courier);
            under_way.spawn(async move {
                send(&courier, &lane, items, max_attempts, streamed).await;
                lane
            });
        }
    }
}

async fn send(courier: &Courier, lane: &Lane, items: Vec<Item>, max_attempts: u32, streamed: bool) {
    let shipment = Shipment {
        topic: lane.topic.clone(),
        messages: items.iter().map(|item| item.outgoing.encoded.clone()).collect(),
        picked: lane.picked,
        fixed: lane.fixed,
        max_attempts,
        repeatable: true,
        streamed,
    };
    match courier.deliver(&shipment).await {
        Ok((entries, address)) => {
            for (item, entry) in items.into_iter().zip(entries) {
                let result = receipt(address.as_str(), &item.outgoing.message_id, entry);
                tell(item, result);
            }
        }
        Err(error) => items.into_iter().for_each(|item| tell(item, Err(error.clone()))),
    }
}

/// A callback that panics must not take the other messages of its batch with it.
fn tell(item: Item, result: Result<SendReceipt, Error>) {
    let done = std::panic::AssertUnwindSafe(|| item.done.tell(result));
    if std::panic::catch_unwind(done).is_err() {
        tracing::error!("a send callback panicked");
    }
}
