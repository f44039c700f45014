//! ChangeInvisibleDuration: renews a delivery or gives it back.

use std::time::Duration;

use gateway::{Caller, Miss};
use proto::{
    ConsumerGroup, Topic, clock,
    v2::{ChangeInvisibleDurationRequest, ChangeInvisibleDurationResponse},
};

use super::{local::Edge, status};
use crate::Error;

impl Edge {
    pub(super) async fn change_invisible(
        &self,
        caller: &Caller,
        request: ChangeInvisibleDurationRequest,
    ) -> Result<ChangeInvisibleDurationResponse, Miss> {
        let ChangeInvisibleDurationRequest { group, topic, receipt_handle, .. } = &request;
        let wait = request.invisible_duration.as_ref().map(clock::duration);
        let outcome = async {
            let group = ConsumerGroup::from_resource(group.as_ref())?;
            let topic = Topic::from_resource(topic.as_ref())?;
            // Absent means at once; what cannot be a duration is negative.
            let negative = Error::InvisibleTooSmall { asked: Duration::ZERO, min: Duration::ZERO };
            let wait = wait.unwrap_or(Some(Duration::ZERO)).ok_or(negative)?;
            self.broker.change_invisible(group, topic, receipt_handle, wait, caller.deadline).await
        };
        let status = match outcome.await {
            Ok(()) => status::ok(),
            Err(error) => status::answer(&error)?,
        };
        // The delivery keeps its name, so old and new handle are one; after a refusal the client
        // goes on with the one that it has.
        let receipt_handle = request.receipt_handle;
        Ok(ChangeInvisibleDurationResponse { status: Some(status), receipt_handle })
    }
}
