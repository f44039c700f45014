//! `broker restore`: a replica of a new group from a backup. Nothing runs meanwhile.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use proto::BrokerName;
use raft::{NodeId, RestoreStep};

use crate::config::{Peers, Size};
use crate::data_dir::DataDir;

/// Between two lines about how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Makes the data directory of one replica of a new group. Do this for each node of --raft-peers,
/// from the same backup and with the same list; then start them.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// The directory that `mqadmin backup` wrote.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Where the replica's log and state are to live: missing or empty.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The broker group's name: as it was.
    #[arg(long, value_name = "NAME")]
    broker_name: BrokerName,
    /// This replica's number within the new group.
    #[arg(long, value_name = "N")]
    node_id: u64,
    /// The voters of the new group, this node included: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT
    #[arg(long, value_name = "LIST")]
    raft_peers: Peers,
}

impl Restore {
    /// Does it, and says on standard output how to go on.
    ///
    /// # Errors
    /// The backup, the directory or the list of peers cannot be used.
    pub fn run(self) -> anyhow::Result<()> {
        let started = Instant::now();
        let peers = self.raft_peers.0.iter().map(|(id, at)| (NodeId(*id), at.clone())).collect();
        let data_dir = DataDir::lock(&self.data_dir)?;
        anyhow::ensure!(
            !data_dir.state().exists(),
            "{} holds a state: restore into a directory of its own",
            self.data_dir.display()
        );
        let node = NodeId(self.node_id);
        let name = self.broker_name.as_str();
        let config = raft::Config::new(node, name, peers, "", data_dir.raft());
        let mut told = Told { at: started, shown: io::stderr().is_terminal() };
        let restored = raft::restore(&self.from, &config, &mut |step| told.tell(step));
        let restored = restored.with_context(|| format!("restore {}", self.from.display()))?;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "restored up to entry {} as node {node} of {name}, group {}; took {:.1} s\n\
             start it with --node-id {node}, --broker-name {name}, --data-dir {}, --raft-peers as \
             above and --set log.segment_size={}",
            restored.last.index,
            restored.group,
            started.elapsed().as_secs_f64(),
            self.data_dir.display(),
            Size(restored.segment_size),
        )?;
        Ok(out.flush()?)
    }
}

/// A line on a terminal.
struct Told {
    at: Instant,
    shown: bool,
}

impl Told {
    fn tell(&mut self, step: RestoreStep) {
        if !self.shown || self.at.elapsed() < TELL_EVERY {
            return;
        }
        self.at = Instant::now();
        let (what, done, total) = match step {
            RestoreStep::Checking { done, total } => ("checking", done, total),
            RestoreStep::Copying { done, total } => ("copying", done, total),
        };
        // Who looks on may have gone.
        let _ = writeln!(io::stderr(), "{what}: {} of {} MiB", done >> 20, total >> 20);
    }
}
