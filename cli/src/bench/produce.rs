//! Sends messages, at a rate or one after another, many at once.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use proto::{SendMessageRequest, v2};
use tokio::{task::JoinSet, time};

use super::{
    connection::{self, Client},
    load::LoadArgs,
    marks::Marks,
    pacing::{Pace, Schedule},
    progress::Progress,
    recorder::{Recorder, Summary, Window},
    template::{Look, Run, Stamp, Template},
};

/// After a failure a sender of a closed loop waits this long, then twice as long each time, so that
/// a server in trouble is not buried.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LAST_BACKOFF: Duration = Duration::from_millis(500);
/// Load is spread over this many queues at most.
const MAX_QUEUES: usize = 256;

/// What sending came to.
#[derive(Clone, Debug)]
pub(super) struct Produced {
    pub(super) sends: Summary,
    /// Sends of an open loop that were due when no sender was free.
    pub(super) not_sent: u64,
}

struct Shared {
    pace: Pace,
    /// One for each queue; they take turns, as with official producers.
    templates: Vec<Template>,
    batch: usize,
    next_number: AtomicU64,
    recorder: Mutex<Recorder>,
    /// Messages that the server said it stored, if anybody wants to know.
    stored: Option<Arc<Mutex<Marks>>>,
}

/// The window that counts when the load starts now.
pub(super) fn window(load: &LoadArgs) -> Window {
    let from = Instant::now() + load.warm_up;
    Window { from, to: from + load.duration }
}

/// Sends until the window closes, and waits for the last answers.
pub(super) async fn run(
    load: &LoadArgs,
    clients: &[Client],
    queues: &[v2::MessageQueue],
    run: Run,
    window: Window,
    stored: Option<Arc<Mutex<Marks>>>,
    progress: &Progress,
) -> Result<Produced> {
    let templates: Result<Vec<_>> =
        queues.iter().take(MAX_QUEUES).map(|queue| template(load, run, queue.id)).collect();
    let pace = match load.rate {
        None => Pace::closed(window.to),
        Some(rate) => Pace::open(Schedule::new(Instant::now(), load.batch as u64, rate), window.to),
    };
    let shared = Arc::new(Shared {
        pace,
        templates: templates?,
        batch: load.batch,
        next_number: AtomicU64::new(0),
        recorder: Mutex::new(Recorder::new(window)),
        stored,
    });
    let mut senders = JoinSet::new();
    for n in 0..load.in_flight {
        senders.spawn(send_until_the_end(clients[n % clients.len()].clone(), Arc::clone(&shared)));
    }
    progress.watch("sending", window, || recorded(&shared).total(), &mut senders).await?;
    let shared = Arc::into_inner(shared).expect("the senders are gone");
    let sends = shared.recorder.into_inner().expect("no sender panicked").summary();
    Ok(Produced { sends, not_sent: shared.pace.not_sent() })
}

/// How the messages for one queue look.
pub(super) fn template(load: &LoadArgs, run: Run, queue_id: i32) -> Result<Template> {
    let tag = load.tag.as_deref();
    let look = Look { topic: &load.topic, size: load.size, tag, keys: load.keys, queue_id };
    Template::new(run, &look)
}

fn recorded(shared: &Shared) -> std::sync::MutexGuard<'_, Recorder> {
    shared.recorder.lock().expect("no sender panics while it counts")
}

async fn send_until_the_end(mut client: Client, shared: Arc<Shared>) {
    let mut backoff = FIRST_BACKOFF;
    while let Some(due) = shared.pace.next().await {
        let count = shared.batch as u64;
        let first = shared.next_number.fetch_add(count, Ordering::Relaxed);
        let turn = usize::try_from(first / count).expect("as many as fit the memory");
        let template = &shared.templates[turn % shared.templates.len()];
        let message = |number| template.message(Stamp { number, due });
        let request =
            SendMessageRequest { messages: (first..first + count).map(message).collect() };
        let outcome = send(&mut client, request).await;
        let ended = Instant::now();
        match outcome {
            Ok(()) => {
                backoff = FIRST_BACKOFF;
                recorded(&shared).success(due, ended, count);
                if let Some(stored) = &shared.stored {
                    let mut stored = stored.lock().expect("nobody panics while marking");
                    for number in first..first + count {
                        stored.mark(number);
                    }
                }
            }
            Err(what) => {
                recorded(&shared).failure(due, &what);
                if matches!(shared.pace, Pace::Closed { .. }) {
                    time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LAST_BACKOFF);
                }
            }
        }
    }
}

/// Sends one request; all its messages are stored, or the name of the failure comes back.
pub(super) async fn send(client: &mut Client, request: SendMessageRequest) -> Result<(), String> {
    let expected = request.messages.len();
    // The deadline of the call, and a little more in case nobody keeps it.
    let deadline = client.timeout() + Duration::from_secs(1);
    let answer = match time::timeout(deadline, call(client, request)).await {
        Ok(answer) => answer?,
        Err(_) => return Err("no answer".into()),
    };
    connection::verdict(answer.status.as_ref())?;
    if answer.entries.len() != expected {
        return Err("answer without an entry for each message".into());
    }
    answer.entries.iter().try_for_each(|entry| connection::verdict(entry.status.as_ref()))
}

async fn call(
    client: &mut Client,
    request: SendMessageRequest,
) -> Result<v2::SendMessageResponse, String> {
    if let Some(pipe) = client.pipe() {
        return pipe.send(request).await.ok_or_else(|| "produce stream broke".into());
    }
    let request = client.request(request);
    let answer = client.rpc.send_message(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| connection::failure(&status))
}
