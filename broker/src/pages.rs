//! What the HTTP pages show of this node.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gateway::Hops;
use proto::clock::{millis, wall_now};
use raft::LogIndex;
use serde_json::json;

use crate::{command, http::Pages, metrics::Sample, ops::Broker};

/// This node's pages.
#[derive(Debug)]
pub struct NodePages {
    broker: Arc<Broker>,
    hops: Hops,
    stopping: AtomicBool,
}

impl NodePages {
    /// Shows `broker`, and what its access point sends on.
    pub fn new(broker: Arc<Broker>, hops: Hops) -> Arc<Self> {
        Arc::new(NodePages { broker, hops, stopping: AtomicBool::new(false) })
    }

    /// Where the log begins and ends on this node; nowhere before there is one.
    fn span(&self) -> Range<u64> {
        let span = self.broker.group.log_span();
        span.map_or(0..0, |span| span.start.0..span.end.0)
    }

    /// From now on the node is not ready: balancers send clients elsewhere.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

fn index(index: Option<LogIndex>) -> u64 {
    index.map_or(0, |index| index.0)
}

impl Pages for NodePages {
    fn metrics(&self) -> String {
        let status = self.broker.group.status();
        let (kept, now) = (self.broker.view.kept(), wall_now());
        let oldest_ms = kept.since.map_or(0, |since| millis(now.since(since)));
        let standing = self.broker.standing().unwrap_or_else(|error| {
            tracing::warn!(%error, "read how consumer groups stand");
            None
        });
        let sample = Sample {
            role: status.role.kind.as_str(),
            term: status.term.0,
            purged: index(status.purged),
            applied: index(status.applied),
            committed: index(status.committed),
            last: index(status.last),
            long_polls: self.broker.waiting.len(),
            clients: self.broker.clients().len(),
            send_bytes: self.broker.send_budget.used(),
            transactions: self.broker.view.unresolved(),
            timers: self.broker.view.timers_pending(),
            kept,
            log: self.span(),
            oldest_ms,
            disk_percent: self.broker.disk.space().used_percent(),
            forwarded: self.hops.count(),
            upkeep: self.broker.group.upkeep(),
            fullest_disk_percent: self.broker.disk.fullest_percent(),
            short_replicas: self.broker.disk.short_replicas(),
            feature_level: self.broker.view.level().into(),
        };
        self.broker.metrics.text(&sample, standing.as_ref())
    }

    fn not_ready(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("stopping".to_owned());
        }
        let status = self.broker.group.status();
        if status.waits_to_be_added {
            return Some("waiting to be added to the group (mqadmin addLearner)".to_owned());
        }
        if !status.waiting_for.is_empty() {
            let nodes: Vec<String> = status.waiting_for.iter().map(ToString::to_string).collect();
            return Some(format!("waiting for node {}", nodes.join(", ")));
        }
        match status.leader {
            None => Some("no leader".to_owned()),
            // Elected, and still catching up.
            Some(leader) if leader == status.node_id && !status.role.is_leader() => {
                Some("about to lead".to_owned())
            }
            Some(_) => None,
        }
    }

    fn status(&self) -> String {
        let status = self.broker.group.status();
        let members: Vec<_> = status
            .members
            .iter()
            .map(|member| {
                json!({
                    "node_id": member.node_id.0,
                    "raft_address": member.raft_addr,
                    "client_address": member.client_addr,
                    "voter": member.voter,
                })
            })
            .collect();
        json!({
            "broker_name": self.broker.name().as_str(),
            "node_id": status.node_id.0,
            "group_id": status.group_id.map(|id| id.to_string()),
            "role": status.role.kind.as_str(),
            "term": status.term.0,
            "leader_id": status.leader.map(|leader| leader.0),
            "purged": index(status.purged),
            "applied": index(status.applied),
            "committed": index(status.committed),
            "last": index(status.last),
            "log_start": self.span().start,
            "log_floor": self.broker.view.kept().floor.0,
            "log_end": self.span().end,
            "members": members,
            "waiting_for": status.waiting_for.iter().map(|node| node.0).collect::<Vec<_>>(),
            "waits_to_be_added": status.waits_to_be_added,
            "drained": status.drained,
            "suspect": status.suspect,
            "feature_level": self.broker.view.level(),
            "understands_level": command::level::understood(),
        })
        .to_string()
    }
}
