//! The process dies, the machine does not: the page cache keeps a prefix of what was written, and
//! the log knows it. And cuts, which are the only time that the log overwrites itself.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use commitlog::position::{LogId, LogIndex};
use commitlog::{BootId, CommitLog, Error, Fault, FileDisk, Identity, Loss, Record, SimDisk};
use common::{Node, config, identity, records};

/// Two starts in one run of the operating system.
fn same_boot() -> Identity {
    Identity { boot_id: Some(BootId(7)), ..identity() }
}

fn open(disk: &SimDisk) -> Result<Node, Error> {
    Node::open_as(disk, config(), same_boot())
}

fn keep(records: &[Record], count: usize) -> Vec<Record> {
    records[..count].to_vec()
}

/// A log of thirty entries over several segments, cut after the ninth and written on. Answers what
/// was durable, and what may be there behind it, when the disk stopped.
fn cut_and_go_on(disk: &SimDisk) -> (Vec<Record>, Vec<Vec<Record>>) {
    let old = records(1, 0..30, 300);
    let new = [keep(&old, 9), records(2, 9..14, 500)].concat();
    let Ok(mut node) = open(disk) else { return (Vec::new(), vec![Vec::new()]) };
    let failed = |node: &Node| !node.outcomes.failed().is_empty();
    if node.append(old.clone()).is_err() || failed(&node) {
        return (Vec::new(), vec![old]);
    }
    if node.truncate(Some(LogId::new(1, 8))).is_err() || failed(&node) {
        return (keep(&old, 9), vec![old.clone(), keep(&old, 9)]);
    }
    if node.append(new[9..].to_vec()).is_err() || failed(&node) {
        return (keep(&old, 9), vec![new]);
    }
    (new.clone(), vec![new])
}

fn check(disk: &SimDisk, durable: &[Record], possible: &[Vec<Record>], case: &str) {
    let mut node = open(disk).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = node.all().unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(found.starts_with(durable), "{case}: {} of {} left", found.len(), durable.len());
    assert!(
        possible.iter().any(|possible| possible.starts_with(&found)),
        "{case}: found {:?}",
        found.iter().map(|record| record.log_id).collect::<Vec<_>>()
    );
    let next = node.log.state().last.map_or(0, |last| last.index.0 + 1);
    node.append(records(9, next..next + 3, 700)).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(node.outcomes.done(), [next + 2], "{case}");
    drop(node);
    let again = open(disk).unwrap_or_else(|error| panic!("{case}, again: {error}"));
    assert_eq!(again.all().unwrap().len(), found.len() + 3, "{case}, again");
}

#[test]
fn a_kill_at_any_call_and_byte_of_a_cut_is_repaired() {
    let whole = SimDisk::new();
    cut_and_go_on(&whole);
    for call in 0..whole.calls() {
        let disk = SimDisk::new();
        disk.fail_at(call, Fault::Crash);
        let (durable, possible) = cut_and_go_on(&disk);
        check(&disk.after_crash(Loss::Nothing), &durable, &possible, &format!("call {call}"));
        let pending = disk.pending();
        let Some(&len) = pending.last() else { continue };
        for bytes in (0..len).step_by(41) {
            let loss = Loss::AfterPrefix { changes: pending.len() - 1, bytes };
            let case = format!("call {call}, byte {bytes} of {len}");
            check(&disk.after_crash(loss), &durable, &possible, &case);
        }
    }
}

#[test]
fn a_power_failure_at_any_call_of_a_cut_is_repaired() {
    let whole = SimDisk::new();
    cut_and_go_on(&whole);
    for call in 0..whole.calls() {
        let disk = SimDisk::new();
        disk.fail_at(call, Fault::Crash);
        let (durable, possible) = cut_and_go_on(&disk);
        for seed in 0..20 {
            let after = disk.after_crash(Loss::Random { seed });
            let other_boot = Identity { boot_id: Some(BootId(8)), ..identity() };
            let node = Node::open_as(&after, config(), other_boot)
                .unwrap_or_else(|error| panic!("call {call}, seed {seed}: {error}"));
            let found = node.all().unwrap();
            assert!(found.starts_with(&durable), "call {call}, seed {seed}");
            assert!(possible.iter().any(|possible| possible.starts_with(&found)));
        }
    }
}

