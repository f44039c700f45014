//! What a client is told.

use serde::{Deserialize, Serialize};

use crate::accounting::Message;
use crate::history::{Key, Resolution};

/// A message as a read of a queue shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub offset: u64,
    pub id: Message,
}

/// A message as a receive hands it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub id: Message,
    /// Where it lies in the queue that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Stands for the receipt handle: equal for equal handles, unique in a run otherwise.
    pub handle: u64,
    /// Which delivery to the group the server says it is; the first is 1.
    pub attempt: u32,
}

/// The answer to the [`crate::history::Call`] of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "value", rename_all = "snake_case")]
pub enum Answer {
    /// One offset per message, or none where the offset is not decided yet (delayed messages).
    Send {
        offsets: Vec<u64>,
    },
    /// Whether it was taken back; otherwise it was delivered already.
    Recall {
        done: bool,
    },
    /// What the queue holds, in its order. `corrupt` describes bodies that are none of this run's.
    Poll {
        entries: Vec<Entry>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        corrupt: Vec<String>,
    },
    MaxOffset {
        offset: u64,
    },
    MinOffset {
        offset: u64,
    },
    /// Where it was found, if it was.
    Lookup {
        offset: Option<u64>,
    },
    Receive {
        deliveries: Vec<Delivery>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        corrupt: Vec<String>,
    },
    Ack {},
    /// The handle that is valid from now on.
    ChangeInvisible {
        handle: u64,
    },
    DeadLetters {
        ids: Vec<Message>,
    },
    Commit {},
    Query {
        offset: Option<u64>,
    },
    Resume {
        offset: u64,
    },
    Prepare {},
    Decide {},
    End {},
    Check {
        resolution: Resolution,
    },
    Parked {
        txs: Vec<Message>,
    },
    Member {},
    Assignment {
        keys: Vec<Key>,
    },
    Write {},
    /// Whether it had the expected value.
    Cas {
        done: bool,
    },
    Read {
        value: Option<u64>,
    },
    Add {},
    Remove {},
    List {
        elements: Vec<u64>,
    },
    /// The node that leads, as the answer has it.
    Route {
        leader: Option<String>,
    },
}

impl Answer {
    /// The name of the operation that it answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Send { .. } => "send",
            Self::Recall { .. } => "recall",
            Self::Poll { .. } => "poll",
            Self::MaxOffset { .. } => "max_offset",
            Self::MinOffset { .. } => "min_offset",
            Self::Lookup { .. } => "lookup",
            Self::Receive { .. } => "receive",
            Self::Ack {} => "ack",
            Self::ChangeInvisible { .. } => "change_invisible",
            Self::DeadLetters { .. } => "dead_letters",
            Self::Commit {} => "commit",
            Self::Query { .. } => "query",
            Self::Resume { .. } => "resume",
            Self::Prepare {} => "prepare",
            Self::Decide {} => "decide",
            Self::End {} => "end",
            Self::Check { .. } => "check",
            Self::Parked { .. } => "parked",
            Self::Member {} => "member",
            Self::Assignment { .. } => "assignment",
            Self::Write {} => "write",
            Self::Cas { .. } => "cas",
            Self::Read { .. } => "read",
            Self::Add {} => "add",
            Self::Remove {} => "remove",
            Self::List { .. } => "list",
            Self::Route { .. } => "route",
        }
    }
}
