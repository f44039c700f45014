//! One process of the cluster with its machine: a broker or a NameServer.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::disk::Disk;
use super::http;
use super::process::Process;
use super::status::Status;

/// The ports of a machine of one's own.
const METRICS: u16 = 5557;

/// A process that comes and goes; its address and its disk stay.
#[derive(Debug)]
pub struct Member {
    /// As the history names it: `n1`, `ns1`.
    pub name: String,
    pub address: Ipv4Addr,
    /// Where clients connect.
    pub client: SocketAddr,
    pub disk: Option<Disk>,
    log: PathBuf,
    /// Its id in the broker group; 0 for a NameServer. Another one once it lost its disk.
    id: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    process: Process,
    /// Whether it is meant to run.
    wanted: bool,
    started: Instant,
    /// An end by itself is what its documentation says of what was done to it.
    may_end: bool,
    /// How it ended although it was meant to run, and how long it had run, until somebody asks.
    ended: Option<(String, Duration)>,
}

impl Member {
    pub(super) fn new(
        (name, id): (String, u64),
        client: SocketAddr,
        disk: Option<Disk>,
        program: &Path,
        arguments: Vec<OsString>,
        log: PathBuf,
    ) -> Self {
        let std::net::IpAddr::V4(address) = client.ip() else { unreachable!("of our network") };
        let process = Process::new(name.clone(), program.to_owned(), arguments, log.clone());
        let state = Mutex::new(State {
            process,
            wanted: false,
            started: Instant::now(),
            may_end: false,
            ended: None,
        });
        Self { name, address, client, disk, log, id: AtomicU64::new(id), state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Its id in the broker group.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::SeqCst)
    }

    /// Who it is from the next start on.
    pub fn become_another(&self, id: u64, arguments: Vec<OsString>) {
        self.id.store(id, Ordering::SeqCst);
        self.state().process.set_arguments(arguments);
    }

    /// Arguments that are added to its own from the next start on, instead of those of before.
    pub fn set_extra(&self, extra: Vec<OsString>) {
        self.state().process.set_extra(extra);
    }

    /// Another program, from the next start on.
    pub fn set_program(&self, program: PathBuf) {
        self.state().process.set_program(program);
    }

    /// Whether an end by itself is now what is to be expected of it.
    pub fn let_end(&self, may: bool) {
        self.state().may_end = may;
    }

    /// Whether it may end by itself.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.state().may_end
    }

    /// It is not to run any more, and ends by itself; until it is started.
    pub fn retire(&self) {
        self.state().wanted = false;
    }

    /// Where it answers HTTP.
    #[must_use]
    pub fn metrics(&self) -> SocketAddr {
        (self.address, METRICS).into()
    }

    /// What is put before the program from the next start on.
    pub fn set_prefix(&self, prefix: Vec<String>) {
        self.state().process.set_prefix(prefix);
    }

    /// Starts it, unless it runs.
    pub fn start(&self) {
        let mut state = self.state();
        state.wanted = true;
        if !state.process.is_running() {
            state.process.start();
            state.started = Instant::now();
        }
    }

    /// SIGKILL, by its process id, and waits for the end.
    pub fn kill(&self) {
        let mut state = self.state();
        state.notice();
        state.wanted = false;
        state.process.kill();
    }

    /// SIGSTOP; it lives and holds its sockets, and does nothing.
    pub fn pause(&self) -> Result<()> {
        let mut state = self.state();
        ensure!(state.process.is_running(), "{} does not run", self.name);
        state.process.pause();
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&self) {
        let mut state = self.state();
        if state.process.is_running() {
            state.process.resume();
        }
    }

    /// SIGTERM; [`Member::is_running`] tells when it has ended.
    pub fn terminate(&self) {
        let mut state = self.state();
        state.notice();
        state.wanted = false;
        if state.process.is_running() {
            state.process.terminate();
        }
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state().process.is_running()
    }

    /// Runs, is meant to, and is not paused.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let mut state = self.state();
        state.wanted && state.process.is_running() && !state.process.is_paused()
    }

    /// How it ended by itself since the last time that somebody asked, and how long it had run.
    #[must_use]
    pub fn ended(&self) -> Option<(String, Duration)> {
        let mut state = self.state();
        state.notice();
        state.ended.take()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.state().process.pid()
    }

    /// What a broker says of itself. Blocks for a second at most.
    pub fn status(&self) -> Result<Status> {
        ensure!(self.is_active(), "{} is not active", self.name);
        Status::of(self.metrics())
    }

    /// Whether it says that it serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_active() && http::get(self.metrics(), "/ready").is_ok()
    }

    /// The sum of a metric over its labels; `None` where it has none of that name.
    pub fn metric(&self, name: &str) -> Result<Option<f64>> {
        let page = http::get(self.metrics(), "/metrics")?;
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let values = page.lines().filter(of_name);
        let values: Vec<f64> = values.filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
        Ok((!values.is_empty()).then(|| values.iter().sum()))
    }

    /// Lines of its log that tell of a panic.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        self.state().process.panics()
    }

    /// How many lines of its log hold this, over all its starts.
    #[must_use]
    pub fn says(&self, what: &str) -> u64 {
        let log = self.state().process.log();
        log.lines().filter(|line| line.contains(what)).count() as u64
    }

    /// The files of a broker's log.
    #[must_use]
    pub fn segments(&self) -> u64 {
        let Ok(disk) = self.disk() else { return 0 };
        let Ok(files) = std::fs::read_dir(disk.data().join("raft/log")) else { return 0 };
        let is = |name: OsString| name.to_string_lossy().ends_with(".seg");
        files.flatten().filter(|file| is(file.file_name())).count() as u64
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its disk; only brokers have one.
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().with_context(|| format!("{} has no disk", self.name))
    }
}

impl State {
    /// Takes note of an end that nobody asked for.
    fn notice(&mut self) {
        if self.wanted
            && let Ok(Some(status)) = self.process.exit_now()
        {
            self.ended = Some((status.to_string(), self.started.elapsed()));
            self.wanted = false;
        }
    }
}
