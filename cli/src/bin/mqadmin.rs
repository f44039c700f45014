//! Administers a cluster, with the command names and flags of RocketMQ's own tool.

use std::process::ExitCode;

use clap::Parser;
use cli::{admin, terminal};

#[tokio::main]
async fn main() -> ExitCode {
    let args = admin::Args::parse();
    let as_json = args.json;
    terminal::finish("mqadmin", admin::run(args).await, as_json)
}
