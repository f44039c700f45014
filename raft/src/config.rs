//! What a broker group needs to know to start.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use commitlog::{BootId, DiskFault};

use crate::{Error, NodeId, Startup};

/// Slower than this, a snapshot would hardly ever arrive.
pub(crate) const SNAPSHOT_RATE_MIN: u64 = 64 << 10;

/// Settings of one replica.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_id: NodeId,
    /// Name of the broker group. Peers with another name are refused.
    pub broker_name: String,
    /// The initial voters with their Raft addresses (`host:port`), this node included. The same on
    /// all of them; once the group has formed the replicated membership counts instead.
    pub peers: BTreeMap<NodeId, String>,
    /// Raft addresses (`host:port`) of members of a group that exists, any of them, in which this
    /// node waits to be added as a new replica. `peers` is empty then. Once the node was added the
    /// replicated membership counts instead.
    pub join: Vec<String>,
    /// Where to listen for peers, if not at this node's address in `peers`. Needed with `join`.
    pub listen: Option<String>,
    /// Where peers reach this node, if not where it listens. Only with `join`.
    pub raft_addr: Option<String>,
    /// Address that clients use for this node. Peers learn it.
    pub client_addr: String,
    /// Holds `identity`, `log/` and `snapshot/`. Created when missing, locked while in use.
    pub data_dir: PathBuf,
    pub flush: Flush,
    /// Names this run of the operating system: what was written without a sync survives the end of
    /// a process, and not the end of that run. Default: the kernel's own id.
    pub boot_id: Option<BootId>,
    /// Shared by all replicas. Without one only peers on loopback addresses are accepted.
    pub secret: Option<Secret>,
    /// Bytes per segment file; fixed for the life of the group. Default 256 MiB.
    pub segment_size: u64,
    /// Bytes per second at which a snapshot is sent to another replica, so that it does not take
    /// the disk and the network from everything else. Default 50 MiB.
    pub snapshot_rate: u64,
    /// Bytes per second at which what is on the disk is read again to find damage. Default 8 MiB;
    /// 0 leaves it to who reads.
    pub scrub_rate: u64,
    /// From the beginning of one such round to that of the next, at the least. Default a day.
    pub scrub_interval: Duration,
    /// A fault of the log's disk, for tests.
    pub disk_fault: Option<DiskFault>,
    /// Whether the others are to hand leadership to this node once it has caught up. Default no.
    pub preferred_leader: bool,
    /// The newest commands that this node's state machine understands; see
    /// [`Group::feature_level`](crate::Group::feature_level). Default 1.
    pub feature_level: u32,
    /// Where the node says what it waits for before [`Group::start`](crate::Group::start) returns.
    pub startup: Startup,
    pub timing: Timing,
    pub limits: Limits,
}

impl Config {
    /// Settings with every default in place.
    pub fn new(
        node_id: NodeId,
        broker_name: impl Into<String>,
        peers: BTreeMap<NodeId, String>,
        client_addr: impl Into<String>,
        data_dir: impl Into<PathBuf>,
    ) -> Config {
        Config {
            node_id,
            broker_name: broker_name.into(),
            peers,
            join: Vec::new(),
            listen: None,
            raft_addr: None,
            client_addr: client_addr.into(),
            data_dir: data_dir.into(),
            flush: Flush::Sync,
            boot_id: BootId::current(),
            secret: None,
            segment_size: 256 << 20,
            snapshot_rate: 50 << 20,
            scrub_rate: 8 << 20,
            scrub_interval: Duration::from_hours(24),
            disk_fault: None,
            preferred_leader: false,
            feature_level: 1,
            startup: Startup::default(),
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }

    /// Where this node listens for its peers.
    ///
    /// # Errors
    /// The peer list does not name this node, or settings contradict each other.
    pub fn validate(&self) -> Result<&str, Error> {
        let listen = match (self.join.is_empty(), self.peers.get(&self.node_id)) {
            (true, None) => return Err(Error::NotInPeers { node: self.node_id }),
            (false, Some(_)) => return Err(Error::JoinWithPeers),
            (true, Some(own)) => self.listen.as_ref().unwrap_or(own),
            (false, None) => self.listen.as_ref().ok_or(Error::JoinWithoutAddress)?,
        };
        let name = &self.broker_name;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::BrokerName { name: name.clone() });
        }
        self.timing.validate()?;
        self.limits.validate(self.segment_size)?;
        if self.snapshot_rate < SNAPSHOT_RATE_MIN {
            let (rate, min) = (self.snapshot_rate, SNAPSHOT_RATE_MIN);
            return Err(Error::SnapshotRate { rate, min });
        }
        Ok(listen)
    }

    /// Where peers reach this node.
    pub(crate) fn raft_addr(&self) -> &str {
        let listed = self.peers.get(&self.node_id).or(self.raft_addr.as_ref());
        listed.or(self.listen.as_ref()).map_or("", String::as_str)
    }
}

