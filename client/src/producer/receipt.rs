//! What a producer holds in hand after a send.

use proto::v2;

use crate::{Error, error::check};

/// The message is stored, on whatever the cluster calls safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendReceipt {
    message_id: String,
    offset: i64,
    transaction_id: String,
    recall_handle: Option<String>,
}

impl SendReceipt {
    /// The id that consumers see.
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// Its offset in its queue; 0 for delayed and transactional messages, which are in none yet.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// With what a delayed message is taken back.
    #[must_use]
    pub fn recall_handle(&self) -> Option<&str> {
        self.recall_handle.as_deref()
    }

    pub(crate) fn transaction_id(&self) -> &str {
        &self.transaction_id
    }
}

/// What a server says of one message of a request.
pub(crate) fn receipt(
    address: &str,
    message_id: &str,
    entry: v2::SendResultEntry,
) -> Result<SendReceipt, Error> {
    check(address, entry.status.as_ref())?;
    let recall_handle = Some(entry.recall_handle).filter(|handle| !handle.is_empty());
    Ok(SendReceipt {
        message_id: message_id.to_owned(),
        offset: entry.offset,
        transaction_id: entry.transaction_id,
        recall_handle,
    })
}