#[test]
fn after_a_kill_a_flipped_bit_before_a_sound_entry_is_damage_whatever_the_mark_says() {
    let disk = SimDisk::new();
    let mut node = open(&disk).unwrap();
    // In one segment, and no mark was saved since.
    node.append(records(1, 0..3, 300)).unwrap();
    node.append(records(1, 3..6, 300)).unwrap();
    let frames = node.log.reader().frames(LogIndex(0)..LogIndex(6), usize::MAX).unwrap();
    drop(node);
    for frame in &frames[..5] {
        let at = usize::try_from(frame.position.0).unwrap();
        for place in [at - 64, at - 40, at, at + 299] {
            let damaged = disk.after_crash(Loss::Nothing);
            damaged.flip("00000000000000000000.seg", place, 16);
            let error = open(&damaged).err().unwrap();
            let Error::Corrupt { offset, .. } = error else { panic!("{error}") };
            assert_eq!(offset.0, frame.position.0 - 64, "byte {place}");
        }
    }
}

/// What a failed sync left in the page cache is not on the disk, and the next sync of the same pages
/// would not bring it there.
#[test]
fn after_a_failed_sync_a_restart_makes_durable_what_it_finds() {
    let disk = SimDisk::new();
    let mut node = open(&disk).unwrap();
    node.append(records(1, 0..2, 300)).unwrap();
    node.vote(1).unwrap();
    node.log.append(records(1, 2..5, 300), node.outcomes.named(4)).unwrap();
    disk.fail_at(disk.calls() + 1, Fault::Eio);
    node.settle();
    assert!(matches!(node.outcomes.failed()[0], Error::Io { action: "sync", .. }));
    drop(node);
    let node = open(&disk).unwrap();
    assert_eq!(node.all().unwrap(), records(1, 0..5, 300));
    drop(node);
    let node = open(&disk.after_crash(Loss::Unsynced)).unwrap();
    assert_eq!(node.all().unwrap(), records(1, 0..5, 300), "what was found has to stay");
}

#[test]
fn a_lost_newest_segment_is_missed_once_the_mark_has_passed_it() {
    let disk = SimDisk::new();
    let mut node = open(&disk).unwrap();
    node.append(records(1, 0..30, 300)).unwrap();
    node.vote(1).unwrap();
    drop(node);
    let newest = disk.names().into_iter().rfind(|name| name.ends_with(".seg")).unwrap();
    disk.lose(&newest);
    let Some(Error::Missing { file }) = open(&disk).err() else { panic!("not missed") };
    assert_eq!(file, newest);
}

#[test]
fn a_cut_to_where_a_purge_went_past_the_end_keeps_what_is_below() {
    let disk = SimDisk::new();
    let mut node = open(&disk).unwrap();
    node.append(records(1, 0..5, 300)).unwrap();
    let upto = LogId::new(2, 20);
    node.log.purge_to(upto, node.outcomes.named(0)).unwrap();
    node.settle();
    node.append(records(3, 21..25, 300)).unwrap();
    let refused = node.truncate(Some(LogId::new(1, 4))).unwrap_err();
    assert!(matches!(refused, Error::TruncateCommitted { .. }), "{refused}");
    node.truncate(Some(upto)).unwrap();
    assert!(node.outcomes.failed().is_empty());
    assert_eq!(node.log.state().last, Some(upto));
    node.append(records(4, 21..23, 300)).unwrap();
    drop(node);
    let node = open(&disk).unwrap();
    assert_eq!(node.log.state().purged, Some(upto));
    assert_eq!(node.all().unwrap(), records(4, 21..23, 300));
}

/// What was reserved can be appended, wherever segments end in between; without space the
/// reservation fails and nothing else does.
#[test]
fn what_is_reserved_is_never_refused() {
    let disk = SimDisk::new();
    let mut node = open(&disk).unwrap();
    node.append(records(1, 0..1, 300)).unwrap();
    let used: usize = disk.names().iter().map(|name| disk.contents(name).unwrap().len()).sum();
    disk.set_capacity(Some(3 * used as u64));
    let (mut next, mut body) = (1, 300_usize);
    let three = |body: usize| 3 * (2 * 64 + body as u64);
    while node.log.reserve(three(body), 3).is_ok() {
        node.append(records(1, next..next + 3, body)).unwrap();
        (next, body) = (next + 3, 300 + (body * 7) % 900);
        assert!(next < 1_000, "the disk is not that large");
    }
    assert!(next > 10, "{next}");
    assert!(node.outcomes.failed().is_empty());
    disk.set_capacity(None);
    node.log.reserve(three(body), 3).unwrap();
}

