//! How calls end when they do not end well. Every error knows its fate.

use std::time::Duration;

use proto::{InvalidFilter, InvalidMessage, InvalidName, hop, v2};
use thiserror::Error;

pub use proto::v2::Code;

/// What became of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It did not happen, and asking again will not help.
    Rejected,
    /// It did not happen; asking again may help.
    NotDone,
    /// It may have happened, or may yet happen.
    Unknown,
}

/// Why a call failed. [`Error::fate`] says what became of it.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// A setting of the client does not make sense.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A topic, consumer group or client id is not one.
    #[error("{0}")]
    Name(#[from] InvalidName),
    /// The message breaks a rule that the client knows. Nothing was sent.
    #[error("{0}")]
    Message(#[from] InvalidMessage),
    /// The filter expression cannot be read.
    #[error("{0}")]
    Filter(#[from] InvalidFilter),
    /// The server answered with this code.
    #[error("{message} ({}, {})", code.as_str_name(), *code as i32)]
    Refused {
        /// RocketMQ's code.
        code: Code,
        /// The server's words.
        message: String,
    },
    /// The server answered with a code that this client does not know.
    #[error("{message} (unknown code {code})")]
    UnknownCode {
        /// The number.
        code: i32,
        /// The server's words.
        message: String,
    },
    /// The connection could not be made, or broke.
    #[error("{address}: {}", status.message())]
    Transport {
        /// Who was called.
        address: String,
        /// What gRPC says.
        status: Box<tonic::Status>,
    },
    /// No answer in time.
    #[error("no answer from {address} within {} ms", waited.as_millis())]
    Timeout {
        /// Who was called.
        address: String,
        /// How long was waited.
        waited: Duration,
    },
    /// An answer that breaks the protocol.
    #[error("{address} answered without {missing}")]
    Malformed {
        /// Who was called.
        address: String,
        /// What should have been there.
        missing: &'static str,
    },
    /// The server does not keep produce streams. Only for the client itself: it falls back.
    #[error("{address} has no produce streams")]
    NoStreams {
        /// Who was asked.
        address: String,
    },
    /// There is no address to call.
    #[error("no access point is known")]
    NoAccessPoint,
    /// The topic has no queue for this.
    #[error("topic {topic} has no {what} queue")]
    NoQueue {
        /// The topic.
        topic: String,
        /// `readable` or `writable`.
        what: &'static str,
    },
    /// The user's selector chose a queue that is not in its list.
    #[error("the queue selector chose queue {chosen} of {count}")]
    Selector {
        /// What it returned.
        chosen: usize,
        /// How many queues it was shown.
        count: usize,
    },
    /// Too much is under way in this client, and it was told not to wait.
    #[error("{in_flight} messages are under way, the most that this client allows")]
    Overloaded {
        /// The bound.
        in_flight: usize,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The listener, checker or store that the application gave panicked or ended early.
    #[error("{what} of the application ended without a result")]
    Application {
        /// Which part.
        what: &'static str,
    },
    /// A body says that it is compressed and is not.
    #[error("the body of message {message_id} cannot be uncompressed")]
    Corrupt {
        /// The message.
        message_id: String,
    },
    /// The last of several attempts ended so; an earlier one may have succeeded.
    #[error("{last}; the outcome of an earlier attempt is unknown")]
    AfterUnknown {
        /// How the last attempt ended.
        last: Box<Self>,
    },
}

/// A setting that does not make sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// An address that is not `host:port`.
    #[error("{text:?} is not an address such as 127.0.0.1:9876")]
    Address {
        /// What was given.
        text: String,
    },
    /// None of the places where addresses are looked for has one.
    #[error("no access point: give one, or set NAMESRV_ADDR")]
    NoAccessPoint,
    /// The URL of a discovery endpoint is not `http://host[:port]/path`.
    #[error("{url:?} is not a URL such as http://host:8080/rocketmq/nsaddr")]
    Url {
        /// What was given.
        url: String,
    },
    /// A duration or number that must not be zero.
    #[error("{setting} must not be zero")]
    Zero {
        /// Which one.
        setting: &'static str,
    },
    /// A consumer without a subscription.
    #[error("the consumer subscribes to nothing")]
    NoSubscription,
    /// The TLS set-up was refused.
    #[error("TLS cannot be set up: {reason}")]
    Tls {
        /// By whom and why.
        reason: String,
    },
}

impl Error {
    /// What became of the call.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            Self::Config(_)
            | Self::Name(_)
            | Self::Message(_)
            | Self::Filter(_)
            | Self::NoQueue { .. }
            | Self::Selector { .. }
            | Self::Corrupt { .. } => Fate::Rejected,
            Self::NoStreams { .. }
            | Self::NoAccessPoint
            | Self::Overloaded { .. }
            | Self::Closed => Fate::NotDone,
            Self::Refused { code, .. } => fate_of_code(*code),
            Self::Transport { status, .. } => fate_of_status(status),
            Self::UnknownCode { .. }
            | Self::Timeout { .. }
            | Self::Malformed { .. }
            | Self::Application { .. }
            | Self::AfterUnknown { .. } => Fate::Unknown,
        }
    }

    /// The server's code, if it gave one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::AfterUnknown { last } => last.code(),
            _ => None,
        }
    }

    /// Whether the trouble is with the address and not with the request, so that another address
    /// may do better.
    pub(crate) fn blames_address(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Timeout { .. } | Self::Malformed { .. } => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::HaNotAvailable | Code::InternalServerError | Code::ProxyTimeout
            ),
            _ => false,
        }
    }

    pub(crate) fn transport(address: &str, status: tonic::Status) -> Self {
        Self::Transport { address: address.to_owned(), status: Box::new(status) }
    }
}

