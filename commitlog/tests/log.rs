//! What the log promises to its owner, on a disk that works.

mod common;

use std::sync::mpsc;

use commitlog::position::{LogId, LogIndex};
use commitlog::{CommitLog, Error, FileDisk, Flush, Identity, Kind, Record, SimDisk};
use common::{GROUP, Node, config, identity, record, records};

#[test]
fn entries_can_be_read_before_they_are_written() {
    let node = Node::open(&SimDisk::new()).unwrap();
    node.log.append(records(1, 0..3, 100), node.outcomes.named(2)).unwrap();
    assert_eq!(node.all().unwrap(), records(1, 0..3, 100));
    assert!(node.outcomes.done().is_empty(), "nothing is durable yet");
}

#[test]
fn many_appends_share_one_sync() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..1, 10)).unwrap();
    let before = disk.syncs();
    for index in 1..20 {
        node.log.append(records(1, index..index + 1, 10), node.outcomes.named(index)).unwrap();
    }
    node.settle();
    assert_eq!(disk.syncs() - before, 1);
    assert_eq!(node.outcomes.done(), (0..20).collect::<Vec<_>>(), "callbacks keep their order");
}

#[test]
fn an_append_behind_another_costs_one_sync() {
    const COUNT: u64 = 60;
    let disk = SimDisk::new();
    let (log, _) = CommitLog::open(config(), disk.clone(), identity()).unwrap();
    let (sender, receiver) = mpsc::channel();
    let append = |index| {
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send(result).unwrap());
        log.append(vec![record(1, index, 10)], done).unwrap();
        receiver.recv().unwrap().unwrap();
    };
    append(0);
    let before = disk.syncs();
    (1..=COUNT).for_each(append);
    let syncs = disk.syncs() - before;
    // Another segment in reserve, or a mark after a second in which this test was not run.
    assert!((COUNT..COUNT + 10).contains(&syncs), "{syncs} syncs for {COUNT} appends");
}

#[test]
fn a_reopened_log_holds_what_it_held() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    let all = records(1, 0..50, 300);
    node.append(all.clone()).unwrap();
    node.vote(7).unwrap();
    node.log.set_committed(LogIndex(33));
    drop(node);
    let node = Node::open(&disk).unwrap();
    assert_eq!(node.all().unwrap(), all);
    assert_eq!(node.log.state().vote, Some([7; 24]));
    assert!(node.recovered.segments > 3, "the log has rolled");
    assert_eq!(node.recovered.cut, None);
}

#[test]
fn positions_are_the_same_however_entries_were_grouped() {
    let positions = |groups: &[std::ops::Range<u64>]| {
        let mut node = Node::open(&SimDisk::new()).unwrap();
        for group in groups {
            node.append(records(1, group.clone(), 333)).unwrap();
        }
        let frames = node.log.reader().frames(LogIndex(0)..LogIndex(30), usize::MAX).unwrap();
        frames.iter().map(|frame| frame.position).collect::<Vec<_>>()
    };
    assert_eq!(positions(&[0..29, 29..30]), positions(&[0..1, 1..2, 2..17, 17..30]));
}

#[test]
fn replicas_have_the_same_bytes_after_truncation_and_recycling() {
    let (left, right) = (SimDisk::new(), SimDisk::new());
    let mut straight = Node::open(&left).unwrap();
    straight.append(records(1, 0..12, 500)).unwrap();
    straight.append(records(3, 12..40, 500)).unwrap();
    let mut detour = Node::open(&right).unwrap();
    detour.append(records(1, 0..12, 500)).unwrap();
    detour.append(records(2, 12..30, 321)).unwrap();
    detour.truncate(Some(LogId::new(1, 11))).unwrap();
    detour.append(records(3, 12..40, 500)).unwrap();
    for name in left.names().into_iter().filter(|name| name.ends_with(".seg")) {
        assert_eq!(left.contents(&name), right.contents(&name), "{name}");
    }
}

#[test]
fn parts_of_bodies_are_read_by_position_from_memory_file_and_map() {
    let mut config = config();
    config.tail_cache_bytes = 0;
    let mut node = Node::open_with(&SimDisk::new(), config).unwrap();
    let all = records(1, 0..40, 400);
    node.append(all.clone()).unwrap();
    let reader = node.log.reader();
    let frames = reader.frames(LogIndex(0)..LogIndex(40), usize::MAX).unwrap();
    for committed in [None, Some(39)] {
        if let Some(index) = committed {
            node.log.set_committed(LogIndex(index));
        }
        for frame in &frames {
            let part = reader.bytes(frame.position + 100, 200).unwrap();
            assert_eq!(part, frame.record.body.slice(100..300));
        }
    }
    let behind = node.log.state().end;
    assert!(matches!(reader.bytes(behind, 1), Err(Error::OutOfRange { .. })));
}

