//! ForwardMessageToDeadLetterQueue: a consumer that keeps order gives a message up.

use gateway::{Caller, Miss};
use proto::{
    ConsumerGroup, Topic,
    v2::{ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse},
};

use super::{local::Edge, status};

impl Edge {
    pub(super) async fn forward_to_dead_letter_queue(
        &self,
        caller: &Caller,
        request: ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<ForwardMessageToDeadLetterQueueResponse, Miss> {
        let outcome = async {
            let group = ConsumerGroup::from_resource(request.group.as_ref())?;
            let topic = Topic::from_resource(request.topic.as_ref())?;
            self.broker.give_up(group, topic, &request.receipt_handle, caller.deadline).await
        };
        let status = match outcome.await {
            Ok(()) => status::ok(),
            Err(error) => status::answer(&error)?,
        };
        Ok(ForwardMessageToDeadLetterQueueResponse { status: Some(status) })
    }
}
