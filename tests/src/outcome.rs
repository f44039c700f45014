//! How a call ended: done, or one of the three ways in which it was not.

use std::fmt;

use proto::v2;
use tonic::Status;

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
        let (code, message) = (status.code, status.message.clone());
        match v2::Code::try_from(code) {
            Ok(v2::Code::HaNotAvailable | v2::Code::TooManyRequests) => {
                Self::NotDone { code, message }
            }
            Ok(
                v2::Code::InternalError
                | v2::Code::InternalServerError
                | v2::Code::ProxyTimeout
                | v2::Code::MasterPersistenceTimeout
                | v2::Code::SlavePersistenceTimeout
                | v2::Code::RequestTimeout
                | v2::Code::MultipleResults
                | v2::Code::Unspecified,
            )
            | Err(_) => Self::Unknown { code, message },
            Ok(_) => Self::Rejected { code, message },
        }
    }

    /// What a gRPC error means. Without a word from the server, only a connection that was never
    /// made is certain not to have carried the call.
    #[must_use]
    pub fn of_error(error: &Status) -> Self {
        let code = -(error.code() as i32);
        let message = format!("{error:?}");
        let fate = error.metadata().get(FATE).and_then(|f| f.to_str().ok());
        if fate == Some("not-done") || never_connected(error) {
            return Self::NotDone { code, message };
        }
        match error.code() {
            tonic::Code::InvalidArgument
            | tonic::Code::Unimplemented
            | tonic::Code::OutOfRange
            | tonic::Code::ResourceExhausted => Self::Rejected { code, message },
            _ => Self::Unknown { code, message },
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
