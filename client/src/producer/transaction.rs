//! Messages that are seen only when something else has happened.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures::FutureExt;
use proto::v2;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{deliver::Courier, receipt::SendReceipt};
use crate::{Error, MessageView, address::Address, client::Client, error::check, session::Orphan};

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The message becomes visible.
    Commit,
    /// Nobody will ever see it.
    Rollback,
    /// Not known yet: the cluster asks again later.
    Unknown,
}

type Verdict = Pin<Box<dyn Future<Output = Resolution> + Send>>;
/// Says how the transaction of a message ended.
pub(super) type Checker = Arc<dyn Fn(MessageView) -> Verdict + Send + Sync>;

/// A message that is stored and seen by nobody yet.
///
/// Dropping it leaves it open: the cluster asks the producer's checker then.
#[derive(Debug)]
#[must_use = "nobody sees the message before it is committed"]
pub struct Transaction {
    courier: Arc<Courier>,
    topic: String,
    receipt: SendReceipt,
    address: Address,
}

impl Transaction {
    pub(super) fn new(
        courier: Arc<Courier>,
        topic: String,
        receipt: SendReceipt,
        address: Address,
    ) -> Self {
        Self { courier, topic, receipt, address }
    }

    /// Of the message.
    #[must_use]
    pub fn receipt(&self) -> &SendReceipt {
        &self.receipt
    }

    /// Makes the message visible. Can be repeated when its outcome is unknown, and the first verdict
    /// counts.
    ///
    /// # Errors
    /// When the transaction ended otherwise before, or the answer was lost.
    pub async fn commit(&self) -> Result<(), Error> {
        self.end(Resolution::Commit).await
    }

    /// Makes sure that nobody ever sees the message.
    ///
    /// # Errors
    /// When the transaction ended otherwise before, or the answer was lost.
    pub async fn rollback(&self) -> Result<(), Error> {
        self.end(Resolution::Rollback).await
    }

    pub(super) async fn end(&self, resolution: Resolution) -> Result<(), Error> {
        let ended = Ended {
            topic: Some(self.courier.client.config.resource(&self.topic)),
            message_id: self.receipt.message_id(),
            transaction_id: self.receipt.transaction_id(),
            resolution,
            source: v2::TransactionSource::SourceClient,
        };
        end(&self.courier.client, &self.address, ended).await
    }
}

struct Ended<'a> {
    topic: Option<v2::Resource>,
    message_id: &'a str,
    transaction_id: &'a str,
    resolution: Resolution,
    source: v2::TransactionSource,
}

/// Tells a verdict, to the one who knows the transaction first, and repeats it elsewhere: the same
/// verdict twice is one verdict.
async fn end(client: &Client, first: &Address, ended: Ended<'_>) -> Result<(), Error> {
    let resolution = match ended.resolution {
        Resolution::Commit => v2::TransactionResolution::Commit,
        Resolution::Rollback => v2::TransactionResolution::Rollback,
        // The cluster asks again by itself.
        Resolution::Unknown => return Ok(()),
    };
    let request = v2::EndTransactionRequest {
        topic: ended.topic,
        message_id: ended.message_id.to_owned(),
        transaction_id: ended.transaction_id.to_owned(),
        resolution: resolution.into(),
        source: ended.source.into(),
        trace_context: String::new(),
    };
    let wait = client.config.request_timeout;
    let mut addresses = vec![first.clone()];
    addresses.extend(client.access_points().into_iter().filter(|address| address != first));
    // A second turn, for those who were in the middle of an election.
    addresses.extend(addresses.clone());
    client
        .anywhere(addresses, |address| {
            let request = request.clone();
            async move {
                let answer = client
                    .unary(&address, request, wait, |mut rpc, request| async move {
                        rpc.end_transaction(request).await
                    })
                    .await?;
                check(address.as_str(), answer.status.as_ref())
            }
        })
        .await
}

/// Answers the cluster's questions about transactions that were left open, one after the other.
pub(super) async fn answer(
    client: Arc<Client>,
    checker: Option<Checker>,
    mut orphans: mpsc::Receiver<Orphan>,
) {
    let mut stopped = client.stopped();
    loop {
        let orphan = tokio::select! {
            orphan = orphans.recv() => orphan,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let Some(orphan) = orphan else { return };
        let Some(checker) = &checker else {
            debug!("no checker for a transaction that was left open");
            continue;
        };
        if let Err(error) = resolve(&client, checker, orphan).await {
            warn!(%error, "a transaction that was left open is still open");
        }
    }
}

async fn resolve(client: &Client, checker: &Checker, orphan: Orphan) -> Result<(), Error> {
    let Orphan { message, transaction_id, address } = orphan;
    let topic = message.topic.clone();
    let view = MessageView::from_wire(message, "", &address)?;
    let message_id = view.message_id().to_owned();
    let verdict = AssertUnwindSafe(async { checker(view).await }).catch_unwind().await;
    // A checker that panics does not know.
    let resolution = verdict.unwrap_or(Resolution::Unknown);
    let ended = Ended {
        topic,
        message_id: &message_id,
        transaction_id: &transaction_id,
        resolution,
        source: v2::TransactionSource::SourceServerCheck,
    };
    end(client, &address, ended).await
}
