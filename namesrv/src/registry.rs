//! What brokers said last, and what follows from it. No clock, no network, no disk.
//!
//! - The claim of the highest Raft term names the leader; a claim without a leader hides none.
//! - A node is dead when it was silent for [`DEAD_AFTER`]. A group without living nodes stays known
//!   as long as it has topics: they exist, so they are in routes, and nobody may say that they do not.
//! - A second group under a known broker name is refused as long as the first one lives.
//! - Topics are those of the leader.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use gateway::{
    GroupView, MemberView, TopicRoute,
    directory::{Claim, View, newest},
};
use proto::{
    BrokerName, Topic,
    registry::{RegisterRequest, RegisterResponse, Role, UnregisterRequest},
    wire,
};

/// A node that says nothing for this long is dead. Three heartbeats.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);

/// Nodes that may be registered at once; a cluster has a few hundred.
const NODES_MAX: usize = 10_000;

/// Why a report was refused. The node's earlier report, if any, stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("broker name {0:?} is not valid")]
    BrokerName(String),
    #[error("the report has no group id: the group has not formed yet")]
    NoGroup,
    #[error("the report has no node id")]
    NoNode,
    #[error("broker name {name} belongs to group {known}; group {reported} needs another name")]
    SecondGroup { name: BrokerName, known: String, reported: String },
    #[error("node {node_id} reported term {known} before, and {reported} now")]
    StaleTerm { node_id: u64, known: u64, reported: u64 },
    #[error("node {node_id} said good-bye; a new start has a new boot id")]
    Left { node_id: u64 },
    #[error("{max} nodes are registered, which is the bound")]
    TooManyNodes { max: usize },
    #[error("node {node_id} cannot be talked to: {mismatch}")]
    Wire { node_id: u64, mismatch: wire::Mismatch },
}

/// Everything a NameServer knows.
#[derive(Debug, Default)]
pub struct Registry {
    groups: BTreeMap<BrokerName, Group>,
    nodes: usize,
    /// Of all groups, as long as none of them changed.
    topics: Option<Arc<HashMap<Topic, Arc<TopicRoute>>>>,
}

#[derive(Debug, Default)]
struct Group {
    cluster: String,
    group_id: String,
    nodes: BTreeMap<u64, Node>,
    /// Nodes that left, and the boot that did.
    left: BTreeMap<u64, u64>,
    topics: Topics,
    /// What was known of it when its last node went; of use while there is none.
    last: Option<GroupView>,
}

/// A group's topics, as its leader of this term reported them.
#[derive(Debug, Default)]
struct Topics {
    term: u64,
    /// `None` until a leader reported.
    version: Option<u64>,
    routes: Vec<Arc<TopicRoute>>,
}

/// One node's last report.
#[derive(Debug)]
struct Node {
    heard: Instant,
    boot_id: u64,
    role: Role,
    client_address: String,
    claim: GroupView,
}

impl Registry {
    /// Takes a report in.
    pub fn register(&mut self, now: Instant, report: &RegisterRequest) -> RegisterResponse {
        match self.try_register(now, report) {
            Ok(topics_wanted) => RegisterResponse { topics_wanted, refused: String::new() },
            Err(refused) => RegisterResponse { topics_wanted: false, refused: refused.to_string() },
        }
    }

    fn try_register(&mut self, now: Instant, report: &RegisterRequest) -> Result<bool, Refused> {
        let theirs = wire::Versions::told(report.wire_oldest, report.wire_newest);
        wire::ours()
            .meet(theirs)
            .map_err(|mismatch| Refused::Wire { node_id: report.node_id, mismatch })?;
        let name: BrokerName = report
            .broker_name
            .parse()
            .map_err(|_| Refused::BrokerName(report.broker_name.clone()))?;
        if report.group_id.is_empty() {
            return Err(Refused::NoGroup);
        }
        if report.node_id == 0 {
            return Err(Refused::NoNode);
        }
        if let Some(group) = self.groups.get(&name) {
            group.check(&name, report)?;
        }
        let known = self.groups.get(&name).is_some_and(|g| g.nodes.contains_key(&report.node_id));
        if !known && self.nodes >= NODES_MAX {
            return Err(Refused::TooManyNodes { max: NODES_MAX });
        }
        self.nodes += usize::from(!known);
        let group = self.groups.entry(name.clone()).or_default();
        if group.group_id != report.group_id {
            // Nobody of the earlier group lives, so the name is free and its topics are gone.
            *group = Group::default();
            self.topics = None;
        }
        group.cluster.clone_from(&report.cluster);
        group.group_id.clone_from(&report.group_id);
        group.left.remove(&report.node_id);
        group.nodes.insert(report.node_id, Node::of(name, now, report));
        let version = group.topics.version;
        let wanted = group.take_topics(report);
        if group.topics.version != version {
            self.topics = None;
        }
        Ok(wanted)
    }

    /// A planned stop: the node is out of the routes at once.
    pub fn unregister(&mut self, request: &UnregisterRequest) {
        let Some(group) = self.groups.get_mut(request.broker_name.as_str()) else { return };
        let same_boot = |node: &Node| node.boot_id == request.boot_id;
        if group.nodes.get(&request.node_id).is_some_and(same_boot) {
            group.keep(|id, _| id != request.node_id);
            group.left.insert(request.node_id, request.boot_id);
            self.nodes -= 1;
        }
        self.drop_empty_groups();
    }

