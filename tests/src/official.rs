//! Official clients from their package registries: installed once into the target directory,
//! unmodified and at a pinned version, and run as programs (`tests/clients/README.md`).

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jepsen::{Action, Event, Fate, History, Message};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{binaries, eventually};

/// Interpreters start slowly on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// A stack with an official client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Python,
    Node,
    Rust,
    Java,
    Go,
}

/// The stacks that `make test` runs.
pub const LANGUAGES: [Language; 3] = [Language::Python, Language::Node, Language::Rust];
/// The stacks that `make test-clients` runs: their toolchains are large.
pub const LARGE: [Language; 2] = [Language::Java, Language::Go];

impl Language {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Rust => "rust",
            Self::Java => "java",
            Self::Go => "go",
        }
    }

    /// The Rust crate and the Go module have no push consumer in these versions.
    #[must_use]
    pub fn has_push_consumer(self) -> bool {
        match self {
            Self::Python | Self::Node | Self::Java => true,
            Self::Rust | Self::Go => false,
        }
    }

    /// A command that runs the client; the mode and the options are still to be added.
    ///
    /// # Panics
    /// When the client cannot be installed, with what is missing.
    pub(crate) fn command(self) -> tokio::process::Command {
        let installed = self.installed();
        match self {
            Self::Python => {
                let mut command = tokio::process::Command::new(installed.join("bin/python"));
                command.arg(self.sources().join("client.py"));
                command
            }
            Self::Node => {
                let mut command = tokio::process::Command::new("node");
                command.arg(self.sources().join("client.js"));
                command.env("NODE_PATH", installed.join("node_modules"));
                command
            }
            Self::Rust => {
                tokio::process::Command::new(installed.join("debug/official-rust-client"))
            }
            Self::Java => {
                let mut command = tokio::process::Command::new("java");
                let (classes, jars) = (installed.join("classes"), installed.join("dependency/*"));
                command.arg("-cp").arg(format!("{}:{}", classes.display(), jars.display()));
                command.arg("Client");
                command
            }
            Self::Go => tokio::process::Command::new(installed.join("client")),
        }
    }

    fn sources(self) -> PathBuf {
        binaries::repository().join("tests/clients").join(self.name())
    }

    /// The directory into which the client was installed, by this call if need be.
    fn installed(self) -> &'static Path {
        static PYTHON: OnceLock<PathBuf> = OnceLock::new();
        static NODE: OnceLock<PathBuf> = OnceLock::new();
        static RUST: OnceLock<PathBuf> = OnceLock::new();
        static JAVA: OnceLock<PathBuf> = OnceLock::new();
        static GO: OnceLock<PathBuf> = OnceLock::new();
        let directory = binaries::target().join("clients").join(self.name());
        match self {
            Self::Python => PYTHON.get_or_init(|| install_python(&self.sources(), directory)),
            Self::Node => NODE.get_or_init(|| install_node(&self.sources(), directory)),
            Self::Rust => RUST.get_or_init(|| build_rust(&self.sources(), directory)),
            Self::Java => JAVA.get_or_init(|| build_java(&self.sources(), directory)),
            Self::Go => GO.get_or_init(|| build_go(&self.sources(), directory)),
        }
    }
}

/// Runs a step of an installation.
fn run(command: &mut Command, hint: &str) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}; {hint}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed; {hint}\n{text}");
}

/// Whether `directory` holds what `wanted` describes; and how to say that it does.
fn is_current(directory: &Path, wanted: &str) -> bool {
    fs::read_to_string(directory.join("installed")).is_ok_and(|text| text == wanted)
}

fn install_python(sources: &Path, directory: PathBuf) -> PathBuf {
    let requirements = sources.join("requirements.txt");
    let wanted = fs::read_to_string(&requirements).expect("requirements.txt");
    if !is_current(&directory, &wanted) {
        let hint = "install python3-venv and python3-pip (make test does on Debian)";
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory), hint);
        let mut pip = Command::new(directory.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements);
        run(&mut pip, "the Python package index must be reachable");
        fs::write(directory.join("installed"), wanted).expect("a note of what is installed");
    }
    directory
}

