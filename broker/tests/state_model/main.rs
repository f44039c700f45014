//! Random commands against a naive model, and replicas against each other.
//!
//! A log is made of random steps. The model says what each command must answer and what must be
//! seen afterwards. Replicas apply the log in different batches, over stores in memory and on the
//! disk, and are restarted and crash on the way: all must answer like the model, whenever they
//! apply an entry, and end with equal digests.
#![allow(clippy::unwrap_used, reason = "a test")]

mod administration;
mod model;
mod offsets;
mod ordered;
mod ordered_steps;
mod replica;
mod retention;
mod steps;
mod timers;
mod transactions;

use broker::command::{Accepted, AckOutcome, Outcome, RecallOutcome, Rejection};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use replica::{Event, Replica};
use steps::{Log, Step};

/// What a log must have had, or the tests prove little.
fn reached(logs: &[Log]) -> [usize; 14] {
    let mut reached = [0; 14];
    for outcome in logs.iter().flat_map(|log| log.outcomes.iter().flatten()) {
        let more = match outcome {
            Outcome::Appended { messages, .. } => {
                vec![(0, messages.len()), (1, messages.iter().filter(|m| m.repeated).count())]
            }
            Outcome::Popped { granted } => {
                vec![(2, granted.len()), (3, granted.iter().filter(|g| g.attempt > 1).count())]
            }
            Outcome::Acked(acked) => {
                vec![(4, acked.iter().filter(|a| **a == AckOutcome::Acked).count())]
            }
            Outcome::Renewed { count } | Outcome::Released { count } => vec![(5, *count as usize)],
            Outcome::GivenBack { count } => vec![(13, *count as usize)],
            Outcome::OffsetCommitted { offset } => vec![(11, usize::from(offset.0 > 0))],
            Outcome::OffsetsReset { queues } => {
                vec![(12, queues.iter().filter(|q| q.from != q.to).count())]
            }
            Outcome::HalfAppended { repeated, .. } => vec![(6, usize::from(*repeated))],
            Outcome::TransactionEnded { repeated } => vec![(7, 1), (8, usize::from(*repeated))],
            Outcome::TransactionsChecked { count } | Outcome::TransactionsParked { count } => {
                vec![(9, *count as usize)]
            }
            Outcome::Rejected(
                Rejection::TransactionCommitted
                | Rejection::TransactionRolledBack
                | Rejection::TransactionParked,
            ) => vec![(10, 1)],
            Outcome::TopicPut { .. }
            | Outcome::InvisibleChanged { .. }
            | Outcome::DeadLettered
            | Outcome::Redriven { .. }
            | Outcome::Delayed { .. }
            | Outcome::Fired { .. }
            | Outcome::Recalled(_)
            | Outcome::Carried { .. }
            | Outcome::TransactionsExpired { .. }
            | Outcome::Marked { .. }
            | Outcome::Done
            | Outcome::Rejected(_) => vec![],
        };
        more.into_iter().for_each(|(place, more)| reached[place] += more);
    }
    reached
}

#[test]
fn the_logs_reach_every_corner() {
    let mut runner = TestRunner::deterministic();
    let logs = log(1..160);
    let logs: Vec<_> = (0..480).map(|_| logs.new_tree(&mut runner).unwrap().current()).collect();
    let reached = reached(&logs);
    let least = [3000, 250, 1500, 200, 500, 200, 8, 150, 30, 100, 50, 100, 30, 200];
    assert!(reached.iter().zip(least).all(|(r, l)| *r >= l), "{reached:?} is not {least:?}");
}

#[test]
fn the_logs_hold_back_give_up_and_put_back() {
    let mut runner = TestRunner::deterministic();
    let logs = log(1..160);
    let logs: Vec<_> = (0..800).map(|_| logs.new_tree(&mut runner).unwrap().current()).collect();
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

#[test]
fn the_logs_delay_fire_and_recall() {
    let mut runner = TestRunner::deterministic();
    let logs = log(1..160);
    let logs: Vec<_> = (0..160).map(|_| logs.new_tree(&mut runner).unwrap().current()).collect();
    let mut reached = [0; 7];
    for outcome in logs.iter().flat_map(|log| log.outcomes.iter().flatten()) {
        let more = match outcome {
            Outcome::Delayed { messages, .. } => {
                let count = |of: fn(&Accepted) -> bool| messages.iter().filter(|m| of(m)).count();
                let waits = count(|m| matches!(m, Accepted::Waits { repeated: false, .. }));
                let repeated = count(|m| matches!(m, Accepted::Waits { repeated: true, .. }));
                let queued = count(|m| matches!(m, Accepted::Queued(_)));
                [waits, repeated, queued, 0, 0, 0, 0]
            }
            Outcome::Fired { due, .. } => [0, 0, 0, due.len(), 0, 0, 0],
            Outcome::Recalled(RecallOutcome::Done) => [0, 0, 0, 0, 1, 0, 0],
            Outcome::Recalled(RecallOutcome::Delivered) => [0, 0, 0, 0, 0, 1, 0],
            Outcome::Recalled(RecallOutcome::Unknown) => [0, 0, 0, 0, 0, 0, 1],
            _ => [0; 7],
        };
        reached.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    let least = [1000, 20, 200, 300, 100, 50, 50];
    assert!(reached.iter().zip(least).all(|(r, l)| *r >= l), "{reached:?} is not {least:?}");
}

#[test]
fn the_logs_carry_and_let_go() {
    let mut runner = TestRunner::deterministic();
    let logs = log(1..160);
    let logs: Vec<_> = (0..100).map(|_| logs.new_tree(&mut runner).unwrap().current()).collect();
    let mut reached = [0; 4];
    for outcome in logs.iter().flat_map(|log| log.outcomes.iter().flatten()) {
        let more = match outcome {
            Outcome::Carried { references, .. } => [1, *references as usize, 0],
            Outcome::TransactionsExpired { count } => [0, 0, *count as usize],
            _ => [0; 3],
        };
        reached.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    // Logs whose first message nobody needs any more.
    let first = |log: &Log| log.model.live().iter().map(|live| live.position).min();
    let later = logs.iter().filter(|log| first(log) > Some(10 * retention::SEGMENT));
    reached[3] = later.count();
    let least = [300, 1000, 5, 5];
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
