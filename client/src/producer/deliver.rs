//! Gets a request to a broker that takes it: attempts, other brokers, other addresses.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use proto::{SendMessageRequest, v2};
use tokio::time::sleep;
use tracing::debug;

use super::streams::Streams;
use crate::{
    Code, Error,
    address::Address,
    client::Client,
    error::check,
    retry::{Attempts, Next, next_place},
};

/// Messages of one topic that go together.
#[derive(Clone, Debug)]
pub(super) struct Shipment {
    pub(super) topic: String,
    /// Encoded.
    pub(super) messages: Vec<Bytes>,
    /// The queue's place in the route.
    pub(super) picked: usize,
    /// Whether a retry must keep to it.
    pub(super) fixed: bool,
    pub(super) max_attempts: u32,
    /// Whether it may be sent again when it is not known what became of it.
    pub(super) repeatable: bool,
    /// Over a produce stream where there is one.
    pub(super) streamed: bool,
}

/// One entry per message, and who answered.
pub(super) type Delivered = (Vec<v2::SendResultEntry>, Address);

#[derive(Debug)]
pub(super) struct Courier {
    pub(super) client: Arc<Client>,
    pub(super) streams: Streams,
}

impl Courier {
    /// Sends until it is stored, refused, or was tried often enough. The messages keep their ids,
    /// so that a server that knows them already says so.
    pub(super) async fn deliver(&self, shipment: &Shipment) -> Result<Delivered, Error> {
        let mut attempts = Attempts::new(shipment.max_attempts, shipment.repeatable);
        let mut tried: Vec<(usize, Address)> = Vec::new();
        loop {
            let error = match self.attempt(shipment, &mut tried).await {
                Ok(delivered) => return Ok(delivered),
                Err(error) => error,
            };
            let error = if self.client.is_closed() { closed(error) } else { error };
            let backoff = self.client.settings().backoff;
            match attempts.failed(error.clone(), &backoff) {
                Next::GiveUp(error) => return Err(error),
                Next::Again { pause } => {
                    debug!(topic = %shipment.topic, attempt = attempts.made(), %error, "send again");
                    sleep(pause).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        shipment: &Shipment,
        tried: &mut Vec<(usize, Address)>,
    ) -> Result<Delivered, Error> {
        let route = self.client.route(&shipment.topic).await?;
        let queues = route.writable(&shipment.topic)?;
        // The route may have become shorter since.
        tried.retain(|(at, _)| *at < queues.len());
        let picked = shipment.picked % queues.len();
        let ways = |placed: &_| self.client.ways_to(placed);
        let (at, address) = next_place(queues, picked, shipment.fixed, tried, &ways);
        tried.push((at, address.clone()));
        let start = Instant::now();
        let answer = self.exchange(shipment, &address).await?;
        let entries = judge(&address, answer, shipment.messages.len());
        if entries.as_ref().is_err_and(Error::blames_address) {
            self.client.failed(&address);
        } else {
            self.client.answered(&address, start.elapsed());
        }
        Ok((entries?, address))
    }

    async fn exchange(
        &self,
        shipment: &Shipment,
        address: &Address,
    ) -> Result<v2::SendMessageResponse, Error> {
        let wait = self.client.config.request_timeout;
        let request = SendMessageRequest { messages: shipment.messages.clone() };
        if shipment.streamed {
            match self.streams.send(&self.client, address, request.clone(), wait).await {
                Err(Error::NoStreams { .. }) => {}
                answer => return answer,
            }
        }
        self.client
            .unary(address, request, wait, |mut rpc, request| async move {
                rpc.send_message(request).await
            })
            .await
    }
}

/// What was under way when the client was closed is not tried again.
fn closed(error: Error) -> Error {
    match error.fate() {
        crate::Fate::NotDone => Error::Closed,
        crate::Fate::Rejected | crate::Fate::Unknown => error,
    }
}

/// The entries of a good answer, and of one that is good for a part of the messages.
fn judge(
    address: &Address,
    answer: v2::SendMessageResponse,
    expected: usize,
) -> Result<Vec<v2::SendResultEntry>, Error> {
    let mixed = i32::from(Code::MultipleResults);
    let is_mixed = answer.status.as_ref().is_some_and(|status| status.code == mixed);
    if !is_mixed {
        check(address.as_str(), answer.status.as_ref())?;
    }
    if answer.entries.len() != expected {
        let missing = "an entry for each message";
        return Err(Error::Malformed { address: address.to_string(), missing });
    }
    Ok(answer.entries)
}
