//! Crashes at every call and every byte: nothing acknowledged is lost, nothing torn is read, and a
//! vote never goes back.

mod common;

use commitlog::position::{LogId, LogIndex};
use commitlog::{Error, Fault, Loss, Record, SimDisk};
use common::{Node, record, records};

/// What was acknowledged before the crash.
#[derive(Default)]
struct Promised {
    /// Entries that must be there.
    durable: Vec<Record>,
    /// Entries that may be there behind them.
    possible: Vec<Record>,
    vote: u8,
    next_vote: u8,
    purged: Option<LogId>,
}

/// A life with appends, rolls, votes, a cut and a purge; it ends where the disk fails.
fn live(disk: &SimDisk) -> (Promised, Option<Error>) {
    let mut promised = Promised::default();
    let error = live_until_failure(disk, &mut promised).err();
    (promised, error)
}

fn live_until_failure(disk: &SimDisk, promised: &mut Promised) -> Result<(), Error> {
    let mut node = Node::open(disk)?;
    vote(&mut node, promised, 1)?;
    append(&mut node, promised, records(1, 0..3, 200))?;
    append(&mut node, promised, records(1, 3..14, 400))?;
    vote(&mut node, promised, 2)?;
    append(&mut node, promised, records(2, 14..22, 400))?;
    cut(&mut node, promised, LogId::new(1, 8))?;
    append(&mut node, promised, records(3, 9..12, 700))?;
    node.log.set_committed(LogIndex(11));
    let upto = LogId::new(1, 6);
    node.log.purge_to(upto, node.outcomes.named(0))?;
    promised.purged = Some(upto);
    node.settle();
    failure(&node)?;
    node.log.remove_below(node.log.state().end, node.outcomes.named(0))?;
    node.settle();
    failure(&node)?;
    append(&mut node, promised, records(3, 12..30, 350))?;
    vote(&mut node, promised, 3)?;
    node.log.close_with(node.outcomes.named(0))?;
    node.settle();
    failure(&node)
}

fn failure(node: &Node) -> Result<(), Error> {
    node.outcomes.failed().into_iter().next().map_or(Ok(()), Err)
}

fn append(node: &mut Node, promised: &mut Promised, records: Vec<Record>) -> Result<(), Error> {
    promised.possible.clone_from(&records);
    node.append(records)?;
    failure(node)?;
    promised.durable.append(&mut promised.possible);
    Ok(())
}

fn cut(node: &mut Node, promised: &mut Promised, after: LogId) -> Result<(), Error> {
    let keep = usize::try_from(after.index.0 + 1).unwrap();
    promised.possible = promised.durable.split_off(keep);
    node.truncate(Some(after))?;
    failure(node)?;
    promised.possible.clear();
    Ok(())
}

fn vote(node: &mut Node, promised: &mut Promised, vote: u8) -> Result<(), Error> {
    promised.next_vote = vote;
    node.vote(vote)?;
    failure(node)?;
    promised.vote = vote;
    Ok(())
}

/// What a machine finds afterwards is everything promised, then a part of what was under way.
fn check(disk: &SimDisk, promised: &Promised, case: &str) {
    let mut node = Node::open(disk).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = node.all().unwrap_or_else(|error| panic!("{case}: {error}"));
    let first = found.first().map_or(0, |record| record.log_id.index.0);
    let skipped = usize::try_from(first).unwrap().min(promised.durable.len());
    assert!(
        first == 0 || promised.purged.is_some_and(|purged| first <= purged.index.0 + 1),
        "{case}: starts at {first}"
    );
    let durable = &promised.durable[skipped..];
    assert!(found.len() >= durable.len(), "{case}: {} of {} left", found.len(), durable.len());
    assert_eq!(&found[..durable.len()], durable, "{case}");
    let rest = &found[durable.len()..];
    assert!(promised.possible.starts_with(rest), "{case}: {rest:?} was never appended");
    let voted = node.log.state().vote.map_or(0, |vote| vote[0]);
    assert!(
        voted == promised.vote || voted == promised.next_vote,
        "{case}: voted {voted}, promised {}",
        promised.vote
    );
    // And life goes on.
    let next = node.log.state().last.map_or(0, |last| last.index.0 + 1);
    node.append(vec![record(9, next, 900)]).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(node.outcomes.done(), [next], "{case}");
}

fn losses() -> Vec<Loss> {
    let mut losses = vec![Loss::Nothing, Loss::Unsynced, Loss::Zeroed];
    losses.extend((0..12).map(|seed| Loss::Random { seed }));
    losses
}

#[test]
fn a_crash_at_any_call_loses_nothing_acknowledged() {
    let whole = SimDisk::new();
    assert!(live(&whole).1.is_none());
    for call in 0..whole.calls() {
        let disk = SimDisk::new();
        disk.fail_at(call, Fault::Crash);
        let (promised, _) = live(&disk);
        for loss in losses() {
            check(&disk.after_crash(loss), &promised, &format!("call {call}, {loss:?}"));
        }
        for change in 0..disk.pending().len() {
            let loss = Loss::Only { change };
            check(&disk.after_crash(loss), &promised, &format!("call {call}, {loss:?}"));
        }
    }
}

