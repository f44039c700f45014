//! One line of a history.

use std::fmt;

use crate::history::{Answer, Call, Fault, Observation};

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// A client, with one operation under way at most.
    Client(u64),
    /// Who breaks the cluster.
    Nemesis,
    /// Who looks at it.
    Observer,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => write!(f, "{number}"),
            Self::Nemesis => f.write_str("nemesis"),
            Self::Observer => f.write_str("observer"),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// RocketMQ's code, the negative of a gRPC code, or 0 where there was neither.
    pub code: i32,
    pub text: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A request, recorded before its first byte is sent; `node` is whom it was sent to.
    Invoke {
        call: Call,
        node: Option<String>,
    },
    /// It happened; recorded after the last byte of the answer.
    Ok(Answer),
    /// It did not happen and never will.
    Fail {
        name: String,
        failure: Failure,
    },
    /// It may have happened, or may yet.
    Info {
        name: String,
        failure: Failure,
    },
    Fault(Fault),
    Observed(Observation),
}

/// What happened, when, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Place in the history; the first is 0.
    pub index: u64,
    /// Nanoseconds since the start of the run.
    pub time: u64,
    pub process: Process,
    pub body: Body,
}
