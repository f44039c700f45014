//! Acknowledgements: many share a request, and each is repeated until its fate is known.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use proto::limits;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, warn};

use super::rpc;
use crate::{Error, Fate, MessageView, client::Client};

/// Acknowledgements that wait for the acker.
const WAITING: usize = 4096;
/// Of those that wait, how many share a request at most.
const TOGETHER: usize = 256;
/// Requests under way.
const UNDER_WAY: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Acknowledges messages of any topics and brokers once; one result for each, in their order.
pub(super) async fn ack_many(
    client: &Client,
    group: &str,
    messages: &[MessageView],
) -> Vec<Result<(), Error>> {
    let mut parts: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (at, message) in messages.iter().enumerate() {
        let key = (message.topic(), message.queue().broker_name());
        parts.entry(key).or_default().push(at);
    }
    let requests: Vec<&[usize]> =
        parts.values().flat_map(|part| part.chunks(limits::ACK_ENTRIES)).collect();
    let answers = requests.iter().map(|part| {
        let part: Vec<MessageView> = part.iter().map(|at| messages[*at].clone()).collect();
        async move { rpc::ack(client, group, &part).await }
    });
    let answers = join_all(answers).await;
    let mut results: Vec<Result<(), Error>> = messages.iter().map(|_| Ok(())).collect();
    for (part, answer) in requests.iter().zip(answers) {
        for (at, result) in part.iter().zip(answer) {
            results[*at] = result;
        }
    }
    results
}

type Waiting = (MessageView, oneshot::Sender<bool>);

/// Acknowledges in the background. Ends with its last clone, after everything is acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Acker(mpsc::Sender<Waiting>);

impl Acker {
    pub(super) fn start(client: Arc<Client>, group: String) -> Self {
        let (submit, waiting) = mpsc::channel(WAITING);
        tokio::spawn(run(client, group, waiting));
        Self(submit)
    }

    /// Whether the message is acknowledged: `false` when its time was over before. Waits until that
    /// is known, which takes as long as the cluster has no leader.
    pub(super) async fn ack(&self, message: MessageView) -> bool {
        let (tell, told) = oneshot::channel();
        if self.0.send((message, tell)).await.is_err() {
            return false;
        }
        told.await.unwrap_or(false)
    }
}

async fn run(client: Arc<Client>, group: String, mut waiting: mpsc::Receiver<Waiting>) {
    let group: Arc<str> = group.into();
    let mut under_way = JoinSet::new();
    let mut together = Vec::with_capacity(TOGETHER);
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            count = waiting.recv_many(&mut together, TOGETHER),
                if open && under_way.len() < UNDER_WAY =>
            {
                open = count > 0;
                if open {
                    let batch = std::mem::take(&mut together);
                    under_way.spawn(ack_all(Arc::clone(&client), Arc::clone(&group), batch));
                }
            }
            Some(_) = under_way.join_next() => {}
        }
    }
}

async fn ack_all(client: Arc<Client>, group: Arc<str>, mut waiting: Vec<Waiting>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let messages: Vec<_> = waiting.iter().map(|(message, _)| message.clone()).collect();
        let results = ack_many(&client, &group, &messages).await;
        let mut left = Vec::new();
        for ((message, tell), result) in waiting.into_iter().zip(results) {
            match result {
                // Whoever waited has been told to stop waiting.
                Ok(()) => drop(tell.send(true)),
                Err(error) if error.fate() == Fate::Rejected => {
                    warn!(%error, message_id = message.message_id(), "not acknowledged");
                    let _ = tell.send(false);
                }
                Err(error) => {
                    debug!(%error, "acknowledge again");
                    left.push((message, tell));
                }
            }
        }
        // After the client was stopped there is nobody to acknowledge for.
        if left.is_empty() || client.is_closed() {
            return;
        }
        waiting = left;
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
