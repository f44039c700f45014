//! What a broker says about itself on its status page.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::db::http;

/// The role of a replica in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Candidate,
}

/// One look at `/status`. Positions are log indexes, 0 where nothing was written yet.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    pub broker_name: String,
    pub node_id: u64,
    pub group_id: Value,
    pub role: Role,
    pub term: u64,
    #[serde(default)]
    pub leader_id: Option<u64>,
    #[serde(deserialize_with = "index")]
    pub purged: u64,
    #[serde(deserialize_with = "index")]
    pub applied: u64,
    #[serde(deserialize_with = "index")]
    pub committed: u64,
    #[serde(deserialize_with = "index")]
    pub last: u64,
    pub members: Vec<Value>,
}

impl Status {
    /// Blocks for at most a few seconds.
    pub fn of(metrics: SocketAddr) -> Result<Self> {
        let page = http::get(metrics, "/status")?;
        let status: Self = serde_json::from_str(&page).with_context(|| page)?;
        assert!(
            status.purged <= status.applied
                && status.applied <= status.committed
                && status.committed <= status.last,
            "purged <= applied <= committed <= last does not hold: {status}"
        );
        Ok(status)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{} {:?} term {} leader {:?} purged {} applied {} committed {} last {}",
            self.broker_name,
            self.node_id,
            self.role,
            self.term,
            self.leader_id,
            self.purged,
            self.applied,
            self.committed,
            self.last
        )
    }
}

/// An index, or null before the first entry.
fn index<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok(Option::<u64>::deserialize(from)?.unwrap_or(0))
}
