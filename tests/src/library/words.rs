//! What is said to a library and what it says: messages, subscriptions, receipts, refusals.

use std::collections::BTreeMap;

use proto::v2::Code;
use serde::{Deserialize, Serialize};

/// Why a call of a library did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The server said so, with a code of the protocol.
    Server { code: Code, text: String },
    /// The library said so itself, or gave no code.
    Library { text: String },
    /// The library has no such call.
    Impossible,
    /// The library did not come back in time.
    Hangs,
}

/// A message as the application gives it to the library. Lengths are bytes, times Unix
/// milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outgoing {
    pub topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// A body of this size, without sending it through the pipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<Ending>,
    /// By the library's call that does not wait, if it has one beside the one that does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub asynchronous: bool,
}

/// How a producer is set up.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Options {
    /// It has a checker that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Of each send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// It signs its calls with these.
    #[serde(flatten)]
    pub keys: Option<Keys>,
    /// It is not given this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<Part>,
}

/// What the application has to give to the library when it starts a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Where the servers are, and how to reach them.
    Configuration,
    Group,
    Subscription,
    Listener,
}

/// What calls are signed with.
#[derive(Debug, Clone, Serialize)]
pub struct Keys {
    pub access_key: String,
    pub secret_key: String,
}

/// What a producer does with a transaction after its half message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Commit,
    Rollback,
    /// Nothing: it waits to be asked.
    Open,
}

/// What a producer's checker says to every question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Commit,
    Rollback,
    Unknown,
}

impl Outgoing {
    /// A text message.
    #[must_use]
    pub fn to(topic: &str, body: &str) -> Self {
        Self { topic: topic.to_owned(), body: Some(body.to_owned()), ..Self::default() }
    }

    /// A message of this size.
    #[must_use]
    pub fn of_size(topic: &str, bytes: usize) -> Self {
        Self { topic: topic.to_owned(), body_size: Some(bytes), ..Self::default() }
    }

    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag.to_owned());
        self
    }

    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.keys.push(key.to_owned());
        self
    }

    #[must_use]
    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.insert(key.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn message_group(mut self, group: &str) -> Self {
        self.message_group = Some(group.to_owned());
        self
    }

    #[must_use]
    pub fn deliver_at(mut self, unix_ms: u64) -> Self {
        self.deliver_at_ms = Some(unix_ms);
        self
    }

    #[must_use]
    pub fn transaction(mut self, ending: Ending) -> Self {
        self.transaction = Some(ending);
        self
    }
}

/// What a consumer wants.
#[derive(Debug, Clone, Serialize)]
pub struct Subscription {
    pub group: String,
    pub topic: String,
    pub filter: String,
    pub sql: bool,
    /// For simple consumers.
    pub await_ms: u64,
    /// For push consumers: so many deliveries of each message are not consumed.
    pub fail_attempts: u32,
    /// For push consumers: only messages with this body fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_body: Option<String>,
    /// The consumer is not given this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<Part>,
}

impl Subscription {
    /// Everything of the topic, waiting up to five seconds for it.
    #[must_use]
    pub fn of(group: &str, topic: &str) -> Self {
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            filter: "*".to_owned(),
            sql: false,
            await_ms: 5_000,
            fail_attempts: 0,
            fail_body: None,
            without: None,
        }
    }

    #[must_use]
    pub fn tags(mut self, expression: &str) -> Self {
        expression.clone_into(&mut self.filter);
        self
    }

    #[must_use]
    pub fn sql(mut self, expression: &str) -> Self {
        self.sql = true;
        self.tags(expression)
    }

    #[must_use]
    pub fn waiting(mut self, milliseconds: u64) -> Self {
        self.await_ms = milliseconds;
        self
    }

    #[must_use]
    pub fn without(mut self, part: Part) -> Self {
        self.without = Some(part);
        self
    }

    #[must_use]
    pub fn failing(mut self, attempts: u32) -> Self {
        self.fail_attempts = attempts;
        self
    }
}

/// What the library says of a stored message.
#[derive(Debug, Clone, Deserialize)]
pub struct Receipt {
    pub id: String,
    pub recall_handle: Option<String>,
}

/// A message as the library gives it to the application.
#[derive(Debug, Clone, Deserialize)]
pub struct Incoming {
    pub(super) token: Option<u64>,
    pub topic: String,
    pub id: String,
    /// Of the body.
    pub size: usize,
    /// Unless it is large.
    pub body: Option<String>,
    pub tag: Option<String>,
    pub keys: Vec<String>,
    pub properties: BTreeMap<String, String>,
    pub message_group: Option<String>,
    pub attempt: u32,
    pub deliver_at_ms: Option<u64>,
    #[serde(default)]
    pub corrupted: bool,
}

impl Incoming {
    /// # Panics
    /// When the body is large.
    #[must_use]
    pub fn text(&self) -> &str {
        self.body.as_deref().expect("a small body")
    }
}
