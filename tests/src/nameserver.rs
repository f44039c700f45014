//! A `namesrv` process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::binaries;
use crate::eventually;
use crate::http;
use crate::process::{Process, resident_memory};
use crate::rpc::Rpc;

/// A NameServer.
#[derive(Debug)]
pub struct NameServer {
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    process: Mutex<Process>,
}

impl NameServer {
    /// Describes a NameServer; nothing runs yet.
    #[must_use]
    pub fn new(number: usize, address: SocketAddr, metrics: SocketAddr, log: PathBuf) -> Self {
        let arguments: Vec<OsString> = vec![
            "--listen".into(),
            address.to_string().into(),
            "--metrics".into(),
            metrics.to_string().into(),
        ];
        let name = format!("namesrv {number}");
        let process = Process::new(name, binaries::program("namesrv"), arguments, log);
        Self { address, metrics, process: Mutex::new(process) }
    }

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

    pub fn restart(&self) {
        self.kill();
        self.start();
    }

    /// Waits until the process ended on its own.
    ///
    /// # Panics
    /// When it does not within `budget`.
    pub async fn exit(&self, budget: Duration) -> ExitStatus {
        eventually("the NameServer ends", budget, async || {
            let ended = self.process().exit_now().map_err(|e| e.to_string())?;
            ended.ok_or_else(|| "it runs".to_owned())
        })
        .await
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    pub async fn is_ready(&self) -> bool {
        self.is_running() && http::get_async(self.metrics, "/ready").await.is_ok()
    }

    /// The status page: groups and leaders.
    pub async fn status(&self) -> Result<serde_json::Value> {
        let page = http::get_async(self.metrics, "/status").await?;
        serde_json::from_str(&page).with_context(|| page)
    }

    /// One value of `/metrics`.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        crate::node::metric(self.metrics, name).await
    }

    #[must_use]
    pub fn rpc(&self) -> Rpc {
        Rpc::new(self.address)
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        resident_memory(self.process().pid().context("not running")?)
    }
}
