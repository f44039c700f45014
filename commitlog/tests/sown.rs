//! Bugs that are sown in the log, and what they break on a disk that forgets what was not synced:
//! the same lives without them keep every promise.

mod common;

use commitlog::position::LogIndex;
use commitlog::{Bug, Fault, Loss, SimDisk};
use common::{Node, body, records};

/// A life that ends in a power failure, and whether what was promised in it was there afterwards.
type Life = fn() -> bool;

/// Segments hold a dozen of these.
const LEN: usize = 300;

/// What is there after the power has failed and come back.
fn found(disk: &SimDisk) -> Option<Node> {
    Node::open(&disk.after_crash(Loss::Unsynced)).ok()
}

fn has_all(disk: &SimDisk, count: u64) -> bool {
    found(disk).is_some_and(|node| node.all().is_ok_and(|all| all == records(1, 0..count, LEN)))
}

fn appended() -> bool {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..5, LEN)).unwrap();
    assert_eq!(node.outcomes.done(), [4]);
    has_all(&disk, 5)
}

/// Into the next segment, from the middle of the first one.
fn rolled() -> bool {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..8, LEN)).unwrap();
    node.append(records(1, 8..30, LEN)).unwrap();
    assert_eq!(node.outcomes.done(), [7, 29]);
    has_all(&disk, 30)
}

fn voted() -> bool {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..2, LEN)).unwrap();
    node.vote(7).unwrap();
    assert_eq!(node.outcomes.failed().len(), 0);
    found(&disk).is_some_and(|node| node.log.state().vote == Some([7; 24]))
}

/// What is read is what was written, or an error.
fn read_after_a_flip() -> bool {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..30, LEN)).unwrap();
    let first = node.log.reader().frames(LogIndex(0)..LogIndex(1), 1).unwrap()[0].position;
    node.log.close_with(node.outcomes.named(0)).unwrap();
    node.settle();
    drop(node);
    disk.flip(&segment(&disk), usize::try_from(first.0).unwrap() + 9, 4);
    // The segment has successors, so that nothing looks at it when the log is opened.
    let node = Node::open(&disk).unwrap();
    match node.log.reader().bytes(first, u32::try_from(LEN).unwrap()) {
        Ok(read) => read == body(1, 0, LEN),
        Err(_) => true,
    }
}

/// Damage in what was synced is refused, and cuts nothing.
fn opened_after_a_flip() -> bool {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..6, LEN)).unwrap();
    let third = node.log.reader().frames(LogIndex(2)..LogIndex(3), 1).unwrap()[0].position;
    node.vote(1).unwrap();
    drop(node);
    disk.flip(&segment(&disk), usize::try_from(third.0).unwrap() + 9, 4);
    match Node::open(&disk) {
        Ok(node) => node.all().is_ok_and(|all| all.len() == 6),
        Err(_) => true,
    }
}

/// What a failed sync was to keep is not acknowledged.
fn synced_in_vain() -> bool {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(records(1, 0..2, LEN)).unwrap();
    node.log.append(records(1, 2..3, LEN), node.outcomes.named(2)).unwrap();
    // The write works, the sync does not.
    disk.fail_at(disk.calls() + 1, Fault::Eio);
    node.settle();
    let promised = if node.outcomes.done().contains(&2) { 3 } else { 2 };
    has_all(&disk, promised)
}

/// The first segment.
fn segment(disk: &SimDisk) -> String {
    disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap()
}

/// One test, because a process has one bug at most.
#[test]
fn every_bug_that_is_sown_in_the_log_breaks_a_promise() {
    let lives: [(Bug, Life); 7] = [
        (Bug::B02, appended),
        (Bug::B03, rolled),
        (Bug::B04, voted),
        (Bug::B20, read_after_a_flip),
        (Bug::B21, opened_after_a_flip),
        (Bug::B22, synced_in_vain),
        (Bug::B25, rolled),
    ];
    for (bug, life) in lives {
        Bug::weed();
        assert!(life(), "without {}", bug.name());
        bug.sow();
        assert!(!life(), "{} was not caught", bug.name());
    }
    Bug::weed();
}
