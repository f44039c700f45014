//! A run in name spaces of its own: network, mounts and processes. When it ends, however it ends,
//! the system removes what is left of all three.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::geteuid;
use tokio::signal::unix::{SignalKind, signal};

/// Names the run in the process that is inside.
pub const RUN_ID: &str = "JEPSEN_RUN";
/// What everything that a run makes is called.
const PREFIX: &str = "rj-";
/// How long a run that was interrupted may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// The directory of a run's disks.
#[must_use]
pub fn scratch(disks: &Path, run: &str) -> PathBuf {
    disks.join(format!("{PREFIX}{run}"))
}

/// Whether a name is that of a run's directory, with the process that made it.
#[must_use]
pub(super) fn is_run(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Runs this program with the same arguments inside, and returns its exit code. `None` when it was
/// ended by a signal.
pub async fn enter(run: &str, disks: &Path, arguments: &[String]) -> Result<Option<u8>> {
    let scratch = scratch(disks, run);
    fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    fs::write(scratch.join("owner"), super::store::identity(std::process::id())?)?;
    let done = inside(run, arguments).await;
    // Mounts ended with the name space.
    let removed = fs::remove_dir_all(&scratch).with_context(|| scratch.display().to_string());
    let code = done?;
    removed?;
    Ok(code)
}

async fn inside(run: &str, arguments: &[String]) -> Result<Option<u8>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let mut child = command
        .arg(std::env::current_exe()?)
        .args(arguments)
        .env(RUN_ID, run)
        .stdin(Stdio::null())
        .spawn()
        .context("setpriv and unshare, of the package util-linux")?;
    let status = tokio::select! {
        status = child.wait() => status?,
        // The terminal told everybody: the run may end in order.
        _ = interrupt.recv() => match tokio::time::timeout(GRACE, child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                child.start_kill()?;
                child.wait().await?
            }
        },
        _ = terminate.recv() => {
            child.start_kill()?;
            child.wait().await?
        }
    };
    Ok(status.code().and_then(|code| u8::try_from(code).ok()))
}
