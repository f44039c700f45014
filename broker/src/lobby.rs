//! What the HTTP pages show before there is a node to show: it may have to wait for other replicas.

use std::sync::{Arc, OnceLock};

use raft::Startup;
use serde_json::json;

use crate::{http::Pages, pages::NodePages};

/// A page of the OpenMetrics text format with nothing on it.
const NO_METRICS: &str = "# EOF\n";

/// The pages of a node that starts, and from then on its own.
#[derive(Debug)]
pub(crate) struct Lobby {
    broker_name: String,
    node_id: u64,
    startup: Startup,
    node: OnceLock<Arc<NodePages>>,
}

impl Lobby {
    /// Shows what `startup` says.
    pub(crate) fn new(broker_name: &str, node_id: u64, startup: Startup) -> Arc<Self> {
        let broker_name = broker_name.to_owned();
        Arc::new(Lobby { broker_name, node_id, startup, node: OnceLock::new() })
    }

    /// The node has started.
    ///
    /// # Panics
    /// When it did before.
    pub(crate) fn open(&self, node: Arc<NodePages>) {
        assert!(self.node.set(node).is_ok(), "a node starts once");
    }

    fn starting(&self) -> String {
        self.startup.waits_for().unwrap_or_else(|| "replaying what it holds".to_owned())
    }
}

impl Pages for Lobby {
    fn metrics(&self) -> String {
        self.node.get().map_or_else(|| NO_METRICS.to_owned(), |node| node.metrics())
    }

    fn not_ready(&self) -> Option<String> {
        match self.node.get() {
            Some(node) => node.not_ready(),
            None => Some(format!("starting: {}", self.starting())),
        }
    }

    fn status(&self) -> String {
        match self.node.get() {
            Some(node) => node.status(),
            None => json!({
                "broker_name": self.broker_name,
                "node_id": self.node_id,
                "starting": self.starting(),
            })
            .to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_starts_is_not_ready_and_says_who_it_is() {
        let lobby = Lobby::new("broker-a", 3, Startup::default());
        let why = lobby.not_ready().expect("it is not ready");
        assert!(why.starts_with("starting: "), "{why}");
        let status: serde_json::Value = serde_json::from_str(&lobby.status()).expect("JSON");
        assert_eq!((&status["broker_name"], &status["node_id"]), (&json!("broker-a"), &json!(3)));
        assert!(why.contains(status["starting"].as_str().expect("a text")));
        assert_eq!(lobby.metrics(), "# EOF\n");
    }
}
