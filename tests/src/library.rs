//! An official client library, used call by call: the mode `serve` of the programs in
//! `tests/clients`, which holds any number of the library's clients.
//!
//! A call of the library is a line on the program's standard input, and what came of it is a line
//! that it reports. Calls overlap freely.

mod words;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::v2::Code;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::eventually;
use crate::official::{Language, tail};

pub use self::words::{
    Ending, Incoming, Keys, Options, Outgoing, Part, Receipt, Refusal, Subscription, Verdict,
};

/// How long one call of a library may take: longer than any long poll.
const CALL: Duration = Duration::from_secs(40);
/// Interpreters start slowly on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// What came of a call.
#[derive(Debug, Deserialize)]
struct Answer {
    n: u64,
    error: Option<String>,
    /// A number or a name.
    code: Option<Value>,
    #[serde(default)]
    impossible: bool,
    #[serde(flatten)]
    rest: Value,
}

impl Answer {
    fn result(self) -> Result<Value, Refusal> {
        let Some(text) = self.error else { return Ok(self.rest) };
        if self.impossible {
            return Err(Refusal::Impossible);
        }
        let code = match &self.code {
            Some(Value::Number(code)) => code
                .as_i64()
                .and_then(|code| i32::try_from(code).ok())
                .and_then(|code| Code::try_from(code).ok()),
            Some(Value::String(name)) => Code::from_str_name(name),
            _ => None,
        };
        Err(match code {
            Some(code) => Refusal::Server { code, text },
            None => Refusal::Library { text },
        })
    }
}

/// What a library told its application without being called.
#[derive(Debug, Clone, Deserialize)]
struct Event {
    event: String,
    client: String,
    message: Incoming,
}

#[derive(Debug, Default)]
struct Heard {
    ready: bool,
    ended: bool,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    events: Vec<Event>,
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Library {
    pub language: Language,
    input: AsyncMutex<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    count: AtomicU64,
    errors: PathBuf,
    _child: Child,
}

impl Library {
    /// Starts the program; its clients dial `access_point`, and what the library logs goes below
    /// `directory`.
    ///
    /// # Panics
    /// When the client is not installed and cannot be, or does not start.
    pub async fn open(language: Language, access_point: &str, directory: &Path) -> Self {
        let home = directory.join(format!("library-{}", language.name()));
        fs::create_dir_all(&home).expect("a home for the client");
        let errors = home.join("stderr");
        let mut command = language.command();
        command.args(["serve", "--endpoints", access_point]).env("HOME", &home);
        let file = fs::File::create(&errors).expect("a log file");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.kill_on_drop(true).spawn().expect("the client starts");
        let input = AsyncMutex::new(child.stdin.take().expect("standard input is piped"));
        let output = child.stdout.take().expect("standard output is piped");
        let heard = Arc::new(Mutex::new(Heard::default()));
        tokio::spawn(listen(output, Arc::clone(&heard), home.join("stdout")));
        let count = AtomicU64::new(0);
        let library = Self { language, input, heard, count, errors, _child: child };
        eventually(&format!("{} is ready", language.name()), START, async || {
            let heard = library.heard.lock().expect("no holder panics");
            assert!(!heard.ended, "it ended:\n{}", library.complaints());
            if heard.ready { Ok(()) } else { Err("it says nothing".to_owned()) }
        })
        .await;
        library
    }

    /// The end of what the library wrote to standard error.
    #[must_use]
    pub fn complaints(&self) -> String {
        tail(&fs::read_to_string(&self.errors).unwrap_or_default())
    }

    async fn call(&self, what: &str, mut arguments: Value) -> Result<Value, Refusal> {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        arguments["n"] = json!(n);
        arguments["do"] = json!(what);
        let (sender, answer) = oneshot::channel();
        self.heard.lock().expect("no holder panics").waiting.insert(n, sender);
        let line = format!("{arguments}\n");
        self.input.lock().await.write_all(line.as_bytes()).await.expect("it reads its input");
        match tokio::time::timeout(CALL, answer).await {
            Err(_) => Err(Refusal::Hangs),
            Ok(Ok(answer)) => answer.result(),
            Ok(Err(_)) => {
                panic!("{}: ended during {what}:\n{}", self.language.name(), self.complaints())
            }
        }
    }

