//! Everything an operator can set, checked before anything starts.
//!
//! Layers, later ones win: defaults, the file (`--config`, `RAFTMQ_CONFIG`), the environment
//! (`NAMESRV_ADDR`, then `RAFTMQ_...`), `--set KEY=VALUE`, flags. A key that nobody knows is an
//! error in each of them.

mod args;
mod keys;
mod load;

use std::path::PathBuf;

use gateway::RouteMode;
use serde::{Deserialize, Serialize};

pub use self::{
    args::Args,
    load::{load, print},
};

/// The settings. `keys.rs` documents each; a test holds the two together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: String,
    pub metrics: String,
    pub addresses: String,
    pub workers: usize,
    pub route: RouteConfig,
    pub tls: TlsFiles,
    pub limits: Limits,
    pub tracing: TracingConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    pub mode: String,
}

/// Empty paths: a certificate made at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    pub certificates: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub clients: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracingConfig {
    pub filter: String,
    pub format: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9876".to_owned(),
            metrics: String::new(),
            addresses: String::new(),
            workers: 2,
            route: RouteConfig { mode: RouteMode::default().to_string() },
            tls: TlsFiles { certificates: PathBuf::new(), key: PathBuf::new() },
            limits: Limits { clients: gateway::CLIENTS_MAX },
            tracing: TracingConfig { filter: "info".to_owned(), format: "text".to_owned() },
        }
    }
}

/// The settings cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown key {key:?} in {origin}{}", nearest.as_ref().map(|n| format!(": did you mean {n:?}?")).unwrap_or_default())]
    UnknownKey { key: String, origin: String, nearest: Option<String> },
    #[error("{key} = {value:?} in {origin}: expected a whole number")]
    NotANumber { key: String, value: String, origin: String },
    #[error("--set {0:?} is not KEY=VALUE")]
    NotAnAssignment(String),
    #[error("read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Parse(Box<figment::Error>),
    #[error("{key} = {value:?}: {why}")]
    Invalid { key: &'static str, value: String, why: String },
    #[error("tls.certificates and tls.key are needed together")]
    HalfTls,
}

impl From<figment::Error> for ConfigError {
    fn from(error: figment::Error) -> Self {
        Self::Parse(Box::new(error))
    }
}

impl Config {
    /// What must hold of each value, and among them.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key, value: &str, why: &str| {
            Err(ConfigError::Invalid { key, value: value.to_owned(), why: why.to_owned() })
        };
        if !is_address(&self.listen) {
            return invalid("listen", &self.listen, "expected HOST:PORT");
        }
        if !self.metrics.is_empty() && !is_address(&self.metrics) {
            return invalid("metrics", &self.metrics, "expected HOST:PORT");
        }
        if self.address_list().iter().any(|address| !is_address(address)) {
            return invalid("addresses", &self.addresses, "expected HOST:PORT;HOST:PORT");
        }
        if self.workers == 0 {
            return invalid("workers", "0", "at least one thread must serve");
        }
        if self.limits.clients == 0 {
            return invalid("limits.clients", "0", "nobody could connect");
        }
        if let Err(error) = self.route_mode() {
            return invalid("route.mode", &self.route.mode, &error.to_string());
        }
        if !matches!(self.tracing.format.as_str(), "text" | "json") {
            return invalid("tracing.format", &self.tracing.format, "expected text or json");
        }
        let files = [&self.tls.certificates, &self.tls.key];
        if files.iter().filter(|path| path.as_os_str().is_empty()).count() == 1 {
            return Err(ConfigError::HalfTls);
        }
        Ok(())
    }

    /// How routes are presented.
    pub fn route_mode(&self) -> Result<RouteMode, gateway::UnknownRouteMode> {
        self.route.mode.parse()
    }

    /// Every NameServer of the cluster, for those who ask; this one alone unless told otherwise.
    pub fn address_list(&self) -> Vec<String> {
        let said = self.addresses.split([';', ',']).map(str::trim).filter(|a| !a.is_empty());
        let list: Vec<String> = said.map(str::to_owned).collect();
        if list.is_empty() { vec![self.listen.clone()] } else { list }
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
