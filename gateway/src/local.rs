//! What a gateway may ask of the broker that it lives in.

use std::pin::Pin;

use futures::Stream;
use proto::{
    BrokerName, ClientId, ConsumerGroup, SendMessageRequest, Topic, session::GroupSettings, v2,
};
use tonic::Status;

use crate::{Caller, TopicRoute};

/// The answer to ReceiveMessage while it is being written. Dropping it cancels the poll.
///
/// An `Err` as the very first item, made by [`crate::status::refusal`], counts like a [`Miss`]:
/// nothing was told to the client yet, so the gateway may ask another node.
pub type ReceiveStream =
    Pin<Box<dyn Stream<Item = Result<v2::ReceiveMessageResponse, Status>> + Send + 'static>>;

/// The answer to PullMessage while it is being written. Dropping it cancels the pull. Its first item
/// counts as in a [`ReceiveStream`].
pub type PullStream =
    Pin<Box<dyn Stream<Item = Result<v2::PullMessageResponse, Status>> + Send + 'static>>;

/// Why a node gave no answer of its own. Everything a client can be told (a bad name, an overload)
/// is an answer, and travels in the response's payload instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// Another node leads, or none does. Nothing was done.
    NotLeader {
        /// Client address of the leader, where it is known.
        leader: Option<String>,
    },
    /// Refused before anything was proposed. Nothing was done.
    NotDone,
    /// Proposed, and the outcome is not known.
    Unknown,
}

/// The operations that only the leader of a broker group can perform, on the node at hand.
///
/// Each looks at this node alone and never forwards: finding the leader is the gateway's business.
/// An implementation must answer with [`Miss::NotLeader`] without delay when it does not lead.
#[tonic::async_trait]
pub trait Local: Send + Sync + 'static {
    /// The broker group that this node replicates; none on a NameServer.
    fn broker_name(&self) -> Option<&BrokerName>;

    /// Stores the messages, all or none.
    async fn send_message(
        &self,
        caller: &Caller,
        request: SendMessageRequest,
    ) -> Result<v2::SendMessageResponse, Miss>;

    /// Hands out messages. Returns as soon as it is known that this node leads; the wait for
    /// messages happens in the stream.
    async fn receive_message(
        &self,
        caller: &Caller,
        request: v2::ReceiveMessageRequest,
    ) -> Result<ReceiveStream, Miss>;

    /// Marks deliveries as consumed.
    async fn ack_message(
        &self,
        caller: &Caller,
        request: v2::AckMessageRequest,
    ) -> Result<v2::AckMessageResponse, Miss>;

    /// Moves the time at which a delivery becomes visible again.
    async fn change_invisible_duration(
        &self,
        caller: &Caller,
        request: v2::ChangeInvisibleDurationRequest,
    ) -> Result<v2::ChangeInvisibleDurationResponse, Miss>;

    /// Reads messages from an offset on. Returns as soon as it is known that this node leads; the
    /// wait for messages happens in the stream.
    async fn pull_message(
        &self,
        caller: &Caller,
        request: v2::PullMessageRequest,
    ) -> Result<PullStream, Miss>;

    /// Commits an offset of a consumer group.
    async fn update_offset(
        &self,
        caller: &Caller,
        request: v2::UpdateOffsetRequest,
    ) -> Result<v2::UpdateOffsetResponse, Miss>;

    /// The committed offset of a consumer group, by a linearizable read.
    async fn get_offset(
        &self,
        caller: &Caller,
        request: v2::GetOffsetRequest,
    ) -> Result<v2::GetOffsetResponse, Miss>;

    /// An offset of a queue, by a linearizable read.
    async fn query_offset(
        &self,
        caller: &Caller,
        request: v2::QueryOffsetRequest,
    ) -> Result<v2::QueryOffsetResponse, Miss>;

    /// The living members of a consumer group that share a topic's queues among them, ascending.
    async fn group_members(
        &self,
        group: &ConsumerGroup,
        topic: &Topic,
    ) -> Result<Vec<ClientId>, Miss>;

    /// Takes a delayed message back.
    async fn recall_message(
        &self,
        caller: &Caller,
        request: v2::RecallMessageRequest,
    ) -> Result<v2::RecallMessageResponse, Miss>;

    /// Commits a transaction or rolls it back.
    async fn end_transaction(
        &self,
        caller: &Caller,
        request: v2::EndTransactionRequest,
    ) -> Result<v2::EndTransactionResponse, Miss>;

    /// Gives a message up: it goes to the consumer group's dead-letter queue.
    async fn forward_message_to_dead_letter_queue(
        &self,
        caller: &Caller,
        request: v2::ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<v2::ForwardMessageToDeadLetterQueueResponse, Miss>;

    /// The topic by a linearizable look-up; with `create`, created on the way where the broker
    /// creates topics on use. `None` is definite: this group does not have it.
    async fn describe_topic(&self, topic: &Topic, create: bool)
    -> Result<Option<TopicRoute>, Miss>;

    /// What the members of a consumer group must be told.
    async fn group_settings(&self, group: &ConsumerGroup) -> Result<GroupSettings, Miss>;
}

