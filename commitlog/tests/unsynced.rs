//! What was never synced may be left in any order and any part. Recovery must not take that for
//! damage, however large the segment is, and must not keep a part of it as the log.

mod common;

use std::time::Duration;

use commitlog::{Config, Error, Fault, Flush, Loss, Record, SimDisk};
use common::{Node, identity, records};

/// Segments much larger than what can be unsynced at a time, so that sound frames far behind a torn
/// place would count as proof of damage.
fn config(flush: Flush) -> Config {
    let sizes = Config::with_segment_size(64 << 10);
    Config { max_body: 512, sync_group_bytes: 2048, flush, ..sizes }
}

fn open(disk: &SimDisk, flush: Flush) -> Result<Node, Error> {
    Node::open_as(disk, config(flush), identity())
}

/// Large appends and small ones, with a vote between them. Answers what must be there when the
/// disk stopped.
fn live(disk: &SimDisk, flush: Flush, all: &[Record]) -> usize {
    let Ok(mut node) = open(disk, flush) else { return 0 };
    let (mut promised, mut voted) = (0, 0);
    for (until, vote) in [(3, false), (70, false), (71, false), (90, true), (170, false)] {
        let from = node.log.state().last.map_or(0, |last| last.index.0 + 1);
        let from = usize::try_from(from).unwrap();
        let accepted = node.append(all[from..until].to_vec());
        if accepted.is_err() || !node.outcomes.failed().is_empty() {
            break;
        }
        promised = until;
        if vote {
            if node.vote(1).is_err() || !node.outcomes.failed().is_empty() {
                break;
            }
            voted = until;
        }
    }
    match flush {
        Flush::Sync => promised,
        // Only a vote makes what was written before it durable.
        Flush::Async { .. } => voted,
    }
}

fn check_every_call(flush: Flush) {
    let all = records(1, 0..170, 400);
    let whole = SimDisk::new();
    live(&whole, flush, &all);
    for call in 0..whole.calls() {
        let disk = SimDisk::new();
        disk.fail_at(call, Fault::Crash);
        let promised = live(&disk, flush, &all);
        let mut losses: Vec<Loss> = (0..5).map(|seed| Loss::Random { seed }).collect();
        losses.extend([Loss::Unsynced, Loss::Zeroed]);
        losses.extend((0..disk.pending().len()).map(|change| Loss::Only { change }));
        for loss in losses {
            let after = disk.after_crash(loss);
            let node = open(&after, flush)
                .unwrap_or_else(|error| panic!("call {call}, {loss:?}: {error}"));
            let found = node.all().unwrap();
            assert!(all.starts_with(&found), "call {call}, {loss:?}");
            assert!(found.len() >= promised, "call {call}, {loss:?}: {} left", found.len());
        }
    }
}

#[test]
fn unsynced_writes_are_never_taken_for_damage() {
    check_every_call(Flush::Sync);
}

#[test]
fn unsynced_writes_of_the_asynchronous_mode_are_never_taken_for_damage() {
    check_every_call(Flush::Async { max_bytes: 3000, max_delay: Duration::from_secs(600) });
}

#[test]
fn damage_that_is_further_from_the_end_than_unsynced_writes_reach_is_damage() {
    let disk = SimDisk::new();
    let mut node = open(&disk, Flush::Sync).unwrap();
    node.append(records(1, 0..90, 400)).unwrap();
    let frames = node
        .log
        .reader()
        .frames(commitlog::position::LogIndex(0)..commitlog::position::LogIndex(90), usize::MAX);
    let frames = frames.unwrap();
    drop(node);
    let last = frames.last().unwrap().position.0;
    // 2048 of a group, a body of 512, two headers of 64; and a frame that ends behind it.
    let reach = 2048 + 512 + 128;
    for frame in frames.iter().filter(|frame| frame.position.0 + reach + 464 < last) {
        let damaged = disk.after_crash(Loss::Nothing);
        let at = usize::try_from(frame.position.0).unwrap();
        damaged.flip("00000000000000000000.seg", at + 17, 1);
        let error = open(&damaged, Flush::Sync).err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}
