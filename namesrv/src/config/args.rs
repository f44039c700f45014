//! The command line. Each flag sets the key of its name.

use std::path::PathBuf;

use clap::Parser;

/// A NameServer: knows which broker leads what, and is an access point for every client.
/// It keeps everything in memory; any number of them may run, and any of them may die.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "namesrv", version, about, max_term_width = 100)]
pub struct Args {
    /// Where brokers and clients connect: plaintext and TLS on one port.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// HTTP address for /metrics, /health, /ready, /status and /rocketmq/nsaddr.
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
    /// All NameServers of the cluster, for /rocketmq/nsaddr.
    #[arg(long, value_name = "LIST")]
    pub addresses: Option<String>,
    /// A TOML file with any of the keys that --print-config shows.
    #[arg(long, value_name = "FILE", env = "RAFTMQ_CONFIG")]
    pub config: Option<PathBuf>,
    /// Any setting by its key, for example --set route.mode=direct
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print every setting with its value and its meaning, and exit.
    #[arg(long)]
    pub print_config: bool,
}

impl Args {
    /// The flags that were given, as keys and values.
    pub(super) fn assignments(&self) -> impl Iterator<Item = (&'static str, String)> {
        let given =
            [("listen", &self.listen), ("metrics", &self.metrics), ("addresses", &self.addresses)];
        let given = given.map(|(key, value)| value.clone().map(|value| (key, value)));
        given.into_iter().flatten()
    }
}