    fn name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn events(&self, event: &str, client: &str) -> Vec<Incoming> {
        let heard = self.heard.lock().expect("no holder panics");
        let of = heard.events.iter().filter(|e| e.event == event && e.client == client);
        of.map(|e| e.message.clone()).collect()
    }

    /// Starts a producer; with a `verdict` it is asked about its transactions.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn producer(
        &self,
        topics: &[&str],
        verdict: Option<Verdict>,
    ) -> Result<Producer<'_>, Refusal> {
        self.producer_with(topics, Options { verdict, ..Options::default() }).await
    }

    /// Starts a producer that is set up otherwise.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn producer_with(
        &self,
        topics: &[&str],
        options: Options,
    ) -> Result<Producer<'_>, Refusal> {
        let name = self.name("producer");
        let mut arguments = serde_json::to_value(options).expect("it is plain");
        arguments["client"] = json!(name);
        arguments["topics"] = json!(topics);
        self.call("producer", arguments).await?;
        Ok(Producer { library: self, name })
    }

    /// Starts a simple consumer.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn simple(&self, subscription: &Subscription) -> Result<Simple<'_>, Refusal> {
        let name = self.consumer("simple", subscription).await?;
        Ok(Simple { library: self, name })
    }

    /// Starts a push consumer.
    ///
    /// # Errors
    /// When it does not start, or the library has none.
    pub async fn push(&self, subscription: &Subscription) -> Result<Push<'_>, Refusal> {
        let name = self.consumer("push", subscription).await?;
        Ok(Push { library: self, name })
    }

    async fn consumer(&self, kind: &str, wanted: &Subscription) -> Result<String, Refusal> {
        let name = self.name(kind);
        let mut arguments = serde_json::to_value(wanted).expect("it is plain");
        arguments["client"] = json!(name);
        self.call(kind, arguments).await?;
        Ok(name)
    }
}

/// A producer of the library.
#[derive(Debug)]
pub struct Producer<'a> {
    library: &'a Library,
    name: String,
}

impl Producer<'_> {
    /// # Errors
    /// When the library or the server refuses.
    pub async fn send(&self, message: &Outgoing) -> Result<Receipt, Refusal> {
        let mut arguments = serde_json::to_value(message).expect("it is plain");
        arguments["client"] = json!(self.name);
        let sent = self.library.call("send", arguments).await?;
        Ok(serde_json::from_value(sent).expect("a receipt"))
    }

    /// Takes a delayed message back, and returns its id.
    ///
    /// # Errors
    /// When the library or the server refuses.
    pub async fn recall(&self, topic: &str, handle: &str) -> Result<String, Refusal> {
        let arguments = json!({"client": self.name, "topic": topic, "recall_handle": handle});
        let recalled = self.library.call("recall", arguments).await?;
        Ok(recalled["id"].as_str().unwrap_or_default().to_owned())
    }

    /// The transactions that the server asked about, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<Incoming> {
        self.library.events("asked", &self.name)
    }

    /// # Errors
    /// When the library complains.
    pub async fn close(self) -> Result<(), Refusal> {
        self.library.call("close", json!({"client": self.name})).await.map(drop)
    }
}

/// A simple consumer of the library.
#[derive(Debug)]
pub struct Simple<'a> {
    library: &'a Library,
    name: String,
}