#[test]
fn a_conflicting_tail_is_cut_and_what_readers_hold_stays() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..30, 300)).unwrap();
    let held = node.log.reader().frames(LogIndex(20)..LogIndex(21), 1).unwrap();
    node.truncate(Some(LogId::new(1, 4))).unwrap();
    assert_eq!(node.all().unwrap(), records(1, 0..5, 300));
    node.append(records(2, 5..9, 100)).unwrap();
    assert_eq!(held[0].record, record(1, 20, 300));
    drop(node);
    let node = Node::open(&disk).unwrap();
    let expected = [records(1, 0..5, 300), records(2, 5..9, 100)].concat();
    assert_eq!(node.all().unwrap(), expected);
}

#[test]
fn the_whole_log_can_be_cut() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..30, 300)).unwrap();
    node.truncate(None).unwrap();
    assert_eq!(node.log.state().last, None);
    node.append(records(2, 0..3, 10)).unwrap();
    drop(node);
    assert_eq!(Node::open(&disk).unwrap().all().unwrap(), records(2, 0..3, 10));
}

#[test]
fn committed_entries_are_never_cut() {
    let mut node = Node::open(&SimDisk::new()).unwrap();
    node.append(records(1, 0..5, 10)).unwrap();
    node.log.set_committed(LogIndex(3));
    let refused = node.truncate(Some(LogId::new(1, 2))).unwrap_err();
    assert!(matches!(refused, Error::TruncateCommitted { .. }), "{refused}");
    node.truncate(Some(LogId::new(1, 3))).unwrap();
}

#[test]
fn a_cut_after_an_entry_that_is_not_there_changes_nothing() {
    let mut node = Node::open(&SimDisk::new()).unwrap();
    node.append(records(1, 0..5, 10)).unwrap();
    node.truncate(Some(LogId::new(9, 2))).unwrap();
    assert!(matches!(node.outcomes.failed()[0], Error::UnknownEntry { .. }));
    assert_eq!(node.all().unwrap().len(), 5);
    node.append(records(1, 5..6, 10)).unwrap();
}

#[test]
fn records_that_do_not_fit_are_refused_and_nothing_changes() {
    let mut node = Node::open(&SimDisk::new()).unwrap();
    node.append(records(2, 0..2, 10)).unwrap();
    let mut damaged = record(2, 2, 10);
    damaged.body_crc ^= 1;
    let refused = [
        (record(2, 3, 10), "does not follow"),
        (record(1, 2, 10), "lower term"),
        (record(2, 2, 1025), "too large"),
        (damaged, "checksum"),
    ];
    for (record, text) in refused {
        let error = node.append(vec![record]).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!(node.all().unwrap().len(), 2);
    node.append(vec![record(2, 2, 1024)]).unwrap();
}

#[test]
fn purged_files_go_and_are_used_again() {
    let disk = SimDisk::new();
    let mut config = config();
    config.tail_cache_bytes = 0;
    let mut node = Node::open_with(&disk, config.clone()).unwrap();
    node.append(records(1, 0..40, 400)).unwrap();
    node.log.set_committed(LogIndex(39));
    let held = node.log.reader().frames(LogIndex(0)..LogIndex(1), 1).unwrap();
    node.log.purge_to(LogId::new(1, 20), node.outcomes.named(100)).unwrap();
    node.log.remove_below(node.log.state().end, node.outcomes.named(101)).unwrap();
    node.settle();
    assert_eq!(held[0].record, record(1, 0, 400), "what was handed out stays");
    let gone = node.log.reader().frames(LogIndex(0)..LogIndex(5), 1).unwrap_err();
    assert!(matches!(gone, Error::Purged { .. }), "{gone}");
    assert_eq!(node.all().unwrap(), records(1, 21..40, 400));
    node.append(records(1, 40..80, 400)).unwrap();
    assert_eq!(node.all().unwrap(), records(1, 21..80, 400));
    drop(node);
    let node = Node::open_with(&disk, config).unwrap();
    assert_eq!(node.log.state().purged, Some(LogId::new(1, 20)));
    assert_eq!(node.all().unwrap(), records(1, 21..80, 400));
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..2, 10)).unwrap();
    let second = Node::open(&disk).err().unwrap();
    assert!(matches!(second, Error::Locked), "{second}");
    drop(node);
    let open = |identity| CommitLog::open_without_thread(config(), disk.clone(), identity).err();
    let other_node = Identity { node_id: 2, ..identity() };
    assert!(matches!(open(other_node), Some(Error::ForeignNode { expected: 2, found: 1 })));
    let other_group = Identity { group_id: Some(commitlog::GroupId(5)), ..identity() };
    assert!(matches!(open(other_group), Some(Error::ForeignGroup { .. })));
    let bigger = commitlog::Config::with_segment_size(16384);
    let error = Node::open_with(&disk, bigger).err().unwrap();
    assert!(matches!(error, Error::SegmentSize { expected: 16384, found: 8192 }), "{error}");
    disk.lose("hardstate");
    assert!(matches!(Node::open(&disk).err(), Some(Error::Missing { .. })));
}