fn install_node(sources: &Path, directory: PathBuf) -> PathBuf {
    let wanted = fs::read_to_string(sources.join("package-lock.json")).expect("package-lock.json");
    if !is_current(&directory, &wanted) {
        fs::create_dir_all(&directory).expect("a directory for the Node client");
        for file in ["package.json", "package-lock.json"] {
            fs::copy(sources.join(file), directory.join(file)).expect("a copy of the package file");
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&directory);
        run(
            &mut npm,
            "install nodejs and npm (make test does on Debian); the npm registry must be reachable",
        );
        fs::write(directory.join("installed"), wanted).expect("a note of what is installed");
    }
    directory
}

fn build_rust(sources: &Path, directory: PathBuf) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--locked", "--quiet"]).current_dir(sources);
    build.env("CARGO_TARGET_DIR", &directory);
    run(&mut build, "the crate registry must be reachable");
    directory
}

fn build_java(sources: &Path, directory: PathBuf) -> PathBuf {
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B"]).arg(format!("-Dout={}", directory.display()));
    maven.args(["compile", "dependency:copy-dependencies"]).current_dir(sources);
    run(&mut maven, "a JDK of 17 or later and maven are needed; Maven Central must be reachable");
    directory
}

fn build_go(sources: &Path, directory: PathBuf) -> PathBuf {
    fs::create_dir_all(&directory).expect("a directory for the Go client");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(directory.join("client")).arg(".").current_dir(sources);
    build.env("CGO_ENABLED", "0");
    run(&mut build, "Go of 1.19 or later is needed; the Go module proxy must be reachable");
    directory
}

/// One line that a client reported.
#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    pub event: String,
    /// Since the client was ready.
    pub at_ms: u64,
    pub body: Option<String>,
    pub id: Option<String>,
    pub tag: Option<String>,
    pub attempt: Option<u32>,
    pub offset: Option<u64>,
    pub error: Option<String>,
}

/// A running client program. It is killed when dropped.
#[derive(Debug)]
pub struct Official {
    pub language: Language,
    what: String,
    child: tokio::process::Child,
    reader: Option<tokio::task::JoinHandle<()>>,
    lines: Arc<Mutex<Vec<Line>>>,
    errors: PathBuf,
}

impl fmt::Display for Official {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Official {
    /// Starts `mode` with `options`, as `[("topic", "orders"), ...]`. What the library logs goes
    /// below `directory`, which is its home. With `names` it finds that file as `/etc/hosts`.
    ///
    /// # Panics
    /// When the client is not installed and cannot be.
    pub fn start(
        language: Language,
        mode: &str,
        directory: &Path,
        options: &[(&str, &str)],
        environment: &[(&str, &str)],
        names: Option<&Path>,
    ) -> Self {
        let mut command = match names {
            Some(names) => with_hosts(names, &language.command()),
            None => language.command(),
        };
        command.arg(mode);
        for (name, value) in options {
            command.arg(format!("--{name}")).arg(value);
        }
        let home = directory.join(format!("home-{}", language.name()));
        fs::create_dir_all(&home).expect("a home for the client");
        let errors = home.join(format!("{mode}.stderr"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&errors);
        command.env("HOME", &home).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.expect("a log file"));
        let mut child = command.kill_on_drop(true).spawn().expect("the client starts");
        let output = child.stdout.take().expect("standard output is piped");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reports = home.join(format!("{mode}.stdout"));
        let reader = Some(tokio::spawn(read(output, Arc::clone(&lines), reports)));
        let what = format!("{} {mode}", language.name());
        Self { language, what, child, reader, lines, errors }
    }

    /// Everything reported so far.
    ///
    /// # Panics
    /// Never: nobody panics while holding the lines.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().expect("no holder panics").clone()
    }

