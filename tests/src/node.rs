//! One replica of a broker group: a `broker` process with its directory and its addresses.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::address::Host;
use crate::binaries;
use crate::http;
use crate::process::Process;
use crate::rpc::Rpc;
use crate::status::Status;

/// How long an orderly stop may take.
pub const STOP: Duration = Duration::from_secs(15);

/// Where one replica listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub client: SocketAddr,
    pub raft: SocketAddr,
    pub metrics: SocketAddr,
}

impl Addresses {
    /// Further ports on the same host.
    #[must_use]
    pub fn beside(client: SocketAddr, host: Host) -> Self {
        Self { client, raft: host.free_port(), metrics: host.free_port() }
    }

    /// The usual ports of a broker that has a machine of its own.
    #[must_use]
    pub fn at(machine: Ipv4Addr) -> Self {
        let port = |port| SocketAddr::from((machine, port));
        Self { client: port(8081), raft: port(40911), metrics: port(5557) }
    }
}

/// A replica. Its process comes and goes; directory and addresses stay.
pub struct Node {
    pub id: u64,
    pub addresses: Addresses,
    directory: PathBuf,
    process: Mutex<Process>,
}

impl Node {
    /// Describes a replica; `arguments` are all but those for its id, addresses and directory.
    #[must_use]
    pub fn new(
        id: u64,
        addresses: Addresses,
        directory: PathBuf,
        log: PathBuf,
        arguments: Vec<OsString>,
    ) -> Self {
        let name = format!("broker {id}");
        let program = binaries::program("broker");
        let mut all = Self::own_arguments(id, &addresses, &directory);
        all.extend(arguments);
        Self {
            id,
            addresses,
            directory,
            process: Mutex::new(Process::new(name, program, all, log)),
        }
    }

    fn own_arguments(id: u64, addresses: &Addresses, directory: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        add("--node-id", id.to_string().into());
        add("--listen", addresses.client.to_string().into());
        add("--advertise", addresses.client.to_string().into());
        add("--metrics", addresses.metrics.to_string().into());
        add("--data-dir", directory.into());
        arguments
    }

    /// Replaces the arguments of the next start, those for id, addresses and directory aside.
    pub fn set_arguments(&self, arguments: Vec<OsString>) {
        let mut all = Self::own_arguments(self.id, &self.addresses, &self.directory);
        all.extend(arguments);
        self.process().set_arguments(all);
    }

    /// The process, for what has no verb of its own.
    ///
    /// # Panics
    /// When another test thread panicked while it held the process.
    pub fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().expect("no holder panics")
    }

    pub fn start(&self) {
        self.process().start();
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process().pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process().resume();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not end on its own.
    pub async fn stop(&self) -> ExitStatus {
        self.process().terminate();
        self.exit(STOP).await.expect("an orderly stop")
    }

    /// Waits until the process ended on its own.
    pub async fn exit(&self, budget: Duration) -> Result<ExitStatus> {
        let start = std::time::Instant::now();
        loop {
            // The lock is not held while waiting, so that others may look at the node.
            let ended = self.process().exit_now()?;
            match ended {
                Some(status) => return Ok(status),
                None => anyhow::ensure!(
                    start.elapsed() < budget,
                    "{self:?} still runs after {budget:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kill, then start.
    pub fn restart(&self) {
        self.kill();
        self.start();
    }

    /// Removes everything that the node had on disk; it must be down.
    ///
    /// # Panics
    /// When it runs.
    pub fn wipe(&self) {
        assert!(!self.is_running(), "{self:?} runs");
        fs::remove_dir_all(&self.directory).expect("the data directory can be removed");
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// Runs and is not paused.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let mut process = self.process();
        process.is_running() && !process.is_paused()
    }

    /// What the node says of itself; an error when it is down, paused or not ready.
    pub async fn status(&self) -> Result<Status> {
        anyhow::ensure!(self.is_active(), "not running");
        let metrics = self.addresses.metrics;
        tokio::task::spawn_blocking(move || Status::of(metrics)).await?
    }

    /// Whether `/ready` says so.
    pub async fn is_ready(&self) -> bool {
        self.is_active() && http::get_async(self.addresses.metrics, "/ready").await.is_ok()
    }

    /// One value of `/metrics`, summed over its labels.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        metric(self.addresses.metrics, name).await
    }

    /// A client that talks to this node.
    #[must_use]
    pub fn rpc(&self) -> Rpc {
        Rpc::new(self.addresses.client)
    }

    /// The digest of the state that this node has applied, and up to which index.
    pub async fn digest(&self) -> Result<(u64, String)> {
        let mut admin = self.rpc().admin();
        let answer = admin.digest(proto::admin::DigestRequest {}).await?.into_inner();
        Ok((answer.applied_index, answer.digest))
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes that the process has caused to be sent to the storage layer since its start.
    pub fn bytes_written(&self) -> Result<u64> {
        self.io("write_bytes")
    }

    /// Bytes that the process has passed to write calls since its start: files and sockets.
    pub fn io(&self, key: &str) -> Result<u64> {
        let pid = self.process().pid().context("not running")?;
        let io = fs::read_to_string(format!("/proc/{pid}/io")).context("per-process counters")?;
        let line = io.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": "));
        Ok(line.with_context(|| format!("no {key} in the counters"))?.parse()?)
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        let pid = self.process().pid().context("not running")?;
        crate::process::resident_memory(pid)
    }
}

/// One value of the `/metrics` there, summed over its labels.
pub(crate) async fn metric(page: SocketAddr, name: &str) -> Result<f64> {
    let page = http::get_async(page, "/metrics").await?;
    let values = page
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values: Vec<f64> = values.filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
    anyhow::ensure!(!values.is_empty(), "no metric {name}");
    Ok(values.iter().sum())
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker {} at {}", self.id, self.addresses.client)
    }
}
