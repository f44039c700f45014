//! AckMessage: one result for each entry, in order.

use gateway::{Caller, Miss};
use proto::{
    ConsumerGroup, Topic,
    v2::{AckMessageEntry, AckMessageRequest, AckMessageResponse, AckMessageResultEntry, Status},
};

use super::{local::Edge, status};
use crate::Error;

impl Edge {
    pub(super) async fn ack(
        &self,
        caller: &Caller,
        request: AckMessageRequest,
    ) -> Result<AckMessageResponse, Miss> {
        let entries = &request.entries;
        let handles: Vec<&str> = entries.iter().map(|e| e.receipt_handle.as_str()).collect();
        let outcome = async {
            let group = ConsumerGroup::from_resource(request.group.as_ref())?;
            let topic = Topic::from_resource(request.topic.as_ref())?;
            self.broker.ack(group, topic, &handles, caller.deadline).await
        };
        let statuses: Vec<Status> = match outcome.await {
            Ok(acknowledged) => acknowledged.iter().map(status_of).collect(),
            // The whole request failed: each of its entries did.
            Err(error) => vec![status::answer(&error)?; entries.len()],
        };
        Ok(response(request.entries, statuses))
    }
}

fn status_of(acknowledged: &Result<(), Error>) -> Status {
    match acknowledged {
        Ok(()) => status::ok(),
        Err(error) => status::of(error),
    }
}

fn response(entries: Vec<AckMessageEntry>, statuses: Vec<Status>) -> AckMessageResponse {
    let top = status::common(&statuses);
    let entries = entries
        .into_iter()
        .zip(statuses)
        .map(|(entry, status)| AckMessageResultEntry {
            message_id: entry.message_id,
            receipt_handle: entry.receipt_handle,
            status: Some(status),
        })
        .collect();
    AckMessageResponse { status: Some(top), entries }
}
