//! What the gateway in this process asks of the broker.

use std::{sync::Arc, time::Instant};

use gateway::{Caller, Local, Miss, PullStream, ReceiveStream, TopicRoute};
use proto::{
    BrokerName, ClientId, ConsumerGroup, SendMessageRequest, Topic,
    session::GroupSettings,
    v2::{
        AckMessageRequest, AckMessageResponse, ChangeInvisibleDurationRequest,
        ChangeInvisibleDurationResponse, EndTransactionRequest, EndTransactionResponse,
        ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse,
        GetOffsetRequest, GetOffsetResponse, PullMessageRequest, QueryOffsetRequest,
        QueryOffsetResponse, RecallMessageRequest, RecallMessageResponse, ReceiveMessageRequest,
        SendMessageResponse, UpdateOffsetRequest, UpdateOffsetResponse,
    },
};
use tracing::error;

use super::status;
use crate::{
    Error, Fate,
    directory::route,
    metrics::Rpc,
    ops::{Broker, LONGEST_LOOK_UP},
};

/// The broker as the gateway sees it.
#[derive(Debug, Clone)]
pub struct Edge {
    pub(super) broker: Arc<Broker>,
}

impl Edge {
    /// Translates for `broker`.
    pub fn new(broker: Arc<Broker>) -> Self {
        Edge { broker }
    }

    /// Counts an RPC that began at `start`; 0 is the code of what goes back to the gateway.
    pub(super) fn count<T>(
        &self,
        rpc: Rpc,
        start: Instant,
        answer: &Result<T, Miss>,
        status: impl Fn(&T) -> Option<i32>,
    ) {
        let code = answer.as_ref().ok().and_then(status).unwrap_or_default();
        self.broker.metrics.answered(rpc, code, start.elapsed());
    }
}

/// The miss that an error of a look-up is. A rejection cannot come of looking.
pub(super) fn miss(error: &Error) -> Miss {
    match status::answer(error) {
        Err(miss) => miss,
        Ok(_) => match error.fate() {
            Fate::NotDone => Miss::NotDone,
            Fate::Rejected | Fate::Unknown => {
                error!(%error, "look-up failed");
                Miss::NotDone
            }
        },
    }
}

#[tonic::async_trait]
impl Local for Edge {
    fn broker_name(&self) -> Option<&BrokerName> {
        Some(self.broker.name())
    }

    async fn send_message(
        &self,
        caller: &Caller,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, Miss> {
        let start = Instant::now();
        let answer = self.send(caller, request).await;
        self.count(Rpc::Send, start, &answer, |a| a.status.as_ref().map(|s| s.code));
        answer
    }

    async fn receive_message(
        &self,
        caller: &Caller,
        request: ReceiveMessageRequest,
    ) -> Result<ReceiveStream, Miss> {
        self.receive(caller, request)
    }

    async fn ack_message(
        &self,
        caller: &Caller,
        request: AckMessageRequest,
    ) -> Result<AckMessageResponse, Miss> {
        let start = Instant::now();
        let answer = self.ack(caller, request).await;
        self.count(Rpc::Ack, start, &answer, |a| a.status.as_ref().map(|s| s.code));
        answer
    }

    async fn change_invisible_duration(
        &self,
        caller: &Caller,
        request: ChangeInvisibleDurationRequest,
    ) -> Result<ChangeInvisibleDurationResponse, Miss> {
        let start = Instant::now();
        let answer = self.change_invisible(caller, request).await;
        self.count(Rpc::ChangeInvisible, start, &answer, |a| a.status.as_ref().map(|s| s.code));
        answer
    }

    async fn pull_message(
        &self,
        caller: &Caller,
        request: PullMessageRequest,
    ) -> Result<PullStream, Miss> {
        self.pull(caller, &request)
    }

    async fn update_offset(
        &self,
        caller: &Caller,
        request: UpdateOffsetRequest,
    ) -> Result<UpdateOffsetResponse, Miss> {
        let start = Instant::now();
        let answer = self.update(caller, request).await;
        self.count(Rpc::UpdateOffset, start, &answer, |a| a.status.as_ref().map(|s| s.code));
        answer
    }

    async fn get_offset(
        &self,
        caller: &Caller,
        request: GetOffsetRequest,
    ) -> Result<GetOffsetResponse, Miss> {
        self.committed(caller, request).await
    }

    async fn query_offset(
        &self,
        caller: &Caller,
        request: QueryOffsetRequest,
    ) -> Result<QueryOffsetResponse, Miss> {
        self.find_offset(caller, request).await
    }

    async fn group_members(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
    ) -> Result<Vec<ClientId>, Miss> {
        self.broker.leading().map_err(|error| miss(&error))?;
        Ok(self.broker.clients().pulling(group, topic, Instant::now()))
    }

    async fn recall_message(
        &self,
        caller: &Caller,
        request: RecallMessageRequest,
    ) -> Result<RecallMessageResponse, Miss> {
        self.recall(caller, request).await
    }

    async fn end_transaction(
        &self,
        caller: &Caller,
        request: EndTransactionRequest,
    ) -> Result<EndTransactionResponse, Miss> {
        self.end(caller, request).await
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        caller: &Caller,
        request: ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<ForwardMessageToDeadLetterQueueResponse, Miss> {
        let start = Instant::now();
        let answer = Edge::forward_to_dead_letter_queue(self, caller, request).await;
        self.count(Rpc::ForwardToDeadLetterQueue, start, &answer, |a| {
            a.status.as_ref().map(|s| s.code)
        });
        answer
    }

    async fn describe_topic(
        &self,
        topic: &Topic,
        create: bool,
    ) -> Result<Option<TopicRoute>, Miss> {
        self.broker.leading().map_err(|error| miss(&error))?;
        let deadline = Instant::now() + LONGEST_LOOK_UP;
        let found = if create {
            self.broker.find_topic(topic, deadline).await
        } else {
            self.broker.look_up_topic(topic, deadline).await
        };
        match found {
            Ok(config) => Ok(config.map(|config| route(topic.clone(), config))),
            Err(error) => Err(miss(&error)),
        }
    }

    async fn group_settings(&self, group: &ConsumerGroup) -> Result<GroupSettings, Miss> {
        self.broker.leading().map_err(|error| miss(&error))?;
        Ok(self.broker.group_settings(group))
    }
}
