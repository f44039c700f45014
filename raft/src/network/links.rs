//! Connections to the other replicas.
//!
//! Each has three: one for entries, one for snapshots, which are slow on purpose, and one for
//! everything that must not wait behind either.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::raft_rpc::raft_client::RaftClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::auth::{Credentials, Method};
use super::{
    CONNECTION_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MESSAGE_BYTES_MAX, STREAM_WINDOW,
};
use crate::NodeId;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// The way to one peer. Connects when first used, and again after a connection broke.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) node: NodeId,
    pub(crate) addr: Arc<str>,
    /// Hello, heartbeats, votes, watches.
    control: Channel,
    /// Entries.
    bulk: Channel,
    snapshot: Channel,
    credentials: Credentials,
}

impl Link {
    fn open(node: NodeId, addr: &str, credentials: Credentials) -> Link {
        Link {
            node,
            addr: addr.into(),
            control: channel(addr),
            bulk: channel(addr),
            snapshot: channel(addr),
            credentials,
        }
    }

    pub(crate) fn control(&self) -> RaftClient<Channel> {
        client(self.control.clone())
    }

    pub(crate) fn bulk(&self) -> RaftClient<Channel> {
        client(self.bulk.clone())
    }

    pub(crate) fn snapshot(&self) -> RaftClient<Channel> {
        client(self.snapshot.clone())
    }

    /// A call to this peer, signed.
    pub(crate) fn request<T>(&self, method: Method, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.credentials.sign(&mut request, self.node, method);
        request
    }
}

fn client(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// An address that cannot be parsed becomes a channel that cannot connect, which is how an address
/// that does not resolve behaves as well.
fn channel(addr: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .unwrap_or_else(|_invalid| Endpoint::from_static("http://invalid.invalid:1"));
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy()
}

/// All links of a node.
#[derive(Debug)]
pub(crate) struct Links {
    credentials: Credentials,
    open: Mutex<BTreeMap<NodeId, Link>>,
}

impl Links {
    pub(crate) fn new(credentials: Credentials) -> Links {
        Links { credentials, open: Mutex::new(BTreeMap::new()) }
    }

    /// A link to whoever is at `addr`, for calls that do not name an addressee.
    pub(crate) fn anybody(&self, addr: &str) -> Link {
        Link::open(NodeId(0), addr, self.credentials.clone())
    }

    /// The link to `node` at its last known address.
    pub(crate) fn latest(&self, node: NodeId) -> Option<Link> {
        self.open.lock().expect("no holder panics").get(&node).cloned()
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.open.lock().expect("no holder panics").remove(&node);
    }

    /// The link to `node`, opened anew when its address has changed.
    pub(crate) fn to(&self, node: NodeId, addr: &str) -> Link {
        let mut open = self.open.lock().expect("no holder panics");
        match open.get(&node) {
            Some(link) if *link.addr == *addr => link.clone(),
            _ => {
                let link = Link::open(node, addr, self.credentials.clone());
                open.insert(node, link.clone());
                link
            }
        }
    }
}