/// A node that holds no data: every request is for somebody else.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLocal;

const NOBODY: Miss = Miss::NotLeader { leader: None };

#[tonic::async_trait]
impl Local for NoLocal {
    fn broker_name(&self) -> Option<&BrokerName> {
        None
    }

    async fn send_message(
        &self,
        _: &Caller,
        _: SendMessageRequest,
    ) -> Result<v2::SendMessageResponse, Miss> {
        Err(NOBODY)
    }

    async fn receive_message(
        &self,
        _: &Caller,
        _: v2::ReceiveMessageRequest,
    ) -> Result<ReceiveStream, Miss> {
        Err(NOBODY)
    }

    async fn ack_message(
        &self,
        _: &Caller,
        _: v2::AckMessageRequest,
    ) -> Result<v2::AckMessageResponse, Miss> {
        Err(NOBODY)
    }

    async fn change_invisible_duration(
        &self,
        _: &Caller,
        _: v2::ChangeInvisibleDurationRequest,
    ) -> Result<v2::ChangeInvisibleDurationResponse, Miss> {
        Err(NOBODY)
    }

    async fn pull_message(
        &self,
        _: &Caller,
        _: v2::PullMessageRequest,
    ) -> Result<PullStream, Miss> {
        Err(NOBODY)
    }

    async fn update_offset(
        &self,
        _: &Caller,
        _: v2::UpdateOffsetRequest,
    ) -> Result<v2::UpdateOffsetResponse, Miss> {
        Err(NOBODY)
    }

    async fn get_offset(
        &self,
        _: &Caller,
        _: v2::GetOffsetRequest,
    ) -> Result<v2::GetOffsetResponse, Miss> {
        Err(NOBODY)
    }

    async fn query_offset(
        &self,
        _: &Caller,
        _: v2::QueryOffsetRequest,
    ) -> Result<v2::QueryOffsetResponse, Miss> {
        Err(NOBODY)
    }

    async fn group_members(&self, _: &ConsumerGroup, _: &Topic) -> Result<Vec<ClientId>, Miss> {
        Err(NOBODY)
    }

    async fn recall_message(
        &self,
        _: &Caller,
        _: v2::RecallMessageRequest,
    ) -> Result<v2::RecallMessageResponse, Miss> {
        Err(NOBODY)
    }

    async fn end_transaction(
        &self,
        _: &Caller,
        _: v2::EndTransactionRequest,
    ) -> Result<v2::EndTransactionResponse, Miss> {
        Err(NOBODY)
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        _: &Caller,
        _: v2::ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<v2::ForwardMessageToDeadLetterQueueResponse, Miss> {
        Err(NOBODY)
    }

    async fn describe_topic(&self, _: &Topic, _: bool) -> Result<Option<TopicRoute>, Miss> {
        Err(NOBODY)
    }

    async fn group_settings(&self, _: &ConsumerGroup) -> Result<GroupSettings, Miss> {
        Err(NOBODY)
    }
}
