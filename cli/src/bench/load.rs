//! What load to make: the flags that all commands share, checked.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use proto::{Topic, limits};
use serde::Serialize;

use super::{template, units};

#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Any access point: HOST:PORT of a NameServer or a broker.
    #[arg(short = 'e', long, env = "RAFTMQ_ENDPOINT", default_value = "127.0.0.1:8081")]
    pub endpoint: String,
    #[arg(short = 't', long, default_value = "mqbench")]
    pub topic: Topic,
    /// Creates the topic first, with so many queues on each broker, if it is not there.
    #[arg(long, value_name = "QUEUES")]
    pub create_topic: Option<NonZeroU32>,
    /// Bytes of each body.
    #[arg(long, value_parser = units::size, default_value = "1KiB")]
    pub size: usize,
    /// Messages in each SendMessage.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Send through one produce stream for each connection, not with a call for each SendMessage.
    /// Only RaftMQ has them.
    #[arg(long)]
    pub streamed: bool,
    /// SendMessages under way at once.
    #[arg(long, default_value_t = 256)]
    pub in_flight: usize,
    /// Connections that they share: so many producers.
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Open loop: so many messages a second, whether the answers come or not, with latency counted
    /// from the time when a send was due. Without it a send follows each answer.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<NonZeroU64>,
    /// Load that is not counted, before that which is.
    #[arg(long, value_parser = units::duration, default_value = "2s")]
    pub warm_up: Duration,
    #[arg(long, value_parser = units::duration, default_value = "10s")]
    pub duration: Duration,
    /// No request waits longer for its answer.
    #[arg(long, value_parser = units::duration, default_value = "10s")]
    pub timeout: Duration,
    /// Give each message a tag.
    #[arg(long)]
    pub tag: Option<String>,
    /// Give each message a key of its own, as searchable messages have.
    #[arg(long)]
    pub keys: bool,
    /// Replicas of a message, where the cluster does not tell.
    #[arg(long)]
    pub replicas: Option<u32>,
    /// How the brokers store, where the cluster does not tell.
    #[arg(long)]
    pub flush: Option<Flush>,
    /// Where to measure fdatasync: a directory on the brokers' disk.
    #[arg(long, default_value = ".")]
    pub disk: std::path::PathBuf,
}

/// When a broker counts a write as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    Sync,
    Async,
}

impl LoadArgs {
    /// The same with one message at a time.
    #[must_use]
    pub fn one_at_a_time(self) -> Self {
        Self { in_flight: 1, connections: 1, batch: 1, rate: None, ..self }
    }

    /// Refuses what cannot be sent, or could not be counted.
    pub fn check(&self) -> Result<()> {
        if self.batch == 0 || self.in_flight == 0 || self.connections == 0 {
            bail!("--batch, --in-flight and --connections are at least 1");
        }
        if self.batch > limits::MESSAGES_PER_SEND {
            bail!("--batch {} is over the limit of {}", self.batch, limits::MESSAGES_PER_SEND);
        }
        if self.connections > self.in_flight {
            bail!(
                "--connections {} would idle with --in-flight {}",
                self.connections,
                self.in_flight
            );
        }
        if self.size < template::STAMP_BYTES || self.size > limits::BODY_BYTES {
            bail!(
                "--size {} is not within {} and {} bytes",
                self.size,
                template::STAMP_BYTES,
                limits::BODY_BYTES
            );
        }
        let request = self.batch.saturating_mul(self.size);
        if request >= limits::SEND_BYTES {
            bail!(
                "--batch {} of --size {} makes {request} bytes, over the limit of {} for one send",
                self.batch,
                self.size,
                limits::SEND_BYTES
            );
        }
        if self.duration.is_zero() {
            bail!("--duration is more than nothing");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &str) -> LoadArgs {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            load: LoadArgs,
        }
        let flags = std::iter::once("mqbench").chain(flags.split_whitespace());
        <Only as clap::Parser>::parse_from(flags).load
    }

    #[test]
    fn the_defaults_are_a_load() {
        load("").check().unwrap();
        load("").one_at_a_time().check().unwrap();
    }

    #[test]
    fn loads_that_cannot_be_are_refused() {
        for bad in [
            "--batch 0",
            "--in-flight 0",
            "--connections 0",
            "--batch 4097 --size 32",
            "--connections 5 --in-flight 4",
            "--size 31",
            "--size 4194305",
            "--size 1MiB --batch 6",
            "--duration 0s",
        ] {
            assert!(load(bad).check().is_err(), "{bad}");
        }
        load("--size 32").check().unwrap();
        load("--size 4MiB").check().unwrap();
        load("--size 32 --batch 4096").check().unwrap();
    }
}
