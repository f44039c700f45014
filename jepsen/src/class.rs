//! Which failures are definite: whether an error means "did not happen", or "may have happened".
//!
//! Everything that the checkers say about errors rests on this table. It follows the contract of
//! `docs/semantics.md`: a server gives a definite answer only where the outcome is definite.

use crate::history::Call;

/// What a client saw instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed<'a> {
    /// The payload status of an answer.
    Status(i32),
    /// A gRPC error, with the fate that the server's metadata names.
    Grpc { code: i32, fate: Option<&'a str> },
    /// No connection was made, so no byte of the request was sent.
    NeverConnected,
    /// The connection broke, or time ran out, after the request began to be sent.
    Interrupted,
}

/// The `type` of the event that is recorded for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It did not happen and never will.
    Fail,
    /// It may have happened, or may yet.
    Info,
}

/// gRPC codes that a server gives before it looks at a request: `INVALID_ARGUMENT`,
/// `RESOURCE_EXHAUSTED`, `OUT_OF_RANGE`, `UNIMPLEMENTED`.
const REFUSED_UNSEEN: [i32; 4] = [3, 8, 11, 12];

/// Classifies a failure of `call`.
#[must_use]
pub fn classify(call: &Call, failed: Failed<'_>) -> Class {
    if call.is_read() { Class::Fail } else { classify_change(failed) }
}

/// Classifies a failure of a call that may leave something behind.
#[must_use]
pub fn classify_change(failed: Failed<'_>) -> Class {
    match failed {
        Failed::NeverConnected => Class::Fail,
        Failed::Status(code) => of_status(code),
        Failed::Grpc { fate: Some("not-done" | "rejected"), .. } => Class::Fail,
        Failed::Grpc { fate: None, code } if REFUSED_UNSEEN.contains(&code) => Class::Fail,
        Failed::Grpc { .. } | Failed::Interrupted => Class::Info,
    }
}

fn of_status(code: i32) -> Class {
    match code {
        // Time ran out somewhere; nobody knows where.
        40800 => Class::Info,
        // The request was looked at and refused, by its content or by the state.
        40000..=49999 => Class::Fail,
        // No leader within a bounded wait: nothing was proposed.
        50002 => Class::Fail,
        // Not built, or not for this client: refused before anything else.
        50100 | 50500..=50502 => Class::Fail,
        // Internal errors, timeouts behind the edge, persistence of unknown extent, and every code
        // that this table does not know.
        _ => Class::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Call {
        Call::Commit { group: "g".into(), key: 0, offset: 1 }
    }

    fn receive() -> Call {
        let (group, attempt_id) = ("g".into(), None);
        Call::Receive { group, key: 0, invisible_ms: 1, wait_ms: 0, attempt_id }
    }

    #[test]
    fn what_was_refused_before_it_was_proposed_is_definite() {
        for code in [40002, 40013, 40100, 40402, 41301, 42900, 50002, 50100] {
            assert_eq!(classify(&commit(), Failed::Status(code)), Class::Fail, "{code}");
        }
        assert_eq!(classify(&commit(), Failed::NeverConnected), Class::Fail);
        let fate = Some("not-done");
        assert_eq!(classify(&commit(), Failed::Grpc { code: 14, fate }), Class::Fail);
    }

    #[test]
    fn what_may_have_been_proposed_is_not() {
        for code in [0, 30000, 40800, 50000, 50001, 50400, 50401, 50402, 60000, 99999] {
            assert_eq!(classify(&commit(), Failed::Status(code)), Class::Info, "{code}");
        }
        assert_eq!(classify(&commit(), Failed::Interrupted), Class::Info);
        assert_eq!(classify(&commit(), Failed::Grpc { code: 14, fate: None }), Class::Info);
        // A server that says so knows better than a list of codes.
        let fate = Some("unknown");
        assert_eq!(classify(&commit(), Failed::Grpc { code: 3, fate }), Class::Info);
    }

    #[test]
    fn a_read_leaves_nothing_behind_but_a_receive_does() {
        let query = Call::Query { group: "g".into(), key: 0 };
        assert_eq!(classify(&query, Failed::Interrupted), Class::Fail);
        assert_eq!(classify(&query, Failed::Status(50001)), Class::Fail);
        assert_eq!(classify(&receive(), Failed::Interrupted), Class::Info);
        assert_eq!(classify(&receive(), Failed::Status(50400)), Class::Info);
    }
}
