//! Loads a cluster over the official protocol and measures it.

use std::process::ExitCode;

use clap::Parser;
use cli::{bench, terminal};

#[tokio::main]
async fn main() -> ExitCode {
    let args = bench::Args::parse();
    let as_json = args.json;
    terminal::finish("mqbench", bench::run(args).await, as_json)
}
