//! What applying commands costs: `cargo run -p broker --example apply [MESSAGES]`.
//!
//! Prints, per message, the time on the thread that applies, the processor time of the whole
//! process (flushes and compactions included) and the bytes written to the disk; then how long
//! opening the state takes. Bodies do not matter: applying never looks at them.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "prints its results")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use broker::command::{
    Ack, Append, Command, Handle, NewMessage, Outcome, Pick, Pop, PutTopic, TopicConfig,
};
use broker::kv::{Durable, Kv, Rocks, RocksConfig};
use broker::state::State;
use bytes::{Bytes, BytesMut};
use commitlog::position::{LogId, LogOffset};
use proto::{QueueId, QueueOffset, Topic, v2};
use raft::{Entry, Payload};

/// Bytes of a segment, as brokers have by default.
const SEGMENT: u64 = 256 << 20;

fn main() {
    let messages: u64 = std::env::args().nth(1).map_or(500_000, |n| n.parse().unwrap());
    println!("{messages} messages with key and dedupe id, RocksDB, {}", profile());
    idle();
    run("8 queues, 1 per command, 64 per apply", messages, 8, 1, 64);
    run("8 queues, 32 per command, 8 per apply", messages, 8, 32, 8);
    run("8 queues, 1 per command, 1 per apply", messages / 5, 8, 1, 1);
    run("10,000 queues, 1 per command, 64 per apply", messages, 10_000, 1, 64);
    run("100,000 queues, 1 per command, 64 per apply", messages, 100_000, 1, 64);
}

/// Memory and time of an empty state, and of one with many queues.
fn idle() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let (before, started) = (memory("VmRSS:"), Instant::now());
    let kv = Arc::new(Rocks::open(&RocksConfig::new(dir.path())).unwrap());
    let mut log = Log::new(State::open(kv, SEGMENT).unwrap());
    let opened = started.elapsed();
    println!("empty: opened in {opened:.1?}, {} KiB", memory("VmRSS:") - before);
    let started = Instant::now();
    log.apply(vec![put_topic(100_000)]);
    let appends: Vec<_> = (0..100_000).map(|queue| append(queue, queue, 1)).collect();
    log.apply_all(&appends, 64);
    drop(appends);
    println!(
        "100,000 queues with a message each: {:.1?}, {} KiB",
        started.elapsed(),
        memory("VmRSS:") - before
    );
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "with assertions" } else { "without assertions" }
}

/// Appends, pops and acknowledges `messages`, `per_command` at a time.
fn run(title: &str, messages: u64, queues: u32, per_command: u64, commands: usize) {
    println!("\n{title}");
    let dir = tempfile::tempdir_in(".").unwrap();
    let kv = Arc::new(Rocks::open(&RocksConfig::new(dir.path())).unwrap());
    let mut log = Log::new(State::open(Arc::clone(&kv) as Arc<dyn Kv>, SEGMENT).unwrap());
    log.apply(vec![put_topic(queues)]);

    let mut next = vec![0; queues as usize];
    let appends = (0..messages / per_command).map(|n| (n % u64::from(queues), n * per_command));
    let appends: Vec<_> = appends.map(|(queue, n)| append(queue, n, per_command)).collect();
    measure("append", messages, &kv, || log.apply_all(&appends, commands));

    let pops = (0..messages / per_command).map(|n| {
        let queue = usize::try_from(n % u64::from(queues)).unwrap();
        let from = next[queue];
        next[queue] += per_command;
        pop(u32::try_from(queue).unwrap(), from, from + per_command)
    });
    let pops: Vec<_> = pops.collect();
    let mut handles = vec![];
    measure("pop", messages, &kv, || handles = log.apply_all(&pops, commands));

    let acks: Vec<_> = handles.iter().filter_map(ack).collect();
    measure("ack", messages, &kv, || log.apply_all(&acks, commands));

    let started = Instant::now();
    println!("  digest {} in {:.1?}", log.state.digest(), started.elapsed());
    drop((log, kv));
    let started = Instant::now();
    let kv = Rocks::open(&RocksConfig::new(dir.path())).unwrap();
    let state = State::open(Arc::new(kv), SEGMENT).unwrap();
    println!(
        "  opened in {:.1?}; {:.1} bytes of files a message; resident {} MiB",
        started.elapsed(),
        ratio(size_of(dir.path()), messages),
        memory("VmRSS:") / 1024,
    );
    drop(state);
}

