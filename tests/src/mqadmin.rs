//! The `mqadmin` program, as an operator runs it.

use std::time::Duration;

use serde_json::Value;

use crate::process::run_to_end;
use crate::{Cluster, binaries};

/// A command that looks or changes one thing.
pub const SOON: Duration = Duration::from_secs(20);
/// One that waits for a replica to catch up.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Runs a command through this address. Exit code and output.
///
/// # Panics
/// When it does not end in time, or was killed.
pub async fn run(
    cluster: &Cluster,
    through: &str,
    command: &str,
    budget: Duration,
) -> (i32, String) {
    let mut arguments: Vec<&str> = command.split_whitespace().collect();
    arguments.extend(["-n", through]);
    let program = binaries::program("mqadmin");
    let (status, output) = run_to_end(&program, &arguments, cluster.scratch.path(), budget).await;
    (status.code().expect("it ends by itself"), output)
}

/// Runs a command that succeeds, and returns what it says to programs.
///
/// # Panics
/// When it fails.
pub async fn json(cluster: &Cluster, through: &str, command: &str) -> Value {
    let (code, output) = run(cluster, through, &format!("{command} --json"), PATIENCE).await;
    assert_eq!(code, 0, "{command}: {output}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{command}: {error}: {output}"))
}