#[test]
fn a_write_torn_at_any_byte_loses_nothing_acknowledged() {
    let whole = SimDisk::new();
    live(&whole);
    for call in 0..whole.calls() {
        let disk = SimDisk::new();
        disk.fail_at(call, Fault::Crash);
        let (promised, _) = live(&disk);
        let pending = disk.pending();
        let Some(&len) = pending.last() else { continue };
        for bytes in 0..len {
            let loss = Loss::AfterPrefix { changes: pending.len() - 1, bytes };
            check(&disk.after_crash(loss), &promised, &format!("call {call}, {loss:?}"));
        }
    }
}

#[test]
fn a_second_crash_while_recovering_changes_nothing() {
    let mut disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..10, 300)).unwrap();
    node.log.append(records(1, 10..14, 300), node.outcomes.named(13)).unwrap();
    disk.fail_next(Fault::Crash);
    node.settle();
    drop(node);
    disk = disk.after_crash(Loss::Random { seed: 3 });
    let promised = Promised {
        durable: records(1, 0..10, 300),
        possible: records(1, 10..14, 300),
        ..Promised::default()
    };
    for call in 0..60 {
        let again = disk.after_crash(Loss::Nothing);
        again.fail_at(call, Fault::Crash);
        drop(Node::open(&again));
        for loss in [Loss::Unsynced, Loss::Nothing, Loss::Random { seed: call }] {
            check(&again.after_crash(loss), &promised, &format!("call {call}, {loss:?}"));
        }
    }
}

#[test]
fn an_io_error_at_any_call_is_reported_and_final() {
    let whole = SimDisk::new();
    live(&whole);
    for call in 0..whole.calls() {
        for fault in [Fault::Eio, Fault::Enospc] {
            let disk = SimDisk::new();
            disk.fail_at(call, fault);
            let (promised, error) = live(&disk);
            // Reserving space ahead may fail and be made up for later.
            if error.is_none() {
                continue;
            }
            let after = disk.after_crash(Loss::Unsynced);
            check(&after, &promised, &format!("call {call}, {fault:?}"));
        }
    }
}

#[test]
fn nothing_is_accepted_after_a_failed_sync() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..2, 100)).unwrap();
    node.log.append(records(1, 2..3, 100), node.outcomes.named(2)).unwrap();
    // The write works, the sync does not.
    disk.fail_at(disk.calls() + 1, Fault::Eio);
    node.settle();
    assert_eq!(node.outcomes.done(), [1]);
    assert!(matches!(node.outcomes.failed()[0], Error::Io { action: "sync", .. }));
    let refused = node.append(records(1, 3..4, 100)).unwrap_err();
    assert!(matches!(refused, Error::Poisoned { .. }), "{refused}");
    assert!(matches!(node.vote(1).unwrap_err(), Error::Poisoned { .. }));
}

#[test]
fn nothing_is_accepted_after_a_disk_made_no_spare() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..2, 100)).unwrap();
    disk.fail_next(Fault::Eio);
    let error = node.log.reserve(10 * 8192, 10).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let refused = node.append(records(1, 2..3, 100)).unwrap_err();
    assert!(matches!(refused, Error::Poisoned { .. }), "{refused}");
    assert_eq!(node.all().unwrap(), records(1, 0..2, 100), "reads go on");
}

#[test]
fn a_full_disk_refuses_before_it_tears_and_recovers_with_space() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    disk.set_capacity(Some(6 * 8192));
    let mut next = 0;
    let refused = loop {
        match node.append(records(1, next..next + 1, 500)) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 100, "the disk is never full");
    };
    assert!(refused.is_disk_full(), "{refused}");
    assert!(node.outcomes.failed().is_empty(), "nothing that was accepted failed");
    assert_eq!(node.all().unwrap(), records(1, 0..next, 500));
    node.vote(4).unwrap();
    disk.set_capacity(None);
    node.append(records(1, next..next + 20, 500)).unwrap();
    drop(node);
    assert_eq!(Node::open(&disk).unwrap().all().unwrap(), records(1, 0..next + 20, 500));
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_or_harmless() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    let all = records(1, 0..25, 300);
    node.append(all.clone()).unwrap();
    node.vote(5).unwrap();
    drop(node);
    for name in disk.names() {
        let len = disk.contents(&name).unwrap().len();
        for at in 0..len {
            let damaged = disk.after_crash(Loss::Nothing);
            damaged.flip(&name, at, 1 << (at % 8));
            let Ok(node) = Node::open(&damaged) else { continue };
            assert_eq!(node.log.state().vote, Some([5; 24]), "{name} byte {at}");
            let Ok(found) = node.all() else { continue };
            assert_eq!(found, all, "{name} byte {at}");
        }
    }
}

#[test]
fn damage_in_the_middle_names_its_place_and_is_no_end() {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..4, 300)).unwrap();
    let at = node.log.reader().frames(LogIndex(2)..LogIndex(3), 1).unwrap()[0].position;
    node.vote(1).unwrap();
    drop(node);
    disk.flip(
        &disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap(),
        usize::try_from(at.0).unwrap() + 5,
        4,
    );
    let error = Node::open(&disk).err().unwrap();
    let Error::Corrupt { segment, offset, expected, found, .. } = error else { panic!("{error}") };
    assert_eq!((segment.0, offset.0), (0, at.0 - 64));
    assert_ne!(expected, found);
}