/// Entries that are cut and written anew under the reader: it sees the old ones or the new ones,
/// never both in one answer, and never damage.
#[test]
fn readers_of_what_is_cut_see_one_log_or_the_other() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing stays in memory once it is written.
    let config = commitlog::Config { tail_cache_bytes: 0, ..config() };
    let (log, _) =
        CommitLog::open(config, FileDisk::new(dir.path()).unwrap(), same_boot()).unwrap();
    let reader = log.reader();
    let wait = |queue: &dyn Fn(commitlog::Done) -> Result<(), Error>| {
        let (sender, receiver) = mpsc::channel();
        queue(Box::new(move |result| sender.send(result).unwrap())).unwrap();
        receiver.recv().unwrap().unwrap();
    };
    wait(&|done| log.append(records(1, 0..20, 150), done));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            let mut answers = 0_u64;
            while !stop.load(Ordering::Relaxed) || answers == 0 {
                let frames = reader.frames(LogIndex(5)..LogIndex(80), usize::MAX).unwrap();
                let terms: std::collections::BTreeSet<u64> = frames
                    .iter()
                    .filter(|frame| frame.record.log_id.index.0 >= 20)
                    .map(|frame| frame.record.log_id.term.0)
                    .collect();
                assert!(terms.len() <= 1, "entries of {terms:?} in one answer");
                for frame in &frames {
                    let len = u32::try_from(frame.record.body.len()).unwrap();
                    match reader.bytes(frame.position, len) {
                        Ok(bytes) => assert_eq!(bytes.len(), 150),
                        // It was cut meanwhile.
                        Err(error) => {
                            assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
                        }
                    }
                }
                answers += 1;
            }
        });
        for term in 2..60 {
            wait(&|done| log.append(records(term, 20..70, 150), done));
            wait(&|done| log.truncate_after(Some(LogId::new(1, 19)), done));
        }
        stop.store(true, Ordering::Relaxed);
        read.join().unwrap();
    });
}

/// Files go while they are read: a reader gets the entries, or is told that they are gone.
#[test]
fn readers_of_what_is_removed_get_it_whole_or_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = commitlog::Config { tail_cache_bytes: 0, ..config() };
    let (log, _) =
        CommitLog::open(config, FileDisk::new(dir.path()).unwrap(), same_boot()).unwrap();
    let reader = log.reader();
    let wait = |queue: &dyn Fn(commitlog::Done) -> Result<(), Error>| {
        let (sender, receiver) = mpsc::channel();
        queue(Box::new(move |result| sender.send(result).unwrap())).unwrap();
        receiver.recv().unwrap().unwrap();
    };
    wait(&|done| log.append(records(1, 0..400, 150), done));
    log.set_committed(LogIndex(399));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            let (mut held, mut gone) = (Vec::new(), 0_u64);
            while !stop.load(Ordering::Relaxed) || gone == 0 {
                for from in (0..400).step_by(20) {
                    match reader.frames(LogIndex(from)..LogIndex(400), 1000) {
                        Ok(frames) => held.extend(frames.into_iter().take(1)),
                        Err(Error::Purged { .. }) => gone += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                held.truncate(500);
            }
            for frame in held {
                let index = frame.record.log_id.index.0;
                assert_eq!(frame.record, common::record(1, index, 150), "what is held stays");
            }
        });
        for upto in (10..390).step_by(10) {
            wait(&|done| log.purge_to(LogId::new(1, upto), done));
            wait(&|done| log.remove_below(log.state().end, done));
            wait(&|done| {
                let next = log.state().last.unwrap().index.0 + 1;
                log.append(records(1, next..next + 10, 150), done)
            });
        }
        stop.store(true, Ordering::Relaxed);
        read.join().unwrap();
    });
}
