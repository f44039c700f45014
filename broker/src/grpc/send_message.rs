//! SendMessage: one answer for each message, in order; all stored or none.

use gateway::{Caller, Miss};
use proto::{
    SendMessageRequest,
    v2::{SendMessageResponse, SendResultEntry, Status},
};

use super::{local::Edge, status};
use crate::ops::Sent;

impl Edge {
    pub(super) async fn send(
        &self,
        caller: &Caller,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, Miss> {
        let sent = self.broker.send(caller.client_id.as_ref(), request, caller.deadline).await;
        match sent {
            Ok(sent) => Ok(stored(sent)),
            Err(error) => status::answer(&error).map(refused),
        }
    }
}

fn stored(sent: Vec<Sent>) -> SendMessageResponse {
    let entry = |sent: Sent| SendResultEntry {
        status: Some(status::ok()),
        message_id: sent.message_id,
        offset: sent.offset.map_or(0, |offset| i64::try_from(offset.0).unwrap_or(i64::MAX)),
        transaction_id: sent.transaction.map(|id| id.to_string()).unwrap_or_default(),
        recall_handle: sent.recall.map(|handle| handle.to_string()).unwrap_or_default(),
    };
    SendMessageResponse {
        status: Some(status::ok()),
        entries: sent.into_iter().map(entry).collect(),
    }
}

/// Nothing was stored: a status for the whole request, and no entries.
fn refused(status: Status) -> SendMessageResponse {
    SendMessageResponse { status: Some(status), entries: Vec::new() }
}
