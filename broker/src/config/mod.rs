//! Everything an operator can set, in one place, checked before anything starts.
//!
//! Layers, later ones win: built-in defaults, the `--dev` preset, the file (`--config`,
//! `RAFTMQ_CONFIG`), the environment (`NAMESRV_ADDR`, then `RAFTMQ_…`), `--set KEY=VALUE`, flags.
//! A key that nobody knows is an error in each of them.

mod args;
mod book;
mod error;
mod keys;
mod load;
mod print;
mod units;
mod validate;

pub use args::{Args, Command};
pub use book::{Book, Entry, LaidOver};
pub use error::ConfigError;
pub use load::{Loaded, load, load_from};
pub use print::print;
pub use units::{Addresses, Peers, Size, check_address};

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{fault::Hold, otlp::Endpoint};
use commitlog::Bug;
use raft::DiskFault;

/// Queues of a topic that comes into being by its first use.
const AUTO_CREATED_QUEUES: u32 = 8;

/// The broker's settings. `keys.rs` documents each; a test holds the two together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct Config {
    pub cluster: String,
    pub broker_name: String,
    pub node_id: u64,
    pub raft_peers: Peers,
    pub join: Addresses,
    pub raft_listen: String,
    pub raft_advertise: String,
    pub raft_secret_file: PathBuf,
    pub dev: bool,
    pub listen: String,
    pub advertise: String,
    pub namesrv: Addresses,
    pub metrics: String,
    pub data_dir: PathBuf,
    pub flush: Flush,
    pub workers: usize,
    pub auto_create_topics: bool,
    pub auto_create_queues: u32,
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
    pub route: RouteConfig,
    pub read: ReadConfig,
    pub admin: AdminConfig,
    pub raft: RaftConfig,
    pub log: LogConfig,
    pub tls: TlsFiles,
    pub limits: Limits,
    pub transaction: TransactionConfig,
    pub shutdown: ShutdownConfig,
    pub tracing: TracingConfig,
    pub otlp: OtlpConfig,
    pub fault: FaultConfig,
}

/// When a message counts as written on a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    /// After fsync. The default, and the only safe choice.
    Sync,
    /// After the write call: a power loss on a quorum loses acknowledged messages.
    Async,
}

/// What a route answer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteMode {
    /// The address that the client dialled.
    AccessPoint,
    /// Producers spread over the replicas.
    Split,
    /// The leader's advertised address.
    Direct,
}

