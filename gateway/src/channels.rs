//! Connections to leaders, shared by all requests.
//!
//! Unary calls and streams have a connection each: a stream that carries much must not delay the
//! small answers, and the window of one must not starve the other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{sync::OnceCell, time::timeout};
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

/// Which of the two connections to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Unary,
    Streams,
}

/// A node that does not accept by then is taken for dead, for now.
const CONNECT_WAIT: Duration = Duration::from_millis(1000);

/// After a refusal, callers are told so without a new attempt for this long. During an election
/// hundreds of requests look for the leader at once.
const REFUSED_FOR: Duration = Duration::from_millis(40);

/// Nodes that stop answering pings are dropped: a host that vanished sends no reset.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_WAIT: Duration = Duration::from_secs(2);

/// Bytes in flight from one node: for one stream, and for the connection.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// Addresses kept. Far above the size of a cluster; over it, all that are idle are dropped.
const ADDRESSES_MAX: usize = 1024;

/// The connection could not be made, so nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotConnected;

/// A pool with at most one connection per address and lane.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    slots: Mutex<HashMap<(String, Lane), Arc<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    channel: OnceCell<Channel>,
    refused_at: Mutex<Option<Instant>>,
}

impl Channels {
    /// The connection to this `host:port`, made now if there is none. Callers that come together
    /// share one attempt.
    pub(crate) async fn get(&self, address: &str, lane: Lane) -> Result<Channel, NotConnected> {
        let slot = self.slot(address, lane);
        if let Some(channel) = slot.channel.get() {
            return Ok(channel.clone());
        }
        if slot.is_refused(Instant::now()) {
            return Err(NotConnected);
        }
        let made = slot.channel.get_or_try_init(|| slot.connect(address)).await;
        made.cloned()
    }

    /// Forgets a connection that failed, so that the next caller dials anew.
    pub(crate) fn drop_connection(&self, address: &str, lane: Lane) {
        let key = (address.to_owned(), lane);
        self.slots.lock().expect("no holder panics").remove(&key);
    }

    fn slot(&self, address: &str, lane: Lane) -> Arc<Slot> {
        let mut slots = self.slots.lock().expect("no holder panics");
        if slots.len() >= ADDRESSES_MAX {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        let slot = slots.entry((address.to_owned(), lane)).or_insert_with(|| {
            Arc::new(Slot { channel: OnceCell::new(), refused_at: Mutex::new(None) })
        });
        Arc::clone(slot)
    }
}

impl Slot {
    async fn connect(&self, address: &str) -> Result<Channel, NotConnected> {
        // Those who waited for an attempt that failed do not each start their own.
        if self.is_refused(Instant::now()) {
            return Err(NotConnected);
        }
        let connected = match endpoint(address) {
            Ok(endpoint) => match timeout(CONNECT_WAIT, endpoint.connect()).await {
                Ok(connected) => connected,
                Err(_) => {
                    debug!(%address, "connect timed out");
                    return self.refused();
                }
            },
            Err(error) => Err(error),
        };
        match connected {
            Ok(channel) => Ok(channel),
            Err(error) => {
                debug!(%address, error = ?error, "connect");
                self.refused()
            }
        }
    }

    fn refused(&self) -> Result<Channel, NotConnected> {
        *self.refused_at.lock().expect("no holder panics") = Some(Instant::now());
        Err(NotConnected)
    }

    fn is_refused(&self, now: Instant) -> bool {
        let refused_at = *self.refused_at.lock().expect("no holder panics");
        refused_at.is_some_and(|at| now < at + REFUSED_FOR)
    }
}

fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT)
        .keep_alive_while_idle(true))
}