    /// The lines of one kind.
    #[must_use]
    pub fn of(&self, event: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|l| l.event == event).collect()
    }

    /// SIGKILL, and waits until all that it reported is read.
    ///
    /// # Panics
    /// Never: a child can be killed and waited for.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
        if let Some(reader) = self.reader.take() {
            reader.await.expect("the reader ends with the pipe");
        }
    }

    /// Waits until the client has started.
    ///
    /// # Panics
    /// When it does not, with what it wrote.
    pub async fn ready(&mut self) {
        self.has("ready", 1, START).await;
    }

    /// Waits until it has reported `count` lines of a kind.
    ///
    /// # Panics
    /// When it does not within `budget`, or ends before.
    pub async fn has(&mut self, event: &str, count: usize, budget: Duration) {
        let what = format!("{}: {count} x {event}", self.what);
        let errors = self.errors.clone();
        eventually(&what, budget, async || {
            let have = self.of(event).len();
            if have >= count {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait()
                && self.of("done").is_empty()
            {
                let text = fs::read_to_string(&errors).unwrap_or_default();
                panic!("{what}: ended with {status}; {have} seen\n{}", tail(&text));
            }
            let problems: Vec<Line> =
                self.lines().into_iter().filter(|l| l.error.is_some()).collect();
            let last = problems.last().and_then(|l| l.error.clone());
            Err(format!("{have} seen, {} problems, the last: {last:?}", problems.len()))
        })
        .await;
    }

    /// Waits for the orderly end.
    ///
    /// # Panics
    /// When it does not come within `budget`.
    pub async fn done(&mut self, budget: Duration) {
        self.has("done", 1, budget).await;
    }

    /// The longest time without a successful send between the first and the last success, in ms.
    #[must_use]
    pub fn write_gap_ms(&self) -> u64 {
        let sent = self.of("sent");
        sent.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).max().unwrap_or(u64::MAX)
    }

    /// Enters what this client did into `history`; bodies are `<prefix>-<number>`, and `senders`
    /// says which sender a prefix is.
    pub fn enter(&self, history: &mut History, group: &str, senders: &[&str]) {
        Self::enter_lines(&self.lines(), history, group, senders);
    }

    /// Enters the send that may have been under way when a producer was killed: it reported nothing
    /// about it.
    ///
    /// # Panics
    /// When its bodies are not numbered.
    pub fn enter_unfinished(&self, history: &mut History, senders: &[&str]) {
        let reported = self.of("sent").len() + self.of("failed").len();
        let sender = senders.iter().position(|s| *s == self.language.name());
        let sender = u32::try_from(sender.expect("a known sender")).expect("few senders");
        let count = u32::try_from(reported).expect("a test's messages fit");
        let message = Message::new(sender, count);
        let action = Action::Send { message, fate: Fate::Unknown, offset: None };
        history.record(Event { began: 0, ended: 0, action });
    }

    fn enter_lines(lines: &[Line], history: &mut History, group: &str, senders: &[&str]) {
        let message = |line: &Line| {
            let body = line.body.as_deref()?;
            let (prefix, count) = body.rsplit_once('-')?;
            let sender = u32::try_from(senders.iter().position(|s| *s == prefix)?).ok()?;
            Some(Message::new(sender, count.parse().ok()?))
        };
        for line in lines {
            let action = match (line.event.as_str(), message(line)) {
                ("sent", Some(message)) => {
                    Action::Send { message, fate: Fate::Done, offset: line.offset }
                }
                ("failed", Some(message)) => {
                    Action::Send { message, fate: Fate::Unknown, offset: None }
                }
                ("received", Some(message)) => Action::Receive {
                    group: group.to_owned(),
                    message,
                    place: None,
                    attempt: line.attempt.unwrap_or(0),
                },
                ("received", None) => Action::Garbage {
                    group: group.to_owned(),
                    what: line.body.clone().unwrap_or_default(),
                },
                _ => continue,
            };
            history.record(Event { began: 0, ended: 0, action });
        }
    }
}

/// The same command in a mount name space of its own, in which `names` is `/etc/hosts`. Neither the
/// machine's file nor anybody's rights are needed for that.
fn with_hosts(names: &Path, command: &tokio::process::Command) -> tokio::process::Command {
    let inner = command.as_std();
    let mut outer = tokio::process::Command::new("unshare");
    outer.args(["--map-root-user", "--mount", "sh", "-c"]);
    outer.arg(r#"mount --bind "$0" /etc/hosts && exec "$@""#);
    outer.arg(names).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
    outer
}

/// Collects what a client reports, and keeps all that it prints in `file` for the reader of a
/// failure.
async fn read(output: tokio::process::ChildStdout, lines: Arc<Mutex<Vec<Line>>>, file: PathBuf) {
    let copy = fs::OpenOptions::new().create(true).append(true).open(file);
    let mut copy = copy.expect("a file for what the client prints");
    let mut reader = BufReader::new(output).lines();
    while let Ok(Some(text)) = reader.next_line().await {
        let _ = writeln!(copy, "{text}");
        // Libraries print to standard output too; what is no report of ours is theirs.
        if let Ok(line) = serde_json::from_str(&text) {
            lines.lock().expect("no holder panics").push(line);
        }
    }
}

pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
