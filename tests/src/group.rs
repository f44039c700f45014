//! One broker group of a cluster: its replicas, and who of them leads.

use std::sync::Arc;

use crate::cluster::{CATCH_UP, ELECTION};
use crate::eventually;
use crate::node::Node;
use crate::status::{Role, Status};

/// A broker group.
#[derive(Debug)]
pub struct BrokerGroup {
    pub name: String,
    pub nodes: Vec<Arc<Node>>,
    /// Its `--raft-peers`.
    pub peers: String,
}

impl BrokerGroup {
    /// The node that leads now, and what it says of itself.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn leader(&self) -> (Arc<Node>, Status) {
        self.leader_after(0).await
    }

    /// A leader of a later term than `term`.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn leader_after(&self, term: u64) -> (Arc<Node>, Status) {
        let what = format!("{} has a leader after term {term}", self.name);
        eventually(&what, ELECTION, async || {
            let mut best: Option<(Arc<Node>, Status)> = None;
            let mut said = String::new();
            for node in &self.nodes {
                match node.status().await {
                    Ok(status) => {
                        said.push_str(&format!("{status}; "));
                        let newer = best.as_ref().is_none_or(|(_, b)| b.term < status.term);
                        if status.role == Role::Leader && status.term > term && newer {
                            best = Some((Arc::clone(node), status));
                        }
                    }
                    Err(error) => said.push_str(&format!("{node:?}: {error:#}; ")),
                }
            }
            best.ok_or(said)
        })
        .await
    }

    /// The running replicas that do not lead.
    pub async fn followers(&self) -> Vec<Arc<Node>> {
        let (leader, _) = self.leader().await;
        self.nodes.iter().filter(|n| n.id != leader.id && n.is_active()).cloned().collect()
    }

    /// SIGKILL for every replica.
    pub fn kill(&self) {
        self.nodes.iter().for_each(|node| node.kill());
    }

    /// Starts every replica.
    pub fn start(&self) {
        self.nodes.iter().for_each(|node| node.start());
    }

    /// Waits until all running replicas have applied everything that the leader committed, and
    /// checks that their states are equal. Nothing to do while none runs.
    ///
    /// # Panics
    /// When they do not get there, or differ.
    pub async fn replicas_agree(&self) {
        if !self.nodes.iter().any(|node| node.is_active()) {
            return;
        }
        let what = format!("all replicas of {} apply the same", self.name);
        eventually(&what, CATCH_UP, async || {
            let mut seen: Vec<(u64, u64, String)> = Vec::new();
            for node in self.nodes.iter().filter(|n| n.is_active()) {
                let (applied, digest) =
                    node.digest().await.map_err(|e| format!("{node:?}: {e:#}"))?;
                seen.push((node.id, applied, digest));
            }
            let (Some(low), Some(high)) =
                (seen.iter().map(|s| s.1).min(), seen.iter().map(|s| s.1).max())
            else {
                return Err("no replica runs".to_owned());
            };
            if low != high {
                return Err(format!("applied {seen:?}"));
            }
            // At one index there is no excuse.
            assert!(
                seen.iter().all(|s| s.2 == seen[0].2),
                "replicas that applied {low} differ: {seen:?}"
            );
            Ok(())
        })
        .await;
    }
}
