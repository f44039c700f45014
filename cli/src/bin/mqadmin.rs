//! Administers a cluster, with the command names and flags of RocketMQ's own tool.

use std::process::ExitCode;

use cli::{admin::Invocation, terminal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let invocation = Invocation::of_process();
    let as_json = invocation.as_json();
    if let Some(pause) = invocation.watch() {
        return terminal::watch("mqadmin", pause, as_json, || invocation.run()).await;
    }
    terminal::finish("mqadmin", invocation.run().await, as_json)
}