/// When an entry counts as stored on a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flush {
    /// After fdatasync (group commit).
    #[default]
    Sync,
    /// After the write to the page cache: a power cut may take acknowledged entries. A node that
    /// restarts after one does not vote until it has caught up.
    Async,
}

/// The secret that the replicas of a group share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// # Errors
    /// `bytes` is shorter than 16 bytes, which could be guessed.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Secret, Error> {
        const SHORTEST: usize = 16;
        let bytes = bytes.into();
        if bytes.len() < SHORTEST {
            return Err(Error::ShortSecret { bytes: bytes.len(), min: SHORTEST });
        }
        Ok(Secret(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Clocks of failure detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader is heard. Default 200 ms.
    pub heartbeat: Duration,
    /// A follower that hears nothing waits `election_max` plus a random time between
    /// `election_min` and `election_max`. Default 600 ms and 1000 ms.
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long a replication stream may leave a request unanswered before it is given up and
    /// opened again. Default 5 s.
    pub append_deadline: Duration,
    /// How long a node that may have lost acknowledged entries (asynchronous flush and a power
    /// cut) waits for a leader before it counts itself in again. Default 30 s.
    pub suspect_for: Duration,
    /// How long a stop may take to hand over and to answer what is in flight. Default 5 s.
    pub shutdown: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_millis(600),
            election_max: Duration::from_millis(1000),
            append_deadline: Duration::from_secs(5),
            suspect_for: Duration::from_secs(30),
            shutdown: Duration::from_secs(5),
        }
    }
}

impl Timing {
    fn validate(&self) -> Result<(), Error> {
        let ordered = self.heartbeat < self.election_min && self.election_min < self.election_max;
        if !ordered || self.heartbeat < Duration::from_millis(1) {
            return Err(Error::Timing {
                heartbeat: self.heartbeat,
                election_min: self.election_min,
                election_max: self.election_max,
            });
        }
        Ok(())
    }
}

/// Bounds on what a group holds in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// An entry takes further commands until it has this many bytes. Default 256 KiB.
    pub entry_bytes: usize,
    /// The largest single command. It gets an entry of its own if need be. Default 8 MiB.
    pub command_bytes: usize,
    /// Entries proposed and not yet committed. Default 4.
    pub entries_in_flight: usize,
    /// Bytes accepted from proposers and not answered yet; more is `Overloaded`. Default 64 MiB.
    pub unacked_bytes: usize,
    /// Proposals accepted and not answered yet; more is `Overloaded`. Default 65,536.
    pub unacked_commands: usize,
    /// Bytes committed and not applied yet at which no further entry is proposed. Default 16 MiB.
    pub apply_lag_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entry_bytes: 256 << 10,
            command_bytes: 8 << 20,
            entries_in_flight: 4,
            unacked_bytes: 64 << 20,
            unacked_commands: 65_536,
            apply_lag_bytes: 16 << 20,
        }
    }
}

impl Limits {
    /// What a segment file needs beside the largest entry: its header, the frame's header and the
    /// batch's table.
    const SEGMENT_OVERHEAD: usize = 64 << 10;

    fn validate(&self, segment_size: u64) -> Result<(), Error> {
        let entry = self.command_bytes.max(self.entry_bytes) + Self::SEGMENT_OVERHEAD;
        if entry as u64 > segment_size {
            return Err(Error::SegmentTooSmall { segment_size, needed: entry as u64 });
        }
        let positive = self.entry_bytes > 0
            && self.command_bytes > 0
            && self.entries_in_flight > 0
            && self.unacked_commands > 0
            && self.apply_lag_bytes > 0;
        if !positive || self.unacked_bytes < self.command_bytes {
            return Err(Error::Limits {
                unacked_bytes: self.unacked_bytes,
                command_bytes: self.command_bytes,
            });
        }
        Ok(())
    }
}