impl Simple<'_> {
    /// Nothing, too, when the library gave the poll up at its very end: see [`too_late`].
    ///
    /// # Errors
    /// When the library or the server refuses.
    pub async fn receive(&self, max: u32, invisible: Duration) -> Result<Vec<Incoming>, Refusal> {
        self.receive_as(max, invisible, false).await
    }

    /// The same by the library's call that does not wait.
    ///
    /// # Errors
    /// When the library or the server refuses.
    pub async fn receive_asynchronously(
        &self,
        max: u32,
        invisible: Duration,
    ) -> Result<Vec<Incoming>, Refusal> {
        self.receive_as(max, invisible, true).await
    }

    async fn receive_as(
        &self,
        max: u32,
        invisible: Duration,
        asynchronous: bool,
    ) -> Result<Vec<Incoming>, Refusal> {
        let milliseconds = u64::try_from(invisible.as_millis()).expect("some hours");
        let mut arguments = json!({"client": self.name, "max": max, "invisible_ms": milliseconds});
        arguments["asynchronous"] = json!(asynchronous);
        let mut received = match self.library.call("receive", arguments).await {
            Err(refusal) if self.library.language == Language::Rust && too_late(&refusal) => {
                return Ok(Vec::new());
            }
            received => received?,
        };
        Ok(serde_json::from_value(received["messages"].take()).expect("messages"))
    }

    /// # Errors
    /// When the library or the server refuses.
    pub async fn ack(&self, message: &Incoming) -> Result<(), Refusal> {
        let arguments = json!({"client": self.name, "token": message.token});
        self.library.call("ack", arguments).await.map(drop)
    }

    /// # Errors
    /// When the library or the server refuses.
    pub async fn change(&self, message: &Incoming, invisible: Duration) -> Result<(), Refusal> {
        let milliseconds = u64::try_from(invisible.as_millis()).expect("some hours");
        let token = message.token;
        let arguments = json!({"client": self.name, "token": token, "invisible_ms": milliseconds});
        self.library.call("change", arguments).await.map(drop)
    }

    /// # Errors
    /// When the library complains.
    pub async fn close(self) -> Result<(), Refusal> {
        self.library.call("close", json!({"client": self.name})).await.map(drop)
    }
}

/// A push consumer of the library.
#[derive(Debug)]
pub struct Push<'a> {
    library: &'a Library,
    name: String,
}

impl Push<'_> {
    /// What its listener got so far, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Incoming> {
        self.library.events("received", &self.name)
    }

    /// # Errors
    /// When the library complains.
    pub async fn close(self) -> Result<(), Refusal> {
        self.library.call("close", json!({"client": self.name})).await.map(drop)
    }
}

/// The Rust library ends its call when the poll is to end, so that on a busy machine the answer that
/// there is nothing comes too late.
fn too_late(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Server { code, .. } => *code == Code::ProxyTimeout,
        Refusal::Library { text } => text.contains("Timeout expired"),
        Refusal::Impossible | Refusal::Hangs => false,
    }
}

/// Takes in what the program reports, and keeps all that it prints in `file` for the reader of a
/// failure.
async fn listen(output: ChildStdout, heard: Arc<Mutex<Heard>>, file: PathBuf) {
    use std::io::Write;
    let mut copy = fs::File::create(file).expect("a file for what the client prints");
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = writeln!(copy, "{line}");
        // Libraries print to standard output too; what is no report of ours is theirs.
        let Ok(report) = serde_json::from_str::<Value>(&line) else { continue };
        let mut heard = heard.lock().expect("no holder panics");
        match report["event"].as_str() {
            Some("ready") => heard.ready = true,
            Some("answer") => {
                let answer: Answer = serde_json::from_value(report).expect("an answer");
                if let Some(sender) = heard.waiting.remove(&answer.n) {
                    // Whoever does not wait any more has said that the library hangs.
                    let _ = sender.send(answer);
                }
            }
            Some("received" | "asked") => {
                heard.events.push(serde_json::from_value(report).expect("an event"));
            }
            _ => {}
        }
    }
    let mut heard = heard.lock().expect("no holder panics");
    heard.ended = true;
    heard.waiting.clear();
}
