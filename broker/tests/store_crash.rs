//! What a killed broker leaves on the disk: the state as of some entry, and quickly back.
//!
//! A kill leaves the files as they are at that moment, so a copy of them is what the next start
//! finds. The store writes to them from threads of its own while the copy is made, as it would in
//! the moment of a kill: files that appear later are as good as never written.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::command::{
    Append, Command, Handle, NewMessage, Outcome, Pick, Pop, PutTopic, TopicConfig,
};
use broker::kv::{Kv, Rocks, RocksConfig};
use broker::state::State;
use bytes::{Bytes, BytesMut};
use commitlog::position::{LogId, LogOffset};
use proto::{QueueId, QueueOffset, Topic, v2};
use raft::{Entry, Payload};

const SEGMENT: u64 = 1_000_000;

fn topic() -> Topic {
    "orders".parse().unwrap()
}

fn entry(index: u64, commands: &[Command]) -> Entry {
    let commands = commands.iter().zip(0_u64..).map(|(command, n)| {
        let mut bytes = BytesMut::new();
        command.encode().iter().for_each(|part| bytes.extend_from_slice(part));
        raft::Command { position: LogOffset(index * 1_000_000 + n * 10_000), bytes: bytes.freeze() }
    });
    let payload = Payload::Batch(commands.collect());
    Entry { log_id: LogId::new(1, index), stamp: 1000 + index, payload }
}

fn put_topic() -> Command {
    let config = TopicConfig {
        queues: 4,
        permission: v2::Permission::ReadWrite,
        accepts: vec![v2::MessageType::Normal],
        placement: vec![("broker-a".parse().unwrap(), 4)],
        version: 1,
    };
    Command::PutTopic(PutTopic { topic: topic(), config, create_only: false })
}

/// 64 messages for a queue, each with a key and a dedupe id.
fn append(index: u64) -> Command {
    let message = |n: u64| NewMessage {
        tag_hash: n % 3,
        key_hashes: vec![n.wrapping_mul(0x9e37_79b9_7f4a_7c15)],
        dedupe: Some(u128::from(n) << 40),
        bytes: Bytes::from_static(b"hello"),
    };
    let messages = (index * 64..index * 64 + 64).map(message).collect();
    Command::Append(Append { topic: topic(), queue: queue(index), messages })
}

/// Pops what `append` of the same index brought.
fn pop(index: u64) -> Command {
    let first = (index - 1) / 4 * 64;
    let offsets = first..first + 64;
    Command::Pop(Pop {
        group: "audit".parse().unwrap(),
        topic: topic(),
        client: "worker".parse().unwrap(),
        auto_renew: true,
        invisible_ms: 60_000,
        picks: vec![Pick {
            queue: queue(index),
            from: QueueOffset(offsets.start),
            to: QueueOffset(offsets.end),
            fresh: offsets.map(QueueOffset).collect(),
            again: vec![],
        }],
    })
}

fn queue(index: u64) -> QueueId {
    QueueId(u32::try_from((index - 1) % 4).unwrap())
}

/// Appends and pops, enough for several flushes.
fn log(entries: u64) -> Vec<Entry> {
    let mut log = vec![entry(0, &[put_topic()])];
    log.extend((1..entries).map(|index| entry(index, &[append(index), pop(index)])));
    log
}

/// Copies the files that are there, in the state they are in.
fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let name = file.file_name();
        // The newest manifest decides; files that it does not name are ignored. It is copied
        // last, so that what it names has been copied: RocksDB syncs a file before it names it.
        if name != "LOCK" && !is_manifest(&name) {
            // A file that a compaction removes in this moment is not named any more either.
            fs::copy(file.path(), to.join(name)).ok();
        }
    }
    let manifests = fs::read_dir(from).unwrap().map(|file| file.unwrap());
    for manifest in manifests.filter(|file| is_manifest(&file.file_name())) {
        fs::copy(manifest.path(), to.join(manifest.file_name())).unwrap();
    }
}

fn is_manifest(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with("MANIFEST")
}

