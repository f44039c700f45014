//! Damage in what was synced: never handed out, found by reading again, and repaired from a copy.

mod common;

use std::sync::Arc;

use commitlog::position::{LogId, LogIndex, LogOffset};
use commitlog::{
    CommitLog, Config, Disk, Error, Extent, Fault, FileDisk, Loss, Mending, Reader, SimDisk,
    mend_closed, segment_name,
};
use common::{GROUP, Node, body, config, records};

const SEGMENT: u64 = 8192;
/// Bytes of the header of a segment, and of a frame.
const HEADERS: usize = 4096 + 64;

/// A log of several segments, all of it committed.
fn log(disk: &SimDisk) -> Node {
    let mut node = Node::open(disk).unwrap();
    node.append(records(1, 0..40, 400)).unwrap();
    node.log.set_committed(LogIndex(39));
    node
}

/// The same, stopped in good order.
fn closed(disk: &SimDisk) {
    let Node { log, mut writer, outcomes, .. } = log(disk);
    log.close_with(outcomes.named(0)).unwrap();
    while writer.step() {}
}

/// The same, opened again: nothing of it is in memory.
fn cold(disk: &SimDisk) -> Node {
    closed(disk);
    Node::open(disk).unwrap()
}

fn extent_of(from: &Node, base: LogOffset) -> Extent {
    let all = from.log.reader().extents(LogId::new(1, 39)).unwrap();
    all.into_iter().find(|extent| extent.base == base).unwrap()
}

fn copied(from: &Node, mending: Mending, extent: Extent) -> Result<commitlog::Mended, Error> {
    for at in (0..extent.len).step_by(1000) {
        let len = 1000.min(extent.len - at);
        mending.write(at, &from.log.reader().raw(extent.base, at, len).unwrap()).unwrap();
    }
    mending.finish()
}

/// Steps that read all of a segment, or the error in it.
fn scrubbed(node: &Node, base: LogOffset) -> Result<u64, Error> {
    let mut scrub = node.log.reader().scrub(base)?;
    let mut total = 0;
    loop {
        match scrub.step(500)? {
            0 => return Ok(total),
            read => total += read,
        }
    }
}

fn is_damage(error: &Error, base: u64) -> bool {
    matches!(error, Error::Corrupt { segment, .. } if segment.0 == base)
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found_and_repaired() {
    let whole = log(&SimDisk::new());
    let disk = SimDisk::new();
    let mut node = cold(&disk);
    let name = segment_name(LogOffset(SEGMENT));
    let good = disk.contents(&name).unwrap();
    let sums = |node: &Node| {
        let reader = node.log.reader();
        let of = |base| {
            let mut scrub = reader.scrub(base).unwrap();
            while scrub.step(1 << 20).unwrap() > 0 {}
            scrub.checksum()
        };
        reader.sealed().into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(sums(&node), sums(&whole));
    // Between a body and the next frame there is nothing that anybody reads.
    let gaps = |at: usize| at >= 4096 && good[at] == 0;
    for at in (0..good.len()).step_by(97).filter(|&at| !gaps(at)) {
        disk.flip(&name, at, 1 << (at % 8));
        let error = scrubbed(&node, LogOffset(SEGMENT)).unwrap_err();
        assert!(is_damage(&error, SEGMENT), "byte {at}: {error}");
        let extent = extent_of(&whole, LogOffset(SEGMENT));
        let mended = copied(&whole, node.log.mending(extent).unwrap(), extent).unwrap();
        node.log.mend(mended, node.outcomes.named(at as u64)).unwrap();
        node.settle();
        assert_eq!(node.outcomes.done().last(), Some(&(at as u64)), "{:?}", node.outcomes.failed());
        assert_eq!(disk.contents(&name).unwrap(), good, "byte {at}");
        scrubbed(&node, LogOffset(SEGMENT)).unwrap();
    }
    assert_eq!(node.all().unwrap(), records(1, 0..40, 400));
}

#[test]
fn damage_is_never_handed_out_not_even_where_all_was_well_before() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let disk = FileDisk::new(dir.path()).unwrap();
        CommitLog::open(config(), disk, common::identity()).unwrap().0
    };
    let log = open();
    log.append(records(1, 0..40, 400), Box::new(|result| result.unwrap())).unwrap();
    log.set_committed(LogIndex(39));
    log.close().unwrap();
    drop(log);
    let log = open();
    let reader = log.reader();
    let flip = |base: LogOffset| {
        let path = dir.path().join(segment_name(base));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEADERS + 100] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    };
    // The second segment is sealed and mapped, the newest one is still being written.
    let newest = *reader.sealed().last().unwrap() + SEGMENT;
    for base in [LogOffset(SEGMENT), newest] {
        let at = base + HEADERS as u64;
        let before = reader.bytes(at, 400).unwrap();
        assert!((0..40).any(|index| before == body(1, index, 400)));
        flip(base);
        // What was found whole counts as whole for a moment.
        let begin = std::time::Instant::now();
        let error = loop {
            match reader.bytes(at, 400) {
                Err(error) => break error,
                Ok(_) => assert!(begin.elapsed().as_secs() < 10, "damage goes unnoticed"),
            }
            std::thread::yield_now();
        };
        assert!(is_damage(&error, base.0), "{error}");
        flip(base);
        assert_eq!(reader.bytes(at, 400).unwrap(), body_at(&reader, base));
    }
}

