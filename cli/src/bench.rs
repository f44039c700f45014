//! `mqbench`: load over the official protocol, and what came of it.
//!
//! Every figure says under which conditions it was taken: replicas, flush mode, requests in flight,
//! messages per request and message size.

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::output::Report;

mod ceiling;
mod connection;
mod consume;
mod disk;
mod echo;
mod facts;
mod figure;
mod hop;
mod load;
mod marks;
mod pacing;
mod produce;
mod progress;
mod recorder;
mod round_trip;
mod scenario;
mod streamed;
mod template;
pub(crate) mod units;

pub use load::LoadArgs;

#[derive(Debug, Parser)]
#[command(
    name = "mqbench",
    version,
    about = "Loads a RaftMQ or RocketMQ 5 cluster and measures it."
)]
pub struct Args {
    /// JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends messages.
    Produce {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        ceiling: ceiling::CeilingArgs,
        /// One message at a time, over one connection.
        #[arg(long, conflicts_with_all = ["rate", "in_flight", "connections", "batch"])]
        latency: bool,
    },
    /// Receives and acknowledges what is there and what comes.
    Consume {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        consume: consume::ConsumeArgs,
    },
    /// Sends, receives and acknowledges at once, until all that was sent has arrived.
    Both {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        consume: consume::ConsumeArgs,
    },
    /// Sends one message, waits for its arrival at a consumer, sends the next.
    SendToReceive {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        round_trip: Box<round_trip::RoundTripArgs>,
    },
    /// The same load sent to the leader and to another access point: what forwarding costs.
    Hop {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        hop: hop::HopArgs,
    },
    /// A server that checks messages as a broker does and stores nothing: the ceiling.
    Echo {
        /// Port 0 takes a free one; the address is printed.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Ends with standard input, that is, with the process that started it.
        #[arg(long, hide = true)]
        as_child: bool,
    },
}

/// Carries out one command.
pub async fn run(args: Args) -> Result<Report> {
    match args.command {
        Command::Produce { load, ceiling, latency } => {
            let load = if latency { load.one_at_a_time() } else { load };
            scenario::produce(&load, &ceiling, args.json).await
        }
        Command::Consume { load, consume } => scenario::consume(&load, &consume, args.json).await,
        Command::Both { load, consume } => scenario::both(&load, &consume, args.json).await,
        Command::SendToReceive { load, round_trip } => {
            scenario::send_to_receive(&load, &round_trip).await
        }
        Command::Hop { load, hop } => scenario::hop(&load, &hop, args.json).await,
        Command::Echo { listen, as_child } => echo::serve_until_interrupted(listen, as_child).await,
    }
}