#[test]
fn a_missing_segment_is_named() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..40, 400)).unwrap();
    drop(node);
    let segments: Vec<String> =
        disk.names().into_iter().filter(|name| name.ends_with(".seg")).collect();
    disk.lose(&segments[1]);
    let Some(Error::Missing { file }) = Node::open(&disk).err() else { panic!("not missed") };
    assert_eq!(file, segments[1]);
}

#[test]
fn real_files_survive_close_and_kill() {
    let dir = tempfile::tempdir().unwrap();
    let config = commitlog::Config { flush: Flush::Sync, ..config() };
    for (round, close) in [(0_u64, true), (1, false), (2, true)] {
        let disk = FileDisk::new(dir.path()).unwrap();
        let (log, recovered) = CommitLog::open(config.clone(), disk, identity()).unwrap();
        assert_eq!(recovered.last.map_or(0, |last| last.index.0 + 1), round * 40);
        assert_eq!(recovered.clean, round != 2);
        let (sender, receiver) = mpsc::channel();
        for index in round * 40..round * 40 + 40 {
            let sender = sender.clone();
            let done = Box::new(move |result| sender.send(result).unwrap());
            log.append(vec![record(1, index, 200)], done).unwrap();
        }
        for _ in 0..40 {
            receiver.recv().unwrap().unwrap();
        }
        log.set_committed(LogIndex(round * 40 + 39));
        let reader = log.reader();
        let frames = reader.frames(LogIndex(0)..LogIndex(1000), usize::MAX).unwrap();
        let expected: Vec<Record> = records(1, 0..round * 40 + 40, 200);
        assert_eq!(frames.iter().map(|frame| frame.record.clone()).collect::<Vec<_>>(), expected);
        for frame in &frames {
            assert_eq!(reader.bytes(frame.position, 200).unwrap(), frame.record.body);
        }
        if close {
            log.close().unwrap();
            log.close().unwrap();
            let late = log.append(vec![record(1, 999, 1)], Box::new(|_| {})).unwrap_err();
            assert!(matches!(late, Error::Closed), "{late}");
        }
    }
}

#[test]
fn membership_is_synced_in_asynchronous_mode_too() {
    let disk = SimDisk::new();
    let flush = Flush::ASYNC;
    let mut node = Node::open_with(&disk, commitlog::Config { flush, ..config() }).unwrap();
    node.append(records(1, 0..1, 10)).unwrap();
    let before = disk.syncs();
    node.append(records(1, 1..2, 10)).unwrap();
    assert_eq!(disk.syncs(), before, "a batch is left to the background");
    assert_eq!(node.outcomes.done(), [0, 1]);
    let membership =
        Record::new(LogId::new(1, 2), Kind::Membership, 0, bytes::Bytes::from_static(b"m"));
    node.append(vec![membership]).unwrap();
    assert!(disk.syncs() > before);
    assert_eq!(node.log.state().synced, node.log.state().written);
}

#[test]
fn readers_go_on_while_the_log_rolls_and_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let config = commitlog::Config { tail_cache_bytes: 2000, ..config() };
    let disk = FileDisk::new(dir.path()).unwrap();
    let (log, _) = CommitLog::open(config, disk, identity()).unwrap();
    let reader = log.reader();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut read = 0_u64;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || read == 0 {
                    // Entries below 300 are never cut.
                    let from = read * 13 % 280;
                    let range = LogIndex(from)..LogIndex(300);
                    for (frame, index) in reader.frames(range, 3000).unwrap().iter().zip(from..) {
                        assert_eq!(frame.record, record(1, index, 150));
                        read += 1;
                    }
                }
            });
        }
        let wait = |queue: &dyn Fn(commitlog::Done) -> Result<(), Error>| {
            let (sender, receiver) = mpsc::channel();
            queue(Box::new(move |result| sender.send(result).unwrap())).unwrap();
            receiver.recv().unwrap().unwrap();
        };
        for index in 0..300 {
            wait(&|done| log.append(vec![record(1, index, 150)], done));
            log.set_committed(LogIndex(index));
        }
        for round in 0..20 {
            wait(&|done| log.append(records(1 + round, 300..400, 150), done));
            wait(&|done| log.truncate_after(Some(LogId::new(1, 299)), done));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(log.state().last, Some(LogId::new(1, 299)));
    assert_eq!(GROUP, identity().group_id.unwrap());
}