/// The body of the first entry of a segment.
fn body_at(reader: &Reader, base: LogOffset) -> bytes::Bytes {
    let all = reader.frames(LogIndex(0)..LogIndex(40), usize::MAX).unwrap();
    let found = all.into_iter().find(|frame| frame.position == base + HEADERS as u64).unwrap();
    body(1, found.record.log_id.index.0, 400)
}

#[test]
fn the_segment_that_is_being_written_is_repaired_where_it_stands() {
    let whole = log(&SimDisk::new());
    let disk = SimDisk::new();
    let mut node = cold(&disk);
    let last = whole.log.reader().extents(LogId::new(1, 39)).unwrap().pop().unwrap();
    disk.flip(&segment_name(last.base), HEADERS + 3, 1);
    assert!(is_damage(&scrubbed(&node, last.base).unwrap_err(), last.base.0));
    node.append(records(1, 40..41, 100)).unwrap();
    let mended = copied(&whole, node.log.mending(last).unwrap(), last).unwrap();
    node.log.mend(mended, node.outcomes.named(7)).unwrap();
    node.settle();
    assert_eq!(node.outcomes.done().last(), Some(&7), "{:?}", node.outcomes.failed());
    scrubbed(&node, last.base).unwrap();
    let all = node.all().unwrap();
    assert_eq!(all.len(), 41);
    assert_eq!(all[..40], records(1, 0..40, 400));
}

#[test]
fn a_copy_that_is_damaged_or_another_groups_changes_nothing() {
    let whole = log(&SimDisk::new());
    let disk = SimDisk::new();
    let node = cold(&disk);
    let extent = extent_of(&whole, LogOffset(SEGMENT));
    let before = disk.contents(&segment_name(extent.base)).unwrap();
    // In the same place as the original.
    disk.flip(&segment_name(extent.base), HEADERS + 9, 2);
    let mending = node.log.mending(extent).unwrap();
    let mut bytes = whole.log.reader().raw(extent.base, 0, extent.len).unwrap().to_vec();
    bytes[HEADERS + 9] ^= 1;
    mending.write(0, &bytes).unwrap();
    assert!(mending.finish().is_err());
    let mending = node.log.mending(extent).unwrap();
    assert!(mending.write(extent.len, b"x").is_err(), "nothing stands there");
    assert!(mending.finish().is_err(), "empty");
    disk.flip(&segment_name(extent.base), HEADERS + 9, 2);
    assert_eq!(disk.contents(&segment_name(extent.base)).unwrap(), before);
}

#[test]
fn two_replicas_with_damage_in_different_places_have_all_of_it_together() {
    let other = SimDisk::new();
    let from = cold(&other);
    let disk = SimDisk::new();
    let mut node = cold(&disk);
    let name = segment_name(LogOffset(SEGMENT));
    let good = disk.contents(&name).unwrap();
    let extent = extent_of(&from, LogOffset(SEGMENT));
    // The second frame here; the header, the first and the third there.
    disk.flip(&name, HEADERS + 464 + 3, 1);
    [60, HEADERS + 3, HEADERS + 2 * 464 + 3].iter().for_each(|at| other.flip(&name, *at, 1));
    let mended = copied(&from, node.log.mending(extent).unwrap(), extent).unwrap();
    node.log.mend(mended, node.outcomes.named(7)).unwrap();
    node.settle();
    assert_eq!(disk.contents(&name).unwrap(), good);
    // In the same place there is no help.
    [&disk, &other].iter().for_each(|disk| disk.flip(&name, HEADERS + 9, 1));
    let refused = copied(&from, node.log.mending(extent).unwrap(), extent).unwrap_err();
    assert!(is_damage(&refused, SEGMENT), "{refused}");
}