/// Who answers what takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadMode {
    /// The leader: what was stored before is found.
    Leader,
    /// The replica that is asked, as far as it has come.
    Follower,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct ReadConfig {
    pub mode: ReadMode,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct AdminConfig {
    pub secret_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct RouteConfig {
    pub mode: RouteMode,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct RaftConfig {
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub election_timeout_min: Duration,
    #[serde(with = "humantime_serde")]
    pub election_timeout_max: Duration,
    pub snapshot_rate: Size,
    pub scrub_rate: Size,
    #[serde(with = "humantime_serde")]
    pub scrub_interval: Duration,
    pub preferred_leader: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct LogConfig {
    pub segment_size: Size,
    #[serde(with = "humantime_serde")]
    pub retention_time: Duration,
    #[serde(with = "humantime_serde")]
    pub dead_letter_retention_time: Duration,
    pub retention_bytes: Size,
    pub disk_high: u64,
    pub disk_full: u64,
    pub disk_reserve: Size,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct TlsFiles {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct Limits {
    pub connections: usize,
    pub long_polls: usize,
    pub send_bytes: Size,
    pub receive_bytes: Size,
    pub timers_per_second: u32,
    #[serde(with = "humantime_serde")]
    pub invisible_min: Duration,
    pub clients: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct TransactionConfig {
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub check_interval: Duration,
    pub check_max: u32,
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct ShutdownConfig {
    #[serde(with = "humantime_serde")]
    pub forward_for: Duration,
    #[serde(with = "humantime_serde")]
    pub finish_within: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct TracingConfig {
    pub filter: String,
    pub format: TracingFormat,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct FaultConfig {
    pub hold: String,
    pub disk: String,
    pub bug: String,
    pub level: u32,
    pub wire: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the documentation users read is in keys.rs, one line a key")]
pub struct OtlpConfig {
    pub endpoint: String,
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

/// How log lines look on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TracingFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cluster: "DefaultCluster".into(),
            broker_name: String::new(),
            node_id: 0,
            raft_peers: Peers::default(),
            join: Addresses::default(),
            raft_listen: String::new(),
            raft_advertise: String::new(),
            raft_secret_file: PathBuf::new(),
            dev: false,
            listen: "127.0.0.1:8081".into(),
            advertise: String::new(),
            namesrv: Addresses::default(),
            metrics: String::new(),
            data_dir: "./data".into(),
            flush: Flush::Sync,
            workers: 2,
            auto_create_topics: false,
            auto_create_queues: AUTO_CREATED_QUEUES,
            max_delay: proto::limits::DELAY,
            route: RouteConfig { mode: RouteMode::AccessPoint },
            read: ReadConfig { mode: ReadMode::Leader },
            admin: AdminConfig { secret_file: PathBuf::new() },
            raft: RaftConfig {
                heartbeat_interval: Duration::from_millis(200),
                election_timeout_min: Duration::from_millis(600),
                election_timeout_max: Duration::from_millis(1000),
                snapshot_rate: Size::mib(50),
                scrub_rate: Size::mib(8),
                scrub_interval: Duration::from_hours(24),
                preferred_leader: false,
            },
            log: LogConfig {
                segment_size: Size::mib(256),
                // RocketMQ's.
                retention_time: Duration::from_hours(72),
                dead_letter_retention_time: Duration::from_hours(7 * 24),
                retention_bytes: Size(0),
                // RocketMQ's bounds for cleaning at any cost and for refusing.
                disk_high: 85,
                disk_full: 90,
                disk_reserve: Size::mib(16 << 10),
            },
            tls: TlsFiles { certificate_file: PathBuf::new(), key_file: PathBuf::new() },
            limits: Limits {
                connections: 10_000,
                long_polls: 20_000,
                send_bytes: Size::mib(64),
                receive_bytes: Size::mib(256),
                timers_per_second: 20_000,
                invisible_min: proto::limits::INVISIBLE_MIN,
                clients: 100_000,
            },
            // RocketMQ's, but for the last, which it does not have.
            transaction: TransactionConfig {
                timeout: Duration::from_secs(6),
                check_interval: Duration::from_secs(30),
                check_max: 15,
                max_age: Duration::from_hours(72),
            },
            shutdown: ShutdownConfig {
                forward_for: Duration::from_millis(500),
                finish_within: Duration::from_secs(3),
            },
            tracing: TracingConfig {
                filter: "info,openraft=error".into(),
                format: TracingFormat::Text,
            },
            // RocketMQ's interval.
            otlp: OtlpConfig { endpoint: String::new(), interval: Duration::from_secs(60) },
            fault: FaultConfig::default(),
        }
    }
}

impl Config {
    /// The preset of `--dev`: a group of one that needs nothing else.
    pub fn dev() -> Self {
        Config {
            dev: true,
            broker_name: "broker-a".into(),
            node_id: 1,
            raft_peers: Peers::one(1, "127.0.0.1:40911"),
            auto_create_topics: true,
            ..Config::default()
        }
    }

    /// Where a test wants this node to hold still.
    pub fn hold(&self) -> Result<Option<Hold>, String> {
        match self.fault.hold.as_str() {
            "" => Ok(None),
            _ if !cfg!(debug_assertions) => Err("this build has no faults to offer".into()),
            text => text.parse().map(Some),
        }
    }

    /// What a test wants to fail on the log's disk.
    pub fn disk_fault(&self) -> Result<Option<DiskFault>, String> {
        match self.fault.disk.as_str() {
            "" => Ok(None),
            _ if !cfg!(debug_assertions) => Err("this build has no faults to offer".into()),
            text => text.parse().map(Some),
        }
    }

    /// The bug that a test wants this process to have.
    pub fn bug(&self) -> Result<Option<Bug>, String> {
        match self.fault.bug.as_str() {
            "" => Ok(None),
            _ if !cfg!(debug_assertions) => Err("this build has no faults to offer".into()),
            text => text.parse().map(Some),
        }
    }

    /// Where metrics are pushed to, if anywhere.
    pub fn otlp_endpoint(&self) -> Result<Option<Endpoint>, String> {
        match self.otlp.endpoint.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some),
        }
    }

    /// The address that others are told to reach this node at.
    pub fn advertised(&self) -> &str {
        if self.advertise.is_empty() { &self.listen } else { &self.advertise }
    }
}
