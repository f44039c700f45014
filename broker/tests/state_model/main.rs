//! Random commands against a naive model, and replicas against each other.
//!
//! A log is made of random steps. The model says what each command must answer and what must be
//! seen afterwards. Replicas apply the log in different batches, over stores in memory and on the
//! disk, and are restarted and crash on the way: all must answer like the model, whenever they
//! apply an entry, and end with equal digests.
#![allow(clippy::unwrap_used, reason = "a test")]

mod model;
mod replica;
mod steps;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::FileFailurePersistence;

use replica::{Event, Replica};
use steps::{Log, Step};

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
    let mut runner = proptest::test_runner::TestRunner::deterministic();
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