fn open(path: &Path) -> State {
    let kv = Rocks::open(&RocksConfig::new(path)).unwrap();
    State::open(Arc::new(kv) as Arc<dyn Kv>, SEGMENT).unwrap()
}

#[test]
fn a_killed_broker_comes_back_quickly_and_as_it_was() {
    let log = log(3000);
    let dir = tempfile::tempdir().unwrap();
    let (live, killed) = (dir.path().join("live"), dir.path().join("killed"));
    fs::create_dir(&killed).unwrap();
    let mut state = open(&live);
    let mut answers = vec![];
    for entries in log.chunks(4) {
        answers.extend(state.apply(entries.to_vec()).unwrap().outcomes);
    }
    // Copying a manifest while it grows would tear it: wait until the flushes are through.
    let deadline = Instant::now() + Duration::from_secs(20);
    while copy_is_unstable(&live, &killed) {
        assert!(Instant::now() < deadline, "the store never comes to rest");
    }

    let started = Instant::now();
    let mut again = open(&killed);
    let applied = again.applied().expect("flushes got through").index.0;
    let replayed = log.len() as u64 - 1 - applied;
    let outcomes = again.apply(log[usize::try_from(applied).unwrap() + 1..].to_vec()).unwrap();
    assert!(started.elapsed() < Duration::from_millis(600), "took {:?}", started.elapsed());

    assert!(replayed > 0, "a kill loses what was not flushed");
    assert!(replayed < 2000, "{replayed} entries had to be applied again");
    assert_eq!(outcomes.outcomes, answers[usize::try_from(applied).unwrap() + 1..]);
    assert_eq!(again.digest(), state.digest());
    check_everything(&state, &again);
}

/// Copies until two copies in a row are of the same files.
fn copy_is_unstable(live: &Path, killed: &Path) -> bool {
    let listing = |path: &Path| {
        let files = fs::read_dir(path).unwrap().map(|file| file.unwrap());
        let mut files: Vec<_> = files
            .filter(|file| file.file_name() != "LOCK")
            .map(|file| (file.file_name(), file.metadata().map_or(0, |m| m.len())))
            .collect();
        files.sort();
        files
    };
    let before = listing(live);
    fs::remove_dir_all(killed).unwrap();
    fs::create_dir(killed).unwrap();
    copy(live, killed);
    before != listing(live) || before != listing(killed)
}

fn check_everything(state: &State, again: &State) {
    for queue in (0..4).map(QueueId) {
        let all = |state: &State| state.scan(&topic(), queue, QueueOffset(0), usize::MAX).unwrap();
        let (was, is) = (all(state), all(again));
        assert_eq!(was.len(), 64 * 750 - if queue.0 == 3 { 64 } else { 0 });
        assert_eq!(was, is);
    }
    for n in (64..64 * 3000_u64).step_by(997) {
        let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let found = |state: &State| state.find_by_key(&topic(), hash, 9).unwrap();
        assert_eq!(found(state).len(), 1, "key of message {n}");
        assert_eq!(found(state), found(again));
    }
}

/// A delivery that was made before the kill can be acknowledged after it.
#[test]
fn a_planned_stop_leaves_nothing_to_apply_again() {
    let log = log(40);
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    let outcomes = state.apply(log).unwrap().outcomes;
    let digest = state.digest();
    state.flush().unwrap();
    drop(state);

    let mut state = open(dir.path());
    assert_eq!(state.applied(), Some(LogId::new(1, 39)));
    assert_eq!(state.digest(), digest);
    let Outcome::Popped { granted } = &outcomes[39][1] else { panic!("a pop") };
    let last = granted.last().unwrap();
    let handle = Handle { queue: last.queue, offset: last.offset, delivery: last.delivery };
    let ack = broker::command::Ack {
        group: "audit".parse().unwrap(),
        topic: topic(),
        handles: vec![handle],
    };
    let acked = state.apply(vec![entry(40, &[Command::Ack(ack)])]).unwrap().outcomes;
    assert_eq!(acked, [[Outcome::Acked(vec![broker::command::AckOutcome::Acked])]]);
}