/// A log that counts positions as a real one would.
struct Log {
    state: State,
    index: u64,
    position: u64,
}

impl Log {
    fn new(state: State) -> Self {
        Self { state, index: 0, position: 0 }
    }

    fn apply(&mut self, commands: Vec<Bytes>) -> Vec<Outcome> {
        let mut batch = Vec::with_capacity(commands.len());
        for bytes in commands {
            self.position += 1024;
            batch.push(raft::Command { position: LogOffset(self.position), bytes });
        }
        let log_id = LogId::new(1, self.index);
        let entry =
            Entry { log_id, stamp: 1_700_000_000_000 + self.index, payload: Payload::Batch(batch) };
        self.index += 1;
        self.state.apply(vec![entry]).unwrap().outcomes.remove(0)
    }

    fn apply_all(&mut self, commands: &[Bytes], at_once: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for chunk in commands.chunks(at_once) {
            outcomes.extend(self.apply(chunk.to_vec()));
        }
        outcomes
    }
}

fn measure<R>(what: &str, messages: u64, kv: &Rocks, work: impl FnOnce() -> R) -> R {
    let (cpu, written, started) = (cpu_micros(), written_bytes(), Instant::now());
    let result = work();
    let elapsed = started.elapsed();
    kv.flush(Durable::Now).unwrap();
    println!(
        "  {what:6} {:5.2} us a message on the applying thread, {:5.2} us of processor in all, {:5.1} bytes written",
        elapsed.as_secs_f64() * 1e6 / ratio(messages, 1),
        ratio(cpu_micros() - cpu, messages),
        ratio(written_bytes() - written, messages),
    );
    result
}

fn topic() -> Topic {
    "orders".parse().unwrap()
}

fn encode(command: &Command) -> Bytes {
    let mut bytes = BytesMut::new();
    command.encode().iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.freeze()
}

fn put_topic(queues: u32) -> Bytes {
    let config = TopicConfig {
        queues,
        permission: v2::Permission::ReadWrite,
        accepts: vec![v2::MessageType::Normal],
        placement: vec![("broker-a".parse().unwrap(), queues)],
        version: 1,
    };
    encode(&Command::PutTopic(PutTopic { topic: topic(), config, create_only: false }))
}

/// Spreads numbers as a hash would.
fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn append(queue: u64, first: u64, count: u64) -> Bytes {
    let messages = (first..first + count).map(|n| NewMessage {
        tag_hash: 0,
        key_hashes: vec![scatter(n)],
        dedupe: Some((u128::from(scatter(n ^ 0xaaaa)) << 64) | u128::from(scatter(n))),
        bytes: Bytes::from_static(&[0; 64]),
    });
    let queue = QueueId(u32::try_from(queue).unwrap());
    encode(&Command::Append(Append { topic: topic(), queue, messages: messages.collect() }))
}

fn pop(queue: u32, from: u64, to: u64) -> Bytes {
    encode(&Command::Pop(Pop {
        group: "audit".parse().unwrap(),
        topic: topic(),
        client: "host-17@4711@0@k3jd82hs".parse().unwrap(),
        auto_renew: true,
        invisible_ms: 60_000_000,
        picks: vec![Pick {
            queue: QueueId(queue),
            from: QueueOffset(from),
            to: QueueOffset(to),
            fresh: (from..to).map(QueueOffset).collect(),
            again: vec![],
        }],
    }))
}

fn ack(popped: &Outcome) -> Option<Bytes> {
    let Outcome::Popped { granted } = popped else { panic!("{popped:?}") };
    let handles =
        granted.iter().map(|g| Handle { queue: g.queue, offset: g.offset, delivery: g.delivery });
    let handles: Vec<_> = handles.collect();
    let (group, topic) = ("audit".parse().unwrap(), topic());
    (!handles.is_empty()).then(|| encode(&Command::Ack(Ack { group, topic, handles })))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

fn size_of(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// A figure of this process in a file of lines `name value`.
fn figure(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn memory(name: &str) -> u64 {
    figure("/proc/self/status", name)
}

fn written_bytes() -> u64 {
    figure("/proc/self/io", "wchar:")
}

fn cpu_micros() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_whitespace();
    ticks.skip(11).take(2).map(|t| t.parse::<u64>().unwrap()).sum::<u64>() * 10_000
}
