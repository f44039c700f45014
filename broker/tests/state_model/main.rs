//! Random commands against a naive model, and replicas against each other.
//!
//! A log is made of random steps. The model says what each command must answer and what must be
//! seen afterwards. Replicas apply the log in different batches, over stores in memory and on the
//! disk, and are restarted and crash on the way: all must answer like the model, whenever they
//! apply an entry, and end with equal digests.
#![allow(clippy::unwrap_used, reason = "a test")]

mod model;
mod offsets;
mod ordered;
mod ordered_steps;
mod replica;
mod steps;

use broker::command::{AckOutcome, Outcome};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use replica::{Event, Replica};
use steps::{Log, Step};

/// What a log must have had, or the tests prove little.
fn reached(logs: &[Log]) -> [usize; 8] {
    let mut reached = [0; 8];
    for outcome in logs.iter().flat_map(|log| log.outcomes.iter().flatten()) {
        let more = match outcome {
            Outcome::Appended { messages, .. } => {
                [messages.len(), messages.iter().filter(|m| m.repeated).count(), 0, 0, 0, 0, 0, 0]
            }
            Outcome::Popped { granted } => {
                [0, 0, granted.len(), granted.iter().filter(|g| g.attempt > 1).count(), 0, 0, 0, 0]
            }
            Outcome::Acked(acked) => {
                [0, 0, 0, 0, acked.iter().filter(|a| **a == AckOutcome::Acked).count(), 0, 0, 0]
            }
            Outcome::Renewed { count } | Outcome::Released { count } => {
                [0, 0, 0, 0, 0, *count as usize, 0, 0]
            }
            Outcome::OffsetCommitted { offset } => [0, 0, 0, 0, 0, 0, usize::from(offset.0 > 0), 0],
            Outcome::OffsetsReset { queues } => {
                [0, 0, 0, 0, 0, 0, 0, queues.iter().filter(|q| q.from != q.to).count()]
            }
            Outcome::TopicPut { .. }
            | Outcome::InvisibleChanged { .. }
            | Outcome::DeadLettered
            | Outcome::Redriven { .. }
            | Outcome::Done
            | Outcome::Rejected(_) => [0; 8],
        };
        reached.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    reached
}

#[test]
fn the_logs_reach_every_corner() {
    let mut runner = TestRunner::deterministic();
    let logs = log(1..160);
    let logs: Vec<_> = (0..160).map(|_| logs.new_tree(&mut runner).unwrap().current()).collect();
    let reached = reached(&logs);
    let least = [3000, 250, 1500, 200, 500, 200, 100, 30];
    assert!(reached.iter().zip(least).all(|(r, l)| *r >= l), "{reached:?} is not {least:?}");
}

#[test]
fn the_logs_hold_back_give_up_and_put_back() {
    let mut runner = TestRunner::deterministic();
    let logs = log(1..160);
    let logs: Vec<_> = (0..100).map(|_| logs.new_tree(&mut runner).unwrap().current()).collect();
    let outcomes = || logs.iter().flat_map(|log| log.outcomes.iter().flatten());
    let given_up = outcomes().filter(|outcome| **outcome == Outcome::DeadLettered).count();
    let put_back = outcomes().map(|outcome| match outcome {
        Outcome::Redriven { count, .. } => *count as usize,
        _ => 0,
    });
    let held = || logs.iter().flat_map(|log| log.model.held.values());
    let waiting = held().filter(|held| held.attempt == 0).count();
    let repeated = held().filter(|held| held.block.is_some() && held.attempt > 1).count();
    let dead: usize = logs.iter().map(|log| log.model.origins.len()).sum();
    let reached = [given_up, dead, put_back.sum(), waiting, repeated];
    let least = [50, 100, 20, 60, 30];
    assert!(reached.iter().zip(least).all(|(r, l)| *r >= l), "{reached:?} is not {least:?}");
}

fn config(cases: u32) -> ProptestConfig {
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as _);
    ProptestConfig { cases, failure_persistence, ..ProptestConfig::default() }
}

fn log(entries: std::ops::Range<usize>) -> impl Strategy<Value = Log> {
    let entry = prop::collection::vec(steps::step(), 1..5);
    prop::collection::vec(entry, entries).prop_map(|entries: Vec<Vec<Step>>| Log::of(&entries))
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_replica_answers_like_the_model(log in log(1..80)) {
        let mut replica = Replica::in_memory(&log);
        replica.run(&[]);
        replica.check_views();
    }

    #[test]
    fn batching_and_crashes_make_no_difference(
        log in log(1..60),
        events in prop::collection::vec(replica::event(), 1..40),
    ) {
        let mut plain = Replica::in_memory(&log);
        plain.run(&[]);
        let mut other = Replica::in_memory(&log);
        other.run(&events);
        other.check_views();
        prop_assert_eq!(other.digest(), plain.digest());
    }
}

proptest! {
    #![proptest_config(config(25))]

    #[test]
    fn the_store_makes_no_difference(
        log in log(1..60),
        events in prop::collection::vec(replica::event(), 1..16),
    ) {
        let mut memory = Replica::in_memory(&log);
        memory.run(&[]);
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Replica::on_disk(&log, dir.path());
        disk.run(&events);
        disk.check_views();
        prop_assert_eq!(disk.digest(), memory.digest());
    }
}

/// Crashes after every single entry, with a flush now and then.
#[test]
fn a_crash_after_any_entry_loses_nothing_that_counts() {
    let mut runner = TestRunner::deterministic();
    let log = log(40..41).new_tree(&mut runner).unwrap().current();
    let mut plain = Replica::in_memory(&log);
    plain.run(&[]);
    let mut events = vec![];
    for round in 0..400 {
        events.push(Event::Apply(1 + round % 7));
        events.push(if round % 3 == 0 { Event::Flush } else { Event::Crash });
    }
    let mut other = Replica::in_memory(&log);
    other.run(&events);
    other.check_views();
    assert_eq!(other.digest(), plain.digest());
}