    /// Gives up the silent. Returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.nodes;
        for group in self.groups.values_mut() {
            group.keep(|_, node| now.saturating_duration_since(node.heard) < DEAD_AFTER);
        }
        self.nodes = self.groups.values().map(|group| group.nodes.len()).sum();
        self.drop_empty_groups();
        before - self.nodes
    }

    fn drop_empty_groups(&mut self) {
        let before = self.groups.len();
        self.groups.retain(|_, group| !group.nodes.is_empty() || !group.topics.routes.is_empty());
        if self.groups.len() != before {
            self.topics = None;
        }
    }

    /// What clients and brokers are told.
    pub fn view(&mut self) -> View {
        let groups = self.groups.values().filter_map(Group::view);
        let groups = groups.map(|group| (group.broker_name.clone(), Arc::new(group))).collect();
        let topics = self.topics.get_or_insert_with(|| {
            Arc::new(newest(self.groups.values().flat_map(|group| &group.topics.routes)))
        });
        View { groups, topics: Arc::clone(topics) }
    }

    /// Nodes heard of within [`DEAD_AFTER`].
    pub fn nodes(&self) -> usize {
        self.nodes
    }
}

impl Group {
    fn check(&self, name: &BrokerName, report: &RegisterRequest) -> Result<(), Refused> {
        if self.group_id != report.group_id && !self.nodes.is_empty() {
            return Err(Refused::SecondGroup {
                name: name.clone(),
                known: self.group_id.clone(),
                reported: report.group_id.clone(),
            });
        }
        let node_id = report.node_id;
        if self.left.get(&node_id) == Some(&report.boot_id) {
            return Err(Refused::Left { node_id });
        }
        // Reports of one process that overtook each other.
        match self.nodes.get(&node_id) {
            Some(node) if node.boot_id == report.boot_id && report.term < node.claim.term => {
                let (known, reported) = (node.claim.term, report.term);
                Err(Refused::StaleTerm { node_id, known, reported })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Returns whether this node should send its topics.
    fn take_topics(&mut self, report: &RegisterRequest) -> bool {
        if report.role() != Role::Leader || report.term < self.topics.term {
            return false;
        }
        if self.topics.version == Some(report.topics_version) {
            self.topics.term = report.term;
            return false;
        }
        if !report.has_topics {
            return true;
        }
        let routes = report.topics.iter().filter_map(|wire| {
            TopicRoute::from_wire(wire)
                .inspect_err(|error| {
                    tracing::warn!(broker_name = %report.broker_name, %error, "topic ignored");
                })
                .ok()
        });
        self.topics = Topics {
            term: report.term,
            version: Some(report.topics_version),
            routes: routes.map(Arc::new).collect(),
        };
        false
    }

    /// Drops the other nodes. With the last one goes the leader, but not the group.
    fn keep(&mut self, keeps: impl Fn(u64, &Node) -> bool) {
        if !self.nodes.is_empty() && !self.nodes.iter().any(|(id, node)| keeps(*id, node)) {
            let mut last = self.view();
            if let Some(view) = &mut last {
                (view.leader_id, view.leader) = (None, None);
                view.members.iter_mut().for_each(|member| member.alive = false);
            }
            self.last = last;
        }
        self.nodes.retain(|id, node| keeps(*id, node));
    }

    /// The best claim, with what the registry itself knows of the members.
    fn view(&self) -> Option<GroupView> {
        let best = self.nodes.values().max_by_key(|node| {
            // Among equals the leader's own word counts: it knows its address best.
            (Claim::of(&node.claim), node.role == Role::Leader)
        });
        let Some(best) = best else { return self.last.clone() };
        let mut view = best.claim.clone();
        // One that said good-bye leads nothing any more.
        if view.leader_id.is_some_and(|id| self.left.contains_key(&id)) {
            view.leader_id = None;
        }
        view.cluster.clone_from(&self.cluster);
        self.complete(&mut view.members);
        view.leader = view.leader_id.and_then(|id| {
            let leader = view.members.iter().find(|member| member.node_id == id)?;
            (!leader.client_address.is_empty()).then(|| leader.client_address.clone())
        });
        Some(view)
    }

    fn complete(&self, members: &mut Vec<MemberView>) {
        for (id, node) in &self.nodes {
            match members.iter_mut().find(|member| member.node_id == *id) {
                Some(member) => {
                    member.alive = true;
                    member.client_address.clone_from(&node.client_address);
                }
                None => members.push(MemberView {
                    node_id: *id,
                    raft_address: String::new(),
                    client_address: node.client_address.clone(),
                    voter: false,
                    alive: true,
                }),
            }
        }
        members.sort_by_key(|member| member.node_id);
    }
}

impl Node {
    fn of(name: BrokerName, now: Instant, report: &RegisterRequest) -> Self {
        let leader_id = match report.role() {
            Role::Leader => Some(report.node_id),
            Role::Unspecified | Role::Follower | Role::Learner | Role::Candidate => {
                (report.leader_id != 0).then_some(report.leader_id)
            }
        };
        let members = report.members.iter().map(|member| MemberView {
            node_id: member.node_id,
            raft_address: member.raft_address.clone(),
            client_address: member.client_address.clone(),
            voter: member.voter,
            alive: false,
        });
        Self {
            heard: now,
            boot_id: report.boot_id,
            role: report.role(),
            client_address: report.client_address.clone(),
            claim: GroupView {
                cluster: report.cluster.clone(),
                broker_name: name,
                group_id: report.group_id.clone(),
                term: report.term,
                leader_id,
                leader: None,
                members: members.collect(),
            },
        }
    }
}

#[cfg(test)]
#[path = "registry_test.rs"]
mod tests;
