//! Another replica's log takes this one's place: whole, checked, and in spite of crashes.

mod common;

use std::sync::Arc;

use commitlog::position::{LogId, LogIndex, LogOffset};
use commitlog::{
    Disk, Error, Extent, Fault, Loss, Replacement, SimDisk, check_segment, incoming_name,
    segment_name,
};
use common::{GROUP, Node, record, records};

const SEGMENT: u64 = 8192;

/// A log of 40 entries whose oldest segments are gone, and the last entry that is sent of it.
fn source() -> (Node, LogId) {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..40, 400)).unwrap();
    node.log.set_committed(LogIndex(39));
    node.log.purge_to(LogId::new(1, 15), node.outcomes.named(0)).unwrap();
    node.settle();
    node.log.remove_below(node.log.state().end, node.outcomes.named(0)).unwrap();
    node.settle();
    assert!(node.log.state().start > LogOffset(0));
    (node, LogId::new(1, 33))
}

/// Copies what counts of `from` to `disk`, under the names that `name` gives.
fn copy(from: &Node, upto: LogId, disk: &SimDisk, name: fn(LogOffset) -> String) -> Vec<Extent> {
    let extents = from.log.reader().extents(upto).unwrap();
    for extent in &extents {
        let file = disk.create(&name(extent.base)).unwrap();
        file.preallocate(SEGMENT).unwrap();
        let bytes = from.log.reader().raw(extent.base, 0, extent.len).unwrap();
        file.write_at(&mut [std::io::IoSlice::new(&bytes)], 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir().unwrap();
    extents
}

fn replacement(extents: &[Extent], last: LogId) -> Replacement {
    let newest = extents.last().unwrap();
    Replacement { first: extents[0].base, end: newest.base + newest.len, last }
}

/// A log that has fallen behind: of the group's first entries, with an end that nobody else has.
fn behind(disk: &SimDisk) -> Node {
    let mut node = Node::open(disk).unwrap();
    node.append(records(1, 0..8, 400)).unwrap();
    node.append(records(2, 8..14, 300)).unwrap();
    node.vote(3).unwrap();
    node
}

#[test]
fn the_log_is_the_other_one_and_goes_on_with_the_same_bytes() {
    let (mut from, last) = source();
    let disk = SimDisk::new();
    let mut node = behind(&disk);
    let reader = node.log.reader();
    let old = reader.frames(LogIndex(3)..LogIndex(4), 0).unwrap();
    let extents = copy(&from, last, &disk, incoming_name);
    node.log.replace(replacement(&extents, last), node.outcomes.named(77)).unwrap();
    node.settle();
    assert_eq!(node.outcomes.done().last(), Some(&77), "{:?}", node.outcomes.failed());

    assert_eq!(node.log.state().last, Some(last));
    assert_eq!(node.log.state().committed, Some(last.index));
    assert_eq!(node.log.state().start, from.log.state().start);
    let first = node.log.state().purged.unwrap().index.next();
    assert_eq!(node.all().unwrap(), records(1, first.0..34, 400));
    assert_eq!(old[0].record, record(1, 3, 400), "what was read before stays");
    // Both go on, and have the same files.
    node.append(records(1, 34..60, 400)).unwrap();
    from.append(records(1, 40..60, 400)).unwrap();
    let names = |node: &SimDisk| -> Vec<String> {
        node.names().into_iter().filter(|name| name.ends_with(".seg")).collect()
    };
    drop(node);
    let again = Node::open(&disk).unwrap();
    assert_eq!(again.all().unwrap(), records(1, first.0..60, 400));
    assert_eq!(again.log.state().vote, Some([3; 24]), "the vote is this node's own");
    let reopened = from.log.reader().extents(LogId::new(1, 59)).unwrap();
    assert_eq!(again.log.reader().extents(LogId::new(1, 59)).unwrap(), reopened);
    for extent in &reopened {
        let theirs = from.log.reader().raw(extent.base, 0, extent.len).unwrap();
        let ours = again.log.reader().raw(extent.base, 0, extent.len).unwrap();
        assert!(theirs == ours, "segment {}", extent.base);
    }
    assert_eq!(names(&disk).len(), reopened.len(), "nothing else is left: {:?}", disk.names());
}

#[test]
fn a_log_can_begin_with_another_ones_segments() {
    let (from, last) = source();
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    let extents = copy(&from, last, &disk, incoming_name);
    node.log.replace(replacement(&extents, last), node.outcomes.named(1)).unwrap();
    node.settle();
    node.append(records(1, 34..36, 400)).unwrap();
    drop(node);
    let node = Node::open(&disk).unwrap();
    assert_eq!(node.log.state().last, Some(LogId::new(1, 35)));
}

#[test]
fn a_crash_at_any_call_leaves_the_old_log_or_the_new_one() {
    let (from, last) = source();
    let prepared = SimDisk::new();
    drop(behind(&prepared));
    let extents = copy(&from, last, &prepared, incoming_name);
    let with = replacement(&extents, last);
    let run = |disk: &SimDisk| -> Option<bool> {
        let mut node = Node::open(disk).ok()?;
        // Opening removes what came for a replacement that was never begun.
        copy_again(&from, last, disk)?;
        node.log.replace(with, node.outcomes.named(1)).ok()?;
        node.settle();
        Some(node.outcomes.failed().is_empty())
    };
    let whole = prepared.after_crash(Loss::Nothing);
    assert_eq!(run(&whole), Some(true));
    for call in 0..whole.calls() {
        let disk = prepared.after_crash(Loss::Nothing);
        disk.fail_at(call, Fault::Crash);
        let finished = run(&disk) == Some(true);
        let mut losses = vec![Loss::Nothing, Loss::Unsynced, Loss::Zeroed];
        losses.extend((0..8).map(|seed| Loss::Random { seed }));
        losses.extend((0..disk.pending().len()).map(|change| Loss::Only { change }));
        for loss in losses {
            let case = format!("call {call}, {loss:?}");
            let after = disk.after_crash(loss);
            let mut node = Node::open(&after).unwrap_or_else(|error| panic!("{case}: {error}"));
            let state = node.log.state();
            assert_eq!(state.vote, Some([3; 24]), "{case}");
            if state.last == Some(last) {
                let first = state.purged.unwrap().index.next();
                assert_eq!(node.all().unwrap(), records(1, first.0..34, 400), "{case}");
                node.append(records(1, 34..36, 400)).unwrap();
            } else {
                assert!(!finished, "{case}: the new log is gone");
                let mut old = records(1, 0..8, 400);
                old.extend(records(2, 8..14, 300));
                assert_eq!(node.all().unwrap(), old, "{case}");
            }
            let left = after.names().into_iter().filter(|name| name.ends_with(".in")).count();
            assert_eq!(left, 0, "{case}");
        }
    }
}

fn copy_again(from: &Node, last: LogId, disk: &SimDisk) -> Option<()> {
    for extent in from.log.reader().extents(last).unwrap() {
        let file = disk.create(&incoming_name(extent.base)).ok()?;
        file.preallocate(SEGMENT).ok()?;
        let bytes = from.log.reader().raw(extent.base, 0, extent.len).unwrap();
        file.write_at(&mut [std::io::IoSlice::new(&bytes)], 0).ok()?;
        file.sync_data().ok()?;
    }
    disk.sync_dir().ok()
}

#[test]
fn what_is_not_what_was_announced_is_refused_and_changes_nothing() {
    let (from, last) = source();
    let disk = SimDisk::new();
    let mut node = behind(&disk);
    let extents = copy(&from, last, &disk, incoming_name);
    let good = replacement(&extents, last);
    let wrong = [
        Replacement { last: LogId::new(1, 32), ..good },
        Replacement { end: good.end + 8, ..good },
        Replacement { first: LogOffset(good.first.0 - SEGMENT), ..good },
        Replacement { end: good.end + SEGMENT, ..good },
    ];
    for with in wrong {
        let before = node.outcomes.failed().len();
        node.log.replace(with, node.outcomes.named(1)).unwrap();
        node.settle();
        assert_eq!(node.outcomes.failed().len(), before + 1, "{with:?}");
        assert_eq!(node.log.state().last, Some(LogId::new(2, 13)));
    }
    node.append(records(2, 14..15, 300)).unwrap();
}

#[test]
fn every_flipped_byte_of_a_segment_that_counts_is_noticed() {
    let (from, last) = source();
    let disk = SimDisk::new();
    let extents = copy(&from, last, &disk, segment_name);
    let plain: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut after = None;
    for extent in &extents {
        let checked = check_segment(&plain, GROUP, SEGMENT, *extent).unwrap();
        assert!(after.is_none_or(|after| after == checked.before), "they join");
        after = Some(checked.after);
    }
    let extent = *extents.last().unwrap();
    let mut unnoticed = 0;
    for at in 0..usize::try_from(extent.len).unwrap() {
        let damaged = disk.after_crash(Loss::Nothing);
        damaged.flip(&segment_name(extent.base), at, 1 << (at % 8));
        let damaged: Arc<dyn Disk> = Arc::new(damaged);
        unnoticed += usize::from(check_segment(&damaged, GROUP, SEGMENT, extent).is_ok());
    }
    // The zeros between frames.
    assert!(unnoticed < 8 * 12, "{unnoticed} flipped bytes");
    let shorter = Extent { len: extent.len - 8, ..extent };
    assert!(check_segment(&plain, GROUP, SEGMENT, shorter).is_err());
}

#[test]
fn pinned_segments_stay_until_the_pin_goes() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..40, 400)).unwrap();
    let all = node.log.removable_below(node.log.state().end).unwrap();
    assert!(all.purge.index > LogIndex(20) && all.below > LogOffset(0));
    assert_eq!(node.log.removable_below(LogOffset(SEGMENT - 1)), None);
    let one = node.log.removable_below(LogOffset(SEGMENT)).unwrap();
    assert_eq!(one.below, LogOffset(SEGMENT));

    let pin = node.log.pin();
    assert_eq!(node.log.removable_below(node.log.state().end), None);
    node.log.purge_to(all.purge, node.outcomes.named(0)).unwrap();
    node.log.remove_below(all.below, node.outcomes.named(0)).unwrap();
    node.settle();
    assert_eq!(node.log.state().start, LogOffset(0));
    drop(pin);
    node.log.remove_below(all.below, node.outcomes.named(0)).unwrap();
    node.settle();
    assert_eq!(node.log.state().start, all.below);
}

#[test]
fn an_entry_that_is_not_there_has_no_extents() {
    let (from, _) = source();
    for id in [LogId::new(2, 33), LogId::new(1, 40), LogId::new(1, 2)] {
        let error = from.log.reader().extents(id).unwrap_err();
        assert!(matches!(error, Error::UnknownEntry { .. }), "{id}: {error}");
    }
}