#[test]
fn a_crash_at_any_call_of_a_repair_leaves_a_log_that_opens() {
    let whole = log(&SimDisk::new());
    let mut crashes = 0;
    for call in 0.. {
        let disk = SimDisk::new();
        let mut node = cold(&disk);
        let extent = extent_of(&whole, LogOffset(SEGMENT));
        disk.flip(&segment_name(extent.base), HEADERS + 3, 1);
        disk.fail_at(disk.calls() + call, Fault::Crash);
        let mended =
            node.log.mending(extent).and_then(|mending| copied_or(&whole, mending, extent));
        if let Ok(mended) = mended
            && node.log.mend(mended, node.outcomes.named(7)).is_ok()
        {
            node.settle();
        }
        if !disk.crashed() {
            break;
        }
        crashes += 1;
        drop(node);
        for loss in [Loss::Nothing, Loss::Unsynced] {
            let after = disk.after_crash(loss);
            let node = Node::open(&after).unwrap();
            let names = after.names();
            assert!(!names.iter().any(|name| name.ends_with(".mend")), "{names:?}");
            match scrubbed(&node, extent.base) {
                Ok(_) => assert_eq!(node.all().unwrap(), records(1, 0..40, 400)),
                Err(error) => assert!(is_damage(&error, SEGMENT), "call {call}: {error}"),
            }
        }
    }
    assert!(crashes > 5, "{crashes} calls");
}

fn copied_or(from: &Node, mending: Mending, extent: Extent) -> Result<commitlog::Mended, Error> {
    mending.write(0, &from.log.reader().raw(extent.base, 0, extent.len).unwrap())?;
    mending.finish()
}

#[test]
fn a_log_that_does_not_open_is_repaired_and_opens() {
    let whole = log(&SimDisk::new());
    let extents = whole.log.reader().extents(LogId::new(1, 39)).unwrap();
    for (extent, at) in extents.iter().flat_map(|extent| [(extent, 40), (extent, HEADERS + 3)]) {
        let disk = SimDisk::new();
        closed(&disk);
        disk.flip(&segment_name(extent.base), at, 1);
        match Node::open(&disk) {
            // Sealed segments are looked at when they are read.
            Ok(node) => assert!(scrubbed(&node, extent.base).is_err()),
            Err(error) => assert!(is_damage(&error, extent.base.0), "{error}"),
        }
        let closed: Arc<dyn Disk> = Arc::new(disk.clone());
        let mending = Mending::begin(closed.clone(), GROUP, SEGMENT, *extent).unwrap();
        let mended = copied(&whole, mending, *extent).unwrap();
        mend_closed(&closed, SEGMENT, &mended).unwrap();
        let node = Node::open(&disk).unwrap();
        assert_eq!(node.all().unwrap(), records(1, 0..40, 400));
    }
}

#[test]
fn only_who_says_so_loses_what_was_synced_behind_damage() {
    let disk = SimDisk::new();
    closed(&disk);
    let last = log(&SimDisk::new()).log.reader().extents(LogId::new(1, 39)).unwrap().pop().unwrap();
    disk.flip(&segment_name(last.base), HEADERS + 3, 1);
    assert!(is_damage(&Node::open(&disk).map(|_| ()).unwrap_err(), last.base.0));
    let lossy = Config { cut_damage: true, ..config() };
    let node = Node::open_with(&disk, lossy).unwrap();
    assert!(node.recovered.lost.is_some_and(|lost| lost >= 464), "{:?}", node.recovered);
    let kept = node.all().unwrap();
    assert_eq!(kept[..], records(1, 0..kept.len() as u64, 400)[..]);
    assert!(kept.len() < 40);
    drop(node);
    // What was behind the damage never comes back.
    let node = Node::open(&disk).unwrap();
    assert_eq!(node.all().unwrap().len(), kept.len());
}