/// OK, or the error that a payload status stands for. None at all has an unknown outcome.
pub(crate) fn check(address: &str, status: Option<&v2::Status>) -> Result<(), Error> {
    let Some(status) = status else {
        return Err(Error::Malformed { address: address.to_owned(), missing: "a status" });
    };
    let message = status.message.clone();
    match Code::try_from(status.code) {
        Ok(Code::Ok) => Ok(()),
        Ok(code) => Err(Error::Refused { code, message }),
        Err(_) => Err(Error::UnknownCode { code: status.code, message }),
    }
}

/// The fates of RocketMQ's codes, as servers mean them.
fn fate_of_code(code: Code) -> Fate {
    match code {
        Code::HaNotAvailable | Code::TooManyRequests => Fate::NotDone,
        Code::Unspecified
        | Code::Ok
        | Code::MultipleResults
        | Code::RequestTimeout
        | Code::InternalError
        | Code::InternalServerError
        | Code::ProxyTimeout
        | Code::MasterPersistenceTimeout
        | Code::SlavePersistenceTimeout
        | Code::FailedToConsumeMessage => Fate::Unknown,
        _ => Fate::Rejected,
    }
}

/// What a gRPC error says. Without a word from the server, only a connection that was never made is
/// certain not to have carried the call.
fn fate_of_status(status: &tonic::Status) -> Fate {
    match hop::fate(status) {
        Some(hop::Fate::NotDone) => return Fate::NotDone,
        Some(hop::Fate::Unknown) => return Fate::Unknown,
        None => {}
    }
    if never_connected(status) {
        return Fate::NotDone;
    }
    if std::error::Error::source(status).is_some() {
        return Fate::Unknown;
    }
    match status.code() {
        tonic::Code::InvalidArgument
        | tonic::Code::Unimplemented
        | tonic::Code::Unauthenticated
        | tonic::Code::PermissionDenied
        | tonic::Code::OutOfRange => Fate::Rejected,
        tonic::Code::ResourceExhausted => Fate::NotDone,
        _ => Fate::Unknown,
    }
}

fn never_connected(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.is::<tonic::ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> Error {
        Error::Refused { code, message: String::new() }
    }

    #[test]
    fn codes_have_the_fates_that_the_server_means() {
        assert_eq!(refused(Code::HaNotAvailable).fate(), Fate::NotDone);
        assert_eq!(refused(Code::TooManyRequests).fate(), Fate::NotDone);
        assert_eq!(refused(Code::InternalServerError).fate(), Fate::Unknown);
        assert_eq!(refused(Code::ProxyTimeout).fate(), Fate::Unknown);
        assert_eq!(refused(Code::TopicNotFound).fate(), Fate::Rejected);
        assert_eq!(refused(Code::NotImplemented).fate(), Fate::Rejected);
    }

    #[test]
    fn a_connection_that_broke_leaves_the_outcome_open() {
        let broken = Error::transport("a:1", tonic::Status::unavailable("reset"));
        assert_eq!(broken.fate(), Fate::Unknown);
        let told = Error::transport("a:1", hop::not_done("not the leader", None));
        assert_eq!(told.fate(), Fate::NotDone);
    }

    #[test]
    fn a_missing_or_odd_status_is_no_success() {
        assert_eq!(check("a:1", None).unwrap_err().fate(), Fate::Unknown);
        let odd = v2::Status { code: 12345, message: String::new() };
        assert_eq!(check("a:1", Some(&odd)).unwrap_err().fate(), Fate::Unknown);
    }

    #[test]
    fn an_earlier_unknown_attempt_outlives_a_later_definite_one() {
        let last = Box::new(refused(Code::TopicNotFound));
        assert_eq!(Error::AfterUnknown { last }.fate(), Fate::Unknown);
    }
}
