//! The gateway's own answers as the clients are told them: the one table.
//!
//! Clients get RocketMQ's codes in the payload, with gRPC OK. Nodes among themselves use gRPC
//! UNAVAILABLE with the fate in the metadata, see [`proto::hop`].
#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use proto::{
    BrokerName, InvalidFilter, InvalidName, InvalidRecallHandle, InvalidTransactionId, Topic, Word,
    admin::{self, error::Fate},
    hop, v2,
    v2::Code,
};
use tonic::Status;

use crate::Miss;

/// Why the gateway answers by itself and not well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("client id cannot be empty")]
    ClientIdRequired,
    #[error("{0}")]
    InvalidName(#[from] InvalidName),
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    #[error("no message in the request")]
    NoMessage,
    #[error("message cannot be decoded: {0}")]
    Undecodable(String),
    #[error("INVALID_RECEIPT_HANDLE: the receipt handle cannot be read")]
    ReceiptHandle,
    #[error(transparent)]
    TransactionId(#[from] InvalidTransactionId),
    #[error("recall handle is invalid: {0}")]
    RecallHandle(#[from] InvalidRecallHandle),
    #[error("no receipt handle in the request")]
    NoReceiptHandle,
    #[error("topic {0} does not exist")]
    TopicNotFound(Topic),
    #[error("no readable queue")]
    NoReadableQueue,
    #[error("the topic has no such queue")]
    NoSuchQueue,
    #[error("more than {max} clients at this access point")]
    TooManyClients { max: usize },
    /// A poll that found nothing, as far as the client is concerned.
    #[error("this access point is stopping")]
    Stopping,
    /// The same, for a poll whose leader was lost on the way.
    #[error("no message arrived before the poll had to end")]
    PollEnded,
    #[error("{rpc} is not implemented")]
    NotImplemented { rpc: &'static str },
    /// Not done.
    #[error("broker group {group} has no leader after {} ms; nothing was done", waited.as_millis())]
    NoLeader { group: BrokerName, waited: Duration },
    /// Not done.
    #[error("no broker group is known after {} ms; nothing was done", waited.as_millis())]
    NoGroup { waited: Duration },
    /// Outcome unknown.
    #[error(
        "the leader of broker group {group} was lost after it got the request; outcome unknown"
    )]
    Lost { group: BrokerName },
    /// Outcome unknown.
    #[error("no answer from broker group {group} in time; outcome unknown")]
    Timeout { group: BrokerName },
    /// The caller is no operator.
    #[error("broker group {group}: {message}")]
    Unauthenticated { group: BrokerName, message: String },
    /// Outcome unknown, as far as the gateway can tell.
    #[error("broker group {group} answered: {message}")]
    Upstream { group: BrokerName, message: String },
}

impl Refusal {
    /// RocketMQ's code.
    pub fn code(&self) -> Code {
        match self {
            Self::ClientIdRequired => Code::ClientIdRequired,
            Self::InvalidName(name) => name_code(name.word),
            Self::Filter(_) => Code::IllegalFilterExpression,
            Self::NoMessage | Self::Undecodable(_) => Code::MessageCorrupted,
            Self::ReceiptHandle | Self::NoReceiptHandle => Code::InvalidReceiptHandle,
            Self::TransactionId(_) => Code::InvalidTransactionId,
            Self::RecallHandle(_) => Code::BadRequest,
            Self::TopicNotFound(_) => Code::TopicNotFound,
            Self::NoReadableQueue => Code::Forbidden,
            Self::Unauthenticated { .. } => Code::Unauthorized,
            Self::NoSuchQueue => Code::BadRequest,
            Self::TooManyClients { .. } => Code::TooManyRequests,
            Self::Stopping | Self::PollEnded => Code::MessageNotFound,
            Self::NotImplemented { .. } => Code::NotImplemented,
            Self::NoLeader { .. } | Self::NoGroup { .. } => Code::HaNotAvailable,
            Self::Lost { .. } | Self::Upstream { .. } => Code::InternalServerError,
            Self::Timeout { .. } => Code::ProxyTimeout,
        }
    }

    /// The status for a response's payload.
    pub fn to_payload(&self) -> v2::Status {
        v2::Status { code: self.code().into(), message: self.to_string() }
    }

    /// How the request ended.
    fn fate(&self) -> Fate {
        match self {
            Self::ClientIdRequired
            | Self::InvalidName(_)
            | Self::Filter(_)
            | Self::NoMessage
            | Self::Undecodable(_)
            | Self::ReceiptHandle
            | Self::NoReceiptHandle
            | Self::TransactionId(_)
            | Self::RecallHandle(_)
            | Self::TopicNotFound(_)
            | Self::NoReadableQueue
            | Self::NoSuchQueue
            | Self::Unauthenticated { .. }
            | Self::NotImplemented { .. } => Fate::Rejected,
            Self::TooManyClients { .. }
            | Self::Stopping
            | Self::PollEnded
            | Self::NoLeader { .. }
            | Self::NoGroup { .. } => Fate::NotDone,
            Self::Lost { .. } | Self::Timeout { .. } | Self::Upstream { .. } => Fate::Unknown,
        }
    }

    /// The error for an administrator.
    pub fn to_admin(&self) -> admin::Error {
        admin::Error { fate: self.fate().into(), message: self.to_string() }
    }

    /// The status for a Telemetry stream, which has no payload for it.
    pub fn to_stream_error(&self) -> Status {
        let code = match self.code() as i32 {
            40_000..50_000 => tonic::Code::InvalidArgument,
            _ => tonic::Code::Internal,
        };
        Status::new(code, self.to_string())
    }
}

fn name_code(word: Word) -> Code {
    match word {
        Word::Topic => Code::IllegalTopic,
        Word::ConsumerGroup => Code::IllegalConsumerGroup,
        Word::BrokerName => Code::BadRequest,
        Word::ClientId => Code::ClientIdRequired,
        Word::MessageGroup => Code::IllegalMessageGroup,
        Word::MessageId => Code::IllegalMessageId,
    }
}

/// What a node answers to another node that asked it for what it cannot do.
pub fn refusal(miss: &Miss) -> Status {
    match miss {
        Miss::NotLeader { leader } => hop::not_done("not the leader", leader.as_deref()),
        Miss::NotDone => hop::not_done("not done", None),
        Miss::Unknown => hop::unknown("outcome unknown"),
    }
}

/// OK, with RocketMQ's text for it.
pub fn ok() -> v2::Status {
    v2::Status { code: Code::Ok.into(), message: "OK".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_have_their_own_codes() {
        let group: BrokerName = "broker-a".parse().expect("valid");
        let waited = Duration::from_millis(2500);
        let cases = [
            (Refusal::NoLeader { group: group.clone(), waited }, 50002),
            (Refusal::NoGroup { waited }, 50002),
            (Refusal::Lost { group: group.clone() }, 50001),
            (Refusal::Timeout { group }, 50400),
            (Refusal::NotImplemented { rpc: "PullMessage" }, 50100),
            (Refusal::TopicNotFound("orders".parse().expect("valid")), 40402),
        ];
        for (refusal, code) in cases {
            assert_eq!(refusal.to_payload().code, code, "{refusal}");
        }
    }

    #[test]
    fn a_telemetry_stream_tells_the_clients_fault_from_the_servers() {
        assert_eq!(
            Refusal::ClientIdRequired.to_stream_error().code(),
            tonic::Code::InvalidArgument
        );
        let server = Refusal::NoGroup { waited: Duration::ZERO };
        assert_eq!(server.to_stream_error().code(), tonic::Code::Internal);
    }
}
