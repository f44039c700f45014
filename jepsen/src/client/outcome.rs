//! How a call ended: done, or one of the three ways in which it was not.

use std::fmt;

use proto::v2;
use tonic::Status;

use crate::class::{Class, Failed, classify_change};

/// The metadata in which a server names the fate of a call that it answers with a gRPC error.
const FATE: &str = "x-raftmq-fate";

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It did not happen and will not, however often it is asked.
    Rejected { code: i32, message: String },
    /// It did not happen; asking again may help.
    NotDone { code: i32, message: String },
    /// It may have happened.
    Unknown { code: i32, message: String },
}

impl Failure {
    /// The code of a payload status, or the negative of a gRPC code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Rejected { code, .. }
            | Self::NotDone { code, .. }
            | Self::Unknown { code, .. } => *code,
        }
    }

    /// What a payload status other than OK means.
    #[must_use]
    pub fn of_status(status: Option<&v2::Status>) -> Self {
        let Some(status) = status else {
            return Self::Unknown { code: 0, message: "an answer without a status".into() };
        };
        Self::classed(Failed::Status(status.code), status.code, status.message.clone())
    }

    /// What a gRPC error means. Without a word from the server, only a connection that was never
    /// made is certain not to have carried the call.
    #[must_use]
    pub fn of_error(error: &Status) -> Self {
        let code = error.code() as i32;
        let fate = error.metadata().get(FATE).and_then(|f| f.to_str().ok());
        let failed = match fate {
            None if never_connected(error) => Failed::NeverConnected,
            fate => Failed::Grpc { code, fate },
        };
        Self::classed(failed, -code, format!("{error:?}"))
    }

    fn classed(failed: Failed<'_>, code: i32, message: String) -> Self {
        let again = match failed {
            Failed::Status(code) => {
                code == i32::from(v2::Code::HaNotAvailable)
                    || code == i32::from(v2::Code::TooManyRequests)
            }
            Failed::Grpc { fate, .. } => fate == Some("not-done"),
            Failed::NeverConnected => true,
            Failed::Interrupted => false,
        };
        match classify_change(failed) {
            Class::Info => Self::Unknown { code, message },
            Class::Fail if again => Self::NotDone { code, message },
            Class::Fail => Self::Rejected { code, message },
        }
    }

    /// What the caller can read.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Rejected { message, .. }
            | Self::NotDone { message, .. }
            | Self::Unknown { message, .. } => message,
        }
    }
}

fn never_connected(error: &Status) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = cause.source();
    }
    false
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected { code, message } => write!(f, "rejected ({code}): {message}"),
            Self::NotDone { code, message } => write!(f, "not done ({code}): {message}"),
            Self::Unknown { code, message } => write!(f, "unknown ({code}): {message}"),
        }
    }
}

impl std::error::Error for Failure {}
