//! The command line. Each flag sets the key of its name.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::inspect::Inspect;
use crate::restore::Restore;

/// A RocketMQ-compatible broker whose replicated log is its store.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "broker", version, about, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// A group of one that is its own access point, with topics created on use.
    #[arg(long)]
    pub dev: bool,
    /// The broker group's name, equal on all its replicas.
    #[arg(long, value_name = "NAME")]
    pub broker_name: Option<String>,
    /// This replica's number within the group.
    #[arg(long, value_name = "N")]
    pub node_id: Option<String>,
    /// Initial voters, this node included: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT
    #[arg(long, value_name = "LIST")]
    pub raft_peers: Option<String>,
    /// Raft addresses of members of a group that exists, any of them, in which this node waits to
    /// be added.
    #[arg(long, value_name = "LIST")]
    pub join: Option<String>,
    /// Where this replica listens for its peers; needed with --join.
    #[arg(long, value_name = "HOST:PORT")]
    pub raft_listen: Option<String>,
    /// The address of --raft-listen as the peers reach it; only with --join.
    #[arg(long, value_name = "HOST:PORT")]
    pub raft_advertise: Option<String>,
    /// File with the secret that the group's replicas share.
    #[arg(long, value_name = "FILE")]
    pub raft_secret_file: Option<String>,
    /// Where clients connect.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// The address of --listen as others reach it.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// NameServers to register with, separated by commas.
    #[arg(long, short = 'n', value_name = "LIST")]
    pub namesrv: Option<String>,
    /// HTTP address for /metrics, /health, /ready and /status.
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
    /// Where the log and the state live.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The cluster that this broker group belongs to.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// When a write counts: sync or async.
    #[arg(long, value_name = "HOW")]
    pub flush: Option<String>,
    /// A TOML file with any of the keys that --print-config shows.
    #[arg(long, value_name = "FILE", env = "RAFTMQ_CONFIG")]
    pub config: Option<PathBuf>,
    /// Any setting by its key, for example --set raft.heartbeat_interval=100ms
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print every setting with its value and its meaning, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// Without one the broker runs.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What is done instead of running, on a directory that no broker uses.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    Inspect(Inspect),
    Restore(Restore),
}

impl Args {
    /// The flags that were given, as keys and values.
    pub(super) fn assignments(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("broker_name", &self.broker_name),
            ("node_id", &self.node_id),
            ("raft_peers", &self.raft_peers),
            ("join", &self.join),
            ("raft_listen", &self.raft_listen),
            ("raft_advertise", &self.raft_advertise),
            ("raft_secret_file", &self.raft_secret_file),
            ("listen", &self.listen),
            ("advertise", &self.advertise),
            ("namesrv", &self.namesrv),
            ("metrics", &self.metrics),
            ("data_dir", &self.data_dir),
            ("cluster", &self.cluster),
            ("flush", &self.flush),
        ];
        let mut found: Vec<(&'static str, String)> = given
            .into_iter()
            .filter_map(|(key, value)| value.as_ref().map(|value| (key, value.clone())))
            .collect();
        if self.dev {
            found.push(("dev", "true".to_owned()));
        }
        found
    }
}
