//! Who leads what, and where topics are: the view that routes and forwarding go by.

mod remote;
mod shared;
mod table;
mod wire;

use std::sync::Arc;

use proto::{
    BrokerName, Topic,
    v2::{MessageType, Permission},
};
use tokio::sync::watch;

pub use self::{
    remote::{RemoteDirectory, RemoteDirectoryConfig},
    shared::Shared,
    table::{Claim, View, better_claim, newest},
    wire::WireError,
};

/// Where a topic lives, over all broker groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRoute {
    pub topic: Topic,
    /// Never `Unspecified`.
    pub permission: Permission,
    /// What the topic accepts; never empty, never `Unspecified`.
    pub accepts: Vec<MessageType>,
    /// Broker groups and their number of queues that take messages, sorted by name. At least one has
    /// some; one with none is only read any more.
    pub placement: Vec<(BrokerName, u32)>,
    /// The higher version of a topic wins.
    pub version: u64,
}

/// One replica as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    pub node_id: u64,
    pub raft_address: String,
    /// `host:port` for clients; empty while unknown.
    pub client_address: String,
    pub voter: bool,
    /// Heard of within the registry's time-out.
    pub alive: bool,
}

/// One broker group as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    pub cluster: String,
    pub broker_name: BrokerName,
    pub group_id: String,
    /// Raft term of the claim that won.
    pub term: u64,
    /// `None` while no leader is known.
    pub leader_id: Option<u64>,
    /// Client address of the leader; `None` while unknown.
    pub leader: Option<String>,
    /// Sorted by node id.
    pub members: Vec<MemberView>,
}

/// A view of the cluster that changes under its reader. Answers are immediate and may be stale.
pub trait Directory: Send + Sync + 'static {
    /// The topic, where any broker group has reported it.
    fn topic(&self, topic: &Topic) -> Option<Arc<TopicRoute>>;

    /// The broker group, where it has been heard of.
    fn group(&self, name: &BrokerName) -> Option<Arc<GroupView>>;

    /// Every broker group heard of, and those that host a topic by another one's word; sorted by name.
    fn groups(&self) -> Vec<BrokerName>;

    /// Counts changes: wait on it, then look again.
    fn changed(&self) -> watch::Receiver<u64>;

    /// A node that refused named this client address as its group's leader. A hint: it counts only
    /// while no leader is known by a claim.
    fn report_leader(&self, name: &BrokerName, client_address: &str);
}

impl<D: Directory + ?Sized> Directory for Arc<D> {
    fn topic(&self, topic: &Topic) -> Option<Arc<TopicRoute>> {
        (**self).topic(topic)
    }

    fn group(&self, name: &BrokerName) -> Option<Arc<GroupView>> {
        (**self).group(name)
    }

    fn groups(&self) -> Vec<BrokerName> {
        (**self).groups()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        (**self).changed()
    }

    fn report_leader(&self, name: &BrokerName, client_address: &str) {
        (**self).report_leader(name, client_address);
    }
}
