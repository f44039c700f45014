//! How a command ends when it does not end well, and the exit code that says so.

use std::process::ExitCode;

use proto::{admin, hop};
use thiserror::Error;
use tonic::{Code, Status};

/// A request that the cluster did not carry out as asked.
///
/// The texts say what the user can do next, because a script sees the exit code and a person the
/// text.
#[derive(Debug, Error)]
pub enum Failure {
    /// It cannot succeed as it is. Nothing was changed.
    #[error("refused: {0}")]
    Rejected(String),
    /// Nothing was changed this time.
    #[error("not done: {0}; nothing was changed, try again")]
    NotDone(String),
    #[error("outcome unknown: {0}; it may or may not have happened, look before trying again")]
    Unknown(String),
}

impl Failure {
    /// From an answer that may carry an error.
    pub fn of(error: Option<admin::Error>) -> Result<(), Self> {
        let Some(error) = error else { return Ok(()) };
        Err(match error.fate() {
            admin::error::Fate::Rejected => Self::Rejected(error.message),
            admin::error::Fate::NotDone => Self::NotDone(error.message),
            // A server that does not say must be taken for the worst.
            admin::error::Fate::Unknown | admin::error::Fate::Unspecified => {
                Self::Unknown(error.message)
            }
        })
    }

    /// From a call that got no answer of the service's own. `address` is who was asked.
    pub fn of_status(status: &Status, address: &str) -> Self {
        let text = if status.message().is_empty() { "no text" } else { status.message() };
        let text = format!("{address}: {text}");
        match (status.code(), hop::fate(status)) {
            (_, Some(hop::Fate::NotDone)) => Self::NotDone(text),
            (_, Some(hop::Fate::Unknown)) => Self::Unknown(text),
            (Code::Unimplemented, None) => Self::Rejected(format!(
                "{address} does not serve this; name a NameServer or a broker's client port"
            )),
            (
                Code::InvalidArgument
                | Code::NotFound
                | Code::FailedPrecondition
                | Code::Unauthenticated,
                None,
            ) => Self::Rejected(text),
            _ => Self::Unknown(format!("{text} ({:?})", status.code())),
        }
    }
}

/// 1: refused, or a mistake on this side. 3: not done. 4: unknown. (2 is for bad usage.)
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(match error.downcast_ref::<Failure>() {
        None | Some(Failure::Rejected(_)) => 1,
        Some(Failure::NotDone(_)) => 3,
        Some(Failure::Unknown(_)) => 4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(fate: admin::error::Fate) -> Option<admin::Error> {
        Some(admin::Error { fate: fate as i32, message: "no leader".into() })
    }

    #[test]
    fn an_answer_without_an_error_is_no_failure() {
        assert!(Failure::of(None).is_ok());
    }

    #[test]
    fn a_failure_keeps_its_fate() {
        use admin::error::Fate;
        assert!(matches!(Failure::of(error(Fate::Rejected)), Err(Failure::Rejected(_))));
        assert!(matches!(Failure::of(error(Fate::NotDone)), Err(Failure::NotDone(_))));
        assert!(matches!(Failure::of(error(Fate::Unknown)), Err(Failure::Unknown(_))));
        assert!(matches!(Failure::of(error(Fate::Unspecified)), Err(Failure::Unknown(_))));
        let refused = hop::not_done("not the leader", None);
        assert!(matches!(Failure::of_status(&refused, "a:1"), Failure::NotDone(_)));
        let broken = Status::unavailable("connection reset");
        assert!(matches!(Failure::of_status(&broken, "a:1"), Failure::Unknown(_)));
        let foreign = Status::unimplemented("");
        assert!(Failure::of_status(&foreign, "a:1").to_string().contains("NameServer"));
    }
}
