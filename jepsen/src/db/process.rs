//! One program under test: started, killed, paused, stopped, and its log read.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Lines of the log that a failure shows.
const TAIL: usize = 30;

/// A program with its arguments, and the running process if there is one. The log is appended to
/// over restarts.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Put behind the arguments.
    extra: Vec<OsString>,
    log: PathBuf,
    /// Put before the program, such as to run it somewhere else.
    prefix: Vec<String>,
    child: Option<Child>,
    paused: bool,
}

impl Process {
    /// Describes a program; nothing runs yet.
    #[must_use]
    pub fn new(name: String, program: PathBuf, arguments: Vec<OsString>, log: PathBuf) -> Self {
        let (extra, prefix) = (Vec::new(), Vec::new());
        Self { name, program, arguments, extra, log, prefix, child: None, paused: false }
    }

    /// Runs the program by another one from the next start on, which must replace itself by it: a
    /// signal is for the program.
    pub fn set_prefix(&mut self, prefix: Vec<String>) {
        self.prefix = prefix;
    }

    /// Replaces the arguments of the next start.
    pub fn set_arguments(&mut self, arguments: Vec<OsString>) {
        self.arguments = arguments;
    }

    /// Replaces what is put behind the arguments from the next start on.
    pub fn set_extra(&mut self, extra: Vec<OsString>) {
        self.extra = extra;
    }

    /// Replaces the program from the next start on.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// # Panics
    /// When it runs already, or cannot be started.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let errors = log.try_clone().expect("a second handle to the log");
        let mut command = match self.prefix.split_first() {
            None => Command::new(&self.program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
        };
        // Settings come from the test alone, not from the shell that runs it.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RAFTMQ_") || name == "NAMESRV_ADDR" {
                command.env_remove(name);
            }
        }
        let child = command
            .args(&self.arguments)
            .args(&self.extra)
            // Traces of panics; an error that is reported needs none.
            .env("RUST_BACKTRACE", "1")
            .env("RUST_LIB_BACKTRACE", "0")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", self.program.display()));
        self.child = Some(child);
        self.paused = false;
    }

    /// Whether there is a process, paused or not.
    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The process id, while there is a process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).unwrap_or_else(|e| panic!("signal {}: {e}", self.name));
    }

    /// SIGKILL, and waits for the end. Does nothing when nothing runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.paused = false;
    }

    /// SIGSTOP: it lives and holds its sockets, but does nothing.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.paused = true;
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.paused = false;
    }

    /// SIGTERM. The process ends on its own; see [`Process::exit`].
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// How the process ended, if it ended on its own by now.
    pub fn exit_now(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("no process")?;
        let ended = child.try_wait()?;
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended)
    }

    /// Waits until the process ended on its own.
    pub async fn exit(&mut self, budget: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.exit_now()? {
                return Ok(status);
            }
            if start.elapsed() > budget {
                bail!("{} did not end within {budget:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything that it has written so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The last lines of the log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Lines of the log that tell of a panic.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        self.log().lines().filter(|l| l.contains("panicked at")).map(str::to_owned).collect()
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program that is expected to end by itself, and returns how it ended and what it wrote.
///
/// # Panics
/// When it does not start, or runs for longer than `budget`.
pub async fn run_to_end(
    program: &Path,
    arguments: &[&str],
    directory: &Path,
    budget: Duration,
) -> (ExitStatus, String) {
    let name = format!("{} {}", program.display(), arguments.join(" "));
    let arguments = arguments.iter().map(OsString::from).collect();
    let log = tempfile::NamedTempFile::new_in(directory).expect("a file for its output");
    let mut process = Process::new(name, program.to_owned(), arguments, log.path().to_owned());
    process.start();
    let status = process.exit(budget).await.unwrap_or_else(|e| panic!("{e:#}\n{}", process.log()));
    (status, process.log())
}

/// Resident memory of a process in bytes.
pub fn resident_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("process status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}
