//! RecallMessage: a producer takes a delayed message back.

use std::time::Instant;

use gateway::{Caller, Miss};
use proto::{
    Topic,
    v2::{RecallMessageRequest, RecallMessageResponse},
};

use super::{local::Edge, status};
use crate::metrics::Rpc;

impl Edge {
    pub(super) async fn recall(
        &self,
        caller: &Caller,
        request: RecallMessageRequest,
    ) -> Result<RecallMessageResponse, Miss> {
        let start = Instant::now();
        let outcome = async {
            let topic = Topic::from_resource(request.topic.as_ref())?;
            self.broker.recall(&topic, &request.recall_handle, caller.deadline).await
        };
        let answer = match outcome.await {
            Ok(message_id) => Ok(RecallMessageResponse { status: Some(status::ok()), message_id }),
            Err(error) => status::answer(&error).map(|status| RecallMessageResponse {
                status: Some(status),
                message_id: String::new(),
            }),
        };
        self.count(Rpc::Recall, start, &answer, |a| a.status.as_ref().map(|s| s.code));
        answer
    }
}
